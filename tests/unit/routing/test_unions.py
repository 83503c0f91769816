"""UNION ALL in a FROM list, as the ORM writes it for a hierarchy of concrete tables."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    exists,
    func,
    literal_column,
    select,
    union,
    union_all,
)

from sqlalchemy_shards import reference_table, shard_table
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.routing.analysis import analyse

METADATA = MetaData()


def table(name: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("k", Integer, primary_key=True, autoincrement=False),
        Column("value", Integer),
    )


A, B, C = (shard_table(table(name), "k") for name in "abc")
OTHER = shard_table(table("other"), "k", keyspace="other")
REFERENCE = reference_table(table("reference"))
BOTH = union_all(
    select(A.c.k, A.c.value, literal_column("'a'").label("kind")),
    select(B.c.k, B.c.value, literal_column("'b'").label("kind")),
).subquery("both")


def sources_of(statement: Any) -> Any:
    dialect = ShardsDialect()
    compiled = statement.compile(dialect=dialect)
    return analyse(compiled, dialect, undeclared_is_global=False, rendered=compiled.rendered_tables)


def of(query: Any) -> Any:
    return select(query.subquery())


@pytest.mark.parametrize(
    "statement",
    [
        select(BOTH),
        select(BOTH).where(BOTH.c.value > 1).order_by(BOTH.c.k),
        select(func.count()).select_from(BOTH),
        select(BOTH, REFERENCE).join(REFERENCE, REFERENCE.c.k == BOTH.c.value),
        select(C, BOTH).join(BOTH, BOTH.c.k == C.c.k),
        select(C, BOTH).join(BOTH, BOTH.c.k == C.c.k).where(BOTH.c.kind == "a"),
        of(union_all(select(A.c.k), select(OTHER.c.k))),
        of(union_all(select(A.c.k).join(B, A.c.k == B.c.k), select(C.c.k))),
        of(union_all(select(A.c.k))),
        union_all(select(A.c.k), select(B.c.k)),
        union_all(select(A.c.k), select(B.c.k)).order_by("k").limit(1),
    ],
    ids=range(11),
)
def test_rows_of_the_members_add_up(statement: Any) -> None:
    sources = sources_of(statement)

    assert (sources.obstacle, sources.unreadable) == (None, None)


@pytest.mark.parametrize(
    "statement",
    [
        of(union(select(A.c.k), select(B.c.k))),
        union_all(select(A.c.k), select(REFERENCE.c.k)),
        of(union_all(select(A.c.k), select(REFERENCE.c.k))),
        of(union_all(select(A.c.k), select(func.max(B.c.k)))),
        of(union_all(select(A.c.k).limit(1), select(B.c.k))),
        of(union_all(select(A.c.k), select(B.c.k)).limit(1)),
        of(union_all(select(A.c.k).distinct(), select(B.c.k))),
        of(union_all(select(A.c.k, B.c.k.label("l")), select(C.c.k, C.c.k))),
        select(BOTH, C).where(BOTH.c.value == C.c.value),
        select(BOTH, C).where(BOTH.c.k == C.c.value),
        select(BOTH, C).join(C, C.c.k == BOTH.c.value),
        select(C, BOTH).outerjoin(BOTH, BOTH.c.k == C.c.k),
        select(BOTH, C).outerjoin(C, BOTH.c.k == C.c.k),
        select(BOTH, BOTH.alias()),
        select(BOTH).where(exists().where(C.c.value == BOTH.c.value)),
        select(C).where(exists().where(C.c.value == BOTH.c.value)),
    ],
    ids=range(16),
)
def test_rows_of_several_shards_that_meet_do_not(statement: Any) -> None:
    sources = sources_of(statement)

    assert sources.obstacle is not None or sources.unreadable is not None


def test_a_condition_on_the_key_reaches_every_member() -> None:
    sources = sources_of(select(BOTH).where(BOTH.c.k == 5))

    assert [root.name for root in sources.roots] == ["a", "b"]
    assert all("PartEquals" in str(root.condition) for root in sources.roots)


def test_a_condition_inside_one_member_restricts_no_other() -> None:
    sources = sources_of(of(union_all(select(A.c.k).where(A.c.k == 5), select(B.c.k))))

    conditions = [str(root.condition) for root in sources.roots]
    assert "PartEquals" in conditions[0]
    assert "PartEquals" not in conditions[1]
