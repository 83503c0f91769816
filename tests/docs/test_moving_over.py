"""The samples of docs/guide/moving-over.md run on the application in examples/moving_over."""

from __future__ import annotations

import sys
from datetime import date
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from sqlalchemy_shards import Cluster
from tests.docs.samples import ROOT, Runner, read_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PAGE = ROOT / "docs" / "guide" / "moving-over.md"
EXAMPLE = ROOT / "examples" / "moving_over"


@pytest.fixture
def application(
    clean_shards: Mapping[str, str], one_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The application as it is after the move can be imported; its old database is filled."""
    for directory in ("after", "shared"):
        monkeypatch.syspath_prepend(str(EXAMPLE / directory))
    for number, url in enumerate(clean_shards.values()):
        monkeypatch.setenv(f"SHARD_{number}", url)
    monkeypatch.setenv("SHARDS_FILE", str(EXAMPLE / "four-shards.toml"))
    monkeypatch.setenv("DATABASE_URL", one_database_url)
    fill(one_database_url)
    yield
    sys.modules["helpdesk.database"].cluster.dispose()
    for name in [each for each in sys.modules if each.partition(".")[0] == "helpdesk"]:
        del sys.modules[name]


def fill(url: str) -> None:
    """Put what an application had before into one database, by plain SQLAlchemy."""
    from helpdesk import tickets, workspaces
    from helpdesk.models import Base, Plan

    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Plan(code=code, seats=5, cents_a_month=900) for code in ("small", "large"))
        for text in ("We are open", "We have labels"):
            workspaces.announce(session, text)
        for company in ("acme", "bolt", "cargo", "delta", "ember", "fjord", "grove", "haven"):
            workspace = workspaces.open_workspace(
                session,
                company,
                company,
                plan="small",
                opened_on=date(2026, 1, 1),
                owner=f"ann@{company}.example",
            )
            ticket = tickets.open_ticket(
                session,
                company,
                "Help",
                opened_on=date(2026, 2, 1),
                labels=["fire"][: company == "acme"],
            )
            tickets.answer(session, ticket, workspace.members[0], "Hello")
        session.commit()
    engine.dispose()


@pytest.mark.usefixtures("application")
def test_the_samples_do_what_the_page_says(
    clean_shards: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = ModuleType("documented")
    monkeypatch.setitem(sys.modules, "documented", module)
    runner = Runner(clean_shards, tmp_path, vars(module))

    runner.run(read_samples(PAGE))

    assert isinstance(module.cluster, Cluster)
    module.old.dispose()


def test_what_the_page_shows_of_the_change_is_in_the_files() -> None:
    before, after = (
        [
            line
            for path in (EXAMPLE / each / "helpdesk").glob("*.py")
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for each in ("before", "after")
    )
    shown = [
        line
        for sample in read_samples(PAGE)
        if sample.language == "diff"
        for line in sample.text.splitlines()
    ]

    assert len(shown) > 10
    assert [line for line in shown if line[0] in " -" and line[1:] not in before] == []
    assert [line for line in shown if line[0] in " +" and line[1:] not in after] == []
