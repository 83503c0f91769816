"""What docs/refusals.md says first that no SELECT over several shards can do; one shard does it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import column, func, literal_column, select, table, text

from sqlalchemy_shards import GatherLimit
from sqlalchemy_shards.errors import GatherLimitExceeded, UnsupportedStatement
from tests.architecture.source import ROOT
from tests.shards.results.same import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.shards.shop import World

PAGE = (ROOT / "docs" / "refusals.md").read_text("utf-8")
(LISTED,) = re.findall(r"## The short list\n\n.*?\n\n(.*?)\n\n", PAGE, re.DOTALL)

REFUSED: Mapping[str, list[Callable[[Any], Any]]] = {
    "Lock rows": [
        lambda m: select(m.Author.id).limit(1).with_for_update(),
        lambda m: (
            select(m.Author.id)
            .join(m.Book, m.Book.author_id == m.Author.id)
            .with_for_update(of=m.Author)
        ),
    ],
    "Call a function": [
        lambda m: select(func.pg_backend_pid(), func.count(m.Book.title.distinct())),
        lambda m: select(m.Book.id).where(m.Book.published < func.statement_timestamp()),
    ],
    "Pick rows": [
        lambda m: select(func.count()).select_from(m.Book.__table__.tablesample(100)),
        lambda m: select(literal_column("ctid"), m.Book.id).select_from(m.Book),
    ],
    "Read tables": [
        lambda m: select(m.Book.id).where(text("id IN (SELECT author_id FROM books)")),
        lambda m: select(func.count()).select_from(text("books")),
        lambda m: select(table("books", column("id")).c.id),
    ],
    "Stand on raw SQL": [
        lambda m: select(m.Book.id).where(text("id > 0 OR id < 5"), m.Book.id > 0),
        lambda m: select(func.count(m.Book.title.distinct())).where(text("published < now()")),
    ],
    "Bring together": [
        lambda m: (
            select(m.Book.title, m.Author.name)
            .join(m.Author, m.Book.author_id == m.Author.id)
            .execution_options(gather_limit=GatherLimit(rows=1))
        ),
    ],
}


def test_each_line_of_the_list_has_its_statements() -> None:
    lines = LISTED.splitlines()

    assert len(lines) == len(REFUSED)
    assert all(
        line.startswith(f"- {beginning}") for line, beginning in zip(lines, REFUSED, strict=True)
    )


@pytest.mark.parametrize(
    "make", [each for makes in REFUSED.values() for each in makes], ids=lambda _: ""
)
def test_it_is_refused_and_one_shard_does_it(
    four_shards: World, make: Callable[[Any], Any]
) -> None:
    def rows(options: dict[str, Any]) -> Any:
        return run(
            four_shards, lambda session, m: session.execute(make(m).execution_options(**options))
        )

    with pytest.raises((UnsupportedStatement, GatherLimitExceeded)):
        rows({})
    rows({"shard": "s1"})
