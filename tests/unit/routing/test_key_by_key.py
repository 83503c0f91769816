"""Groups, distinct rows and windows are one shard's own where they are made of one key's rows."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    and_,
    distinct,
    exists,
    func,
    or_,
    select,
    tuple_,
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
        Column("l", Integer, primary_key=True, autoincrement=False),
        Column("v", Integer),
        Column("w", Integer),
    )


A, B, C = (shard_table(table(name), "k") for name in "abc")
D, E = (shard_table(table(name), ("k", "l"), keyspace="two") for name in "de")
R = reference_table(table("r"))
COUNT = func.count().label("n")
BOTH = union_all(select(A.c.k, A.c.v), select(B.c.k, B.c.v)).subquery()
RANK = func.rank().over(partition_by=A.c.k, order_by=A.c.v).label("place")
BESIDE = A.outerjoin(B, A.c.k == B.c.k)


def sources_of(statement: Any) -> Any:
    dialect = ShardsDialect()
    compiled = statement.compile(dialect=dialect)
    return analyse(compiled, dialect, undeclared_is_global=False, rendered=compiled.rendered_tables)


@pytest.mark.parametrize(
    "statement",
    [
        select(A.c.k, COUNT).group_by(A.c.k),
        select(A.c.v, COUNT).group_by(A.c.v, A.c.k.label("other")),
        select(A.c.k.label("k2"), COUNT).group_by("k"),
        select(COUNT).select_from(BESIDE).group_by(A.c.k),
        select(COUNT).join_from(A, B, A.c.k == B.c.k).group_by(B.c.k),
        select(COUNT).select_from(BESIDE).where(A.c.k == B.c.k).group_by(A.c.k),
        select(COUNT).where(A.c.k == A.c.w).group_by(A.c.w),
        select(COUNT).join_from(A, R, R.c.k == A.c.v).group_by(A.c.k),
        select(COUNT).select_from(D).group_by(D.c.k, D.c.l),
        select(A.c.v, A.c.k).distinct(),
        select(A.c.k.label("other")).distinct(),
        select(RANK),
        select(A.c.v).order_by(RANK),
        select(A.c.k, func.sum(COUNT.element).over(partition_by=A.c.k)).group_by(A.c.k, A.c.v),
        select(A.c.v),
    ],
    ids=range(15),
)
def test_what_holds_the_key_is_divided_by_it(statement: Any) -> None:
    sources = sources_of(statement)

    assert sources.is_key_by_key
    assert sources.obstacle is None


@pytest.mark.parametrize(
    "statement",
    [
        select(A.c.v, COUNT).group_by(A.c.v),
        select(COUNT).select_from(A).group_by(A.c.k + 1),
        select((A.c.v + 1).label("k"), COUNT).group_by("k"),
        select(COUNT).select_from(A).group_by(func.rollup(A.c.k)),
        select(COUNT).select_from(A).group_by(func.grouping_sets(tuple_(A.c.k), tuple_(A.c.v))),
        select(COUNT).select_from(BESIDE).group_by(B.c.k),
        select(B.c.k).select_from(BESIDE).distinct(),
        select(func.rank().over(partition_by=B.c.k)).select_from(BESIDE),
        select(COUNT).join_from(A, R, R.c.k == A.c.v).group_by(R.c.k),
        select(COUNT).join_from(A, R, R.c.k == A.c.k, isouter=True).group_by(R.c.k),
        select(COUNT).where(or_(A.c.k == A.c.w, A.c.v == 1)).group_by(A.c.w),
        select(COUNT).select_from(D).group_by(D.c.k),
        select(D.c.l, D.c.v).distinct(),
        select(A.c.v).distinct(),
        select(func.rank().over(order_by=A.c.k)),
        select(func.rank().over(partition_by=A.c.v)),
        select(RANK, func.row_number().over(order_by=A.c.v)),
        select(A.c.k, func.sum(COUNT.element).over()).group_by(A.c.k),
        select(COUNT).select_from(A).group_by(A.c.k).distinct(),
        select(BOTH.c.v, COUNT).group_by(BOTH.c.v),
    ],
    ids=range(20),
)
def test_what_does_not_hold_the_whole_key_of_every_row_is_not(statement: Any) -> None:
    sources = sources_of(statement)

    assert not sources.is_key_by_key


@pytest.mark.parametrize(
    "derived",
    [
        select(A.c.k, COUNT).group_by(A.c.k),
        select(A.c.k, COUNT).group_by(A.c.k).having(COUNT.element > 1),
        select(COUNT).select_from(A).group_by(A.c.k, A.c.v),
        select(A.c.k, A.c.v).distinct(),
        select(A.c.k, RANK),
        select(A.c.k, func.avg(A.c.v).filter(A.c.v > 1).label("n")).group_by(A.c.k),
        select(A.c.k, COUNT).select_from(BESIDE).group_by(A.c.k),
    ],
    ids=range(7),
)
def test_derived_tables_of_one_key_each_are_beside_their_rows(derived: Any) -> None:
    sources = sources_of(select(derived.subquery()))

    assert sources.obstacle is None


@pytest.mark.parametrize(
    "derived",
    [
        select(B.c.k, COUNT).select_from(BESIDE).group_by(B.c.k),
        select(B.c.k).select_from(BESIDE).distinct(),
        select(A.c.k, func.rank().over(order_by=A.c.v)),
        select(A.c.k, func.rank().over(partition_by=A.c.v)),
        select(func.max(A.c.k)),
        select(COUNT).select_from(A).having(COUNT.element > 1),
        select(distinct(A.c.v), COUNT).group_by(A.c.k, A.c.v),
        select(A.c.k, COUNT).group_by(A.c.k).limit(3),
        select(A.c.k, func.random()).group_by(A.c.k),
        select(RANK).limit(3),
    ],
    ids=range(10),
)
@pytest.mark.filterwarnings("ignore:Column-expression-level unary distinct")
def test_derived_tables_of_several_keys_are_not(derived: Any) -> None:
    sources = sources_of(select(derived.subquery()))

    assert sources.obstacle is not None


def ranked(partition: Any) -> Any:
    place = func.row_number().over(partition_by=partition, order_by=A.c.v).label("place")
    return select(A.c.k, A.c.v, place).subquery()


def test_a_condition_on_what_a_window_is_divided_by_reaches_its_rows() -> None:
    inside, outside = ranked([A.c.k, A.c.v]), ranked(A.c.v)
    conditions = [
        str(sources_of(select(each).where(each.c.k == 5)).roots[0].condition)
        for each in (inside, outside)
    ]

    assert "PartEquals" in conditions[0]
    assert "PartEquals" not in conditions[1]


def test_the_first_rows_of_each_key_can_be_joined_by_the_key() -> None:
    first = ranked(A.c.k)
    joined = select(B).join(first, and_(first.c.k == B.c.k, first.c.place == 1))

    assert sources_of(joined).obstacle is None


def test_windows_of_subqueries_need_rows_of_one_key() -> None:
    tied = exists(select(func.rank().over(order_by=B.c.v)).where(B.c.k == A.c.k))
    of_copies = exists(select(func.rank().over(order_by=R.c.v)).where(R.c.k == A.c.k))

    assert sources_of(select(A).where(tied)).obstacle is None
    assert sources_of(select(A).where(of_copies)).obstacle is not None
