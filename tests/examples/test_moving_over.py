"""An application that moves over changes its models' declarations and its session factory only."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from tests.docs.samples import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HERE = ROOT / "examples" / "moving_over"

DECLARATIONS = (
    r"",
    r"from sqlalchemy_shards import [\w, ]+",
    r"class \w+\(((ShardKey|Reference|Global)Mixin, )?Base\):",
    r'    __shard_key__ = "\w+"',
    r'shard_table\(\w+, key="\w+"\)',
)


def files(directory: Path) -> set[str]:
    return {str(each.relative_to(directory)) for each in directory.rglob("*.py")}


def changed_lines(name: str) -> list[str]:
    before, after = (
        (HERE / each / "helpdesk" / name).read_text(encoding="utf-8").splitlines()
        for each in ("before", "after")
    )
    return [line[2:] for line in difflib.ndiff(before, after) if line[0] in "+-"]


def test_nothing_stands_twice_but_models_and_session_factory() -> None:
    twice = {"helpdesk/models.py", "helpdesk/database.py"}

    assert files(HERE / "before") == files(HERE / "after") == twice
    assert not twice & files(HERE / "shared")


def test_of_the_models_only_the_declarations_differ() -> None:
    others = [
        line
        for line in changed_lines("models.py")
        if not any(re.fullmatch(pattern, line) for pattern in DECLARATIONS)
    ]

    assert others == []


def test_the_services_and_the_tests_know_nothing_of_shards() -> None:
    for directory in (HERE / "shared", HERE / "tests"):
        for path in directory.rglob("*.py"):
            assert "shard" not in path.read_text(encoding="utf-8").lower(), path
