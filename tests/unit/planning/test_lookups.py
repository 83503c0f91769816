"""Which columns rows are looked up by, once for each row outside."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import JSON, Column, Integer, MetaData, Table, Text, exists, func, select

from sqlalchemy_shards import shard_table
from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.planning.gathering import plan_gathering

METADATA = MetaData()
LINES = shard_table(
    Table(
        "lines",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("part", Integer, key="part_id"),
        Column("note", Text),
        Column("extra", JSON),
    )
)
BASES = {"id": "integer", "part": "integer", "note": "text", "extra": "json"}
L, OTHER = LINES.c, LINES.alias("other")


def lookups(statement: Any) -> tuple[str, ...]:
    compiled = statement.compile(dialect=ShardsDialect())
    types = {name: ColumnType(f"pg_catalog.{base}", None, base) for name, base in BASES.items()}
    planned = plan_gathering(compiled, types_of=lambda _: types, depending=lambda _: [])
    return planned.parts[0].lookups


def average(*conditions: Any) -> Any:
    return select(func.avg(OTHER.c.id)).where(*conditions).scalar_subquery()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (select(L.id).where(L.id < average(OTHER.c.part_id == L.part_id)), ("part",)),
        (select(L.id).where(L.id < average(L.part_id + 1 == OTHER.c.part_id)), ("part",)),
        (
            select(L.id).where(
                L.id < average(OTHER.c.part_id == L.part_id, OTHER.c.note == L.note)
            ),
            ("part", "note"),
        ),
        (select(L.id, average(OTHER.c.id == L.part_id)), ("id",)),
        (select(L.id).where(exists().where(OTHER.c.note == L.note)), ("note",)),
        (
            select(L.id, select(OTHER.c.id).where(OTHER.c.part_id == L.id).lateral().c.id),
            ("part",),
        ),
    ],
)
def test_columns_that_a_subquery_compares_with_rows_outside(
    statement: Any, expected: tuple[str, ...]
) -> None:
    assert lookups(statement) == expected


@pytest.mark.parametrize(
    "statement",
    [
        select(L.id).join(OTHER, OTHER.c.part_id == L.part_id),
        select(L.id).where(L.part_id == 5),
        select(L.id).where(L.part_id.in_(select(OTHER.c.part_id))),
        select(L.id).where(L.id < average(OTHER.c.part_id == 5)),
        select(L.id).where(L.id < average(OTHER.c.part_id == OTHER.c.id)),
        select(L.id).where(L.id < average(OTHER.c.part_id > L.part_id)),
    ],
)
def test_other_columns_need_no_index(statement: Any) -> None:
    assert lookups(statement) == ()


def test_a_type_that_no_index_takes_has_none() -> None:
    statement = select(L.id).where(
        exists().where(OTHER.c.extra.op("=", is_comparison=True)(L.extra), OTHER.c.id == L.part_id)
    )

    assert lookups(statement) == ("id",)
