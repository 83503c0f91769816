"""Grouped statements: the shards ship groups, and the answer is that of one PostgreSQL."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Integer,
    Numeric,
    and_,
    bindparam,
    case,
    cast,
    collate,
    distinct,
    exists,
    extract,
    func,
    literal,
    nulls_first,
    select,
    tuple_,
)

from sqlalchemy_shards import GatherLimit
from sqlalchemy_shards.errors import GatherLimitExceeded, UnsupportedStatement
from tests.shards.aggregated import ITEMS, KINDS, LINES, OTHERS, Both, filled_twice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

ITEM, LINE = ITEMS.c, LINES.c


@pytest.fixture(scope="module")
def both(servers: PostgresServers) -> Iterator[Both]:
    """Four shards and one plain database, in one server, with the same rows."""
    with filled_twice(servers, "partial", ("s0", "s1", "s2", "s3")) as found:
        yield found


def grouped(*figures: Any) -> Any:
    """Figures for each kind."""
    return select(ITEM.kind, *figures).group_by(ITEM.kind)


def by(*keys: Any) -> Any:
    """How many rows there are with each key."""
    return select(*keys, func.count()).group_by(*keys)


PARTIAL: dict[str, Any] = {
    "count": grouped(func.count(), func.count(ITEM.n)),
    "count without groups, filtered": select(func.count().filter(ITEM.n > 0)),
    "sum of smallint": grouped(func.sum(ITEM.small)),
    "sum of integer": grouped(func.sum(ITEM.n)),
    "sum of bigint": grouped(func.sum(ITEM.big)),
    "sum of numeric": grouped(func.sum(ITEM.price), func.sum(ITEM.rate)),
    "sum of intervals": grouped(func.sum(ITEM.lasts)),
    "avg of smallint": grouped(func.avg(ITEM.small)),
    "avg of integer": grouped(func.avg(ITEM.n)),
    "avg of bigint": grouped(func.avg(ITEM.big)),
    "avg of numeric": grouped(func.avg(ITEM.price), func.avg(ITEM.rate)),
    "avg of intervals": grouped(func.avg(ITEM.lasts)),
    "avg without groups": select(func.avg(ITEM.price), func.avg(ITEM.n)),
    "avg of expressions": grouped(
        func.avg(ITEM.rate * (1 - ITEM.price)), func.avg(ITEM.n + ITEM.small)
    ),
    "sum of an expression": select(func.sum(ITEM.price * (1 - ITEM.rate) * (1 + ITEM.rate))),
    "sum of a case": grouped(func.sum(case((ITEM.n > 0, 1), else_=0))),
    "min and max": grouped(
        *(
            function(column)
            for function in (func.min, func.max)
            for column in (
                ITEM.kind,
                ITEM.word,
                ITEM.code,
                ITEM.n,
                ITEM.price,
                ITEM.weight,
                ITEM.made,
                ITEM.born,
                ITEM.lasts,
            )
        ),
        func.max(ITEM.mood),
        func.min(ITEM.numbers),
    ),
    "booleans": grouped(func.bool_and(ITEM.flag), func.bool_or(ITEM.flag), func.every(ITEM.flag)),
    "bits": grouped(func.bit_and(ITEM.n), func.bit_or(ITEM.bits), func.bit_and(ITEM.bits)),
    "filter": grouped(
        func.count().filter(ITEM.n > 0),
        func.sum(ITEM.price).filter(ITEM.flag),
        func.avg(ITEM.price).filter(ITEM.flag, ITEM.n > 0),
    ),
    "count distinct": grouped(func.count(distinct(ITEM.n))),
    "count distinct without groups": select(func.count(ITEM.price.distinct()), func.sum(ITEM.n)),
    "distinct sums and averages": grouped(
        func.sum(distinct(ITEM.price)),
        func.avg(distinct(ITEM.n)),
        func.max(distinct(ITEM.n)),
        func.count(),
    ),
    "distinct with a filter": grouped(
        func.count(distinct(ITEM.n)).filter(ITEM.price > 1), func.count()
    ),
    "distinct pairs": grouped(func.count(distinct(tuple_(ITEM.small, ITEM.word)))),
    "distinct text, put together": grouped(
        func.string_agg(distinct(collate(ITEM.word, "C")), literal(", "))
    ),
    "distinct array": grouped(func.array_agg(distinct(ITEM.small))),
    "keys of many types": select(
        ITEM.word,
        ITEM.code,
        ITEM.small,
        ITEM.price,
        ITEM.flag,
        ITEM.bits,
        ITEM.made,
        ITEM.lasts,
        func.count(),
    ).group_by(
        ITEM.word, ITEM.code, ITEM.small, ITEM.price, ITEM.flag, ITEM.bits, ITEM.made, ITEM.lasts
    ),
    "keys of more types": select(
        ITEM.mood, ITEM.token, ITEM.extra, ITEM.numbers, ITEM.born, ITEM.weight
    ).group_by(ITEM.mood, ITEM.token, ITEM.extra, ITEM.numbers, ITEM.born, ITEM.weight),
    "key expression": by(ITEM.n % 3, func.lower(ITEM.kind)),
    "date_trunc": select(func.date_trunc("month", ITEM.made).label("month"), func.count()).group_by(
        "month"
    ),
    "extract": by(extract("month", ITEM.made)),
    "labels": select(func.lower(ITEM.kind).label("lowered"), func.count().label("many"))
    .group_by("lowered")
    .order_by("many", "lowered"),
    "label object": (lambda low: select(low, func.count()).group_by(low).order_by(low.desc()))(
        func.lower(ITEM.kind).label("low")
    ),
    "around keys": select(func.upper(ITEM.kind) + "!", func.count() * 2 + 1).group_by(ITEM.kind),
    "constant beside": select(literal("x"), ITEM.kind, func.count()).group_by(ITEM.kind),
    "not shown": select(func.count(), func.max(ITEM.n)).group_by(ITEM.kind, ITEM.word),
    "having": grouped(func.count()).having(func.count() > 10, func.avg(ITEM.price) > 0),
    "having without groups": select(func.sum(ITEM.n)).having(func.count() > 1000),
    "order by an aggregate": grouped().order_by(func.avg(ITEM.price).desc(), ITEM.kind),
    "limit": grouped(func.count()).order_by(func.count().desc(), ITEM.kind).limit(3).offset(1),
    "fetch with ties": grouped(func.count()).order_by(func.count()).fetch(2, with_ties=True),
    "group by the key": select(ITEMS, func.count(LINE.line))
    .with_only_columns(ITEM.k, ITEM.word, ITEM.n + ITEM.small, func.count(LINE.line), ITEM.price)
    .outerjoin_from(ITEMS, LINES, LINE.k == ITEM.k)
    .group_by(ITEM.k),
    "group by a key of a reference table": select(KINDS, func.sum(ITEM.rate))
    .join_from(ITEMS, KINDS, ITEM.kind == KINDS.c.name)
    .group_by(KINDS.c.name),
    "joined": select(ITEM.word, func.sum(LINE.amount), func.count())
    .join_from(ITEMS, LINES, LINE.k == ITEM.k)
    .where(LINE.kind != "a")
    .group_by(ITEM.word),
    "outer joined": select(LINE.kind, func.count(ITEM.n), func.count())
    .outerjoin_from(ITEMS, LINES, and_(LINE.k == ITEM.k, LINE.amount > 0))
    .group_by(LINE.kind),
    "exists": grouped(func.count()).where(exists().where(LINE.k == ITEM.k)),
    "argument with a subquery": grouped(
        func.sum(select(func.count()).where(LINE.k == ITEM.k).correlate(ITEMS).scalar_subquery())
    ),
    "dependent json": select(ITEM.k, ITEM.note, func.count()).group_by(ITEM.k),
    "rollup": select(
        ITEM.kind, ITEM.word, func.count(), func.grouping(ITEM.kind, ITEM.word)
    ).group_by(func.rollup(ITEM.kind, ITEM.word)),
    "cube": select(
        ITEM.flag, ITEM.mood, func.avg(ITEM.price), func.count(distinct(ITEM.n))
    ).group_by(func.cube(ITEM.flag, ITEM.mood)),
    "grouping sets": select(ITEM.flag, ITEM.mood, ITEM.kind, func.sum(ITEM.rate)).group_by(
        func.grouping_sets(tuple_(ITEM.flag, ITEM.mood), ITEM.kind, tuple_())
    ),
    "rollup of nothing": select(ITEM.kind, func.count(), func.sum(ITEM.n), func.avg(ITEM.n))
    .where(ITEM.n == 17)
    .group_by(func.rollup(ITEM.kind)),
    "nothing": grouped(func.count()).where(ITEM.n == 17),
    "nothing without groups": select(
        func.count(), func.sum(ITEM.n), func.avg(ITEM.price), func.count(ITEM.n.distinct())
    ).where(ITEM.n == 17),
    "rank of groups": grouped(
        func.count(), func.rank().over(order_by=[func.count().desc(), ITEM.kind])
    ),
    "sum of sums": grouped(func.sum(func.count()).over(order_by=ITEM.kind)),
    "share of groups": grouped(func.sum(ITEM.rate) / func.sum(func.sum(ITEM.rate)).over()),
    "moving average of averages": grouped(func.avg(func.avg(ITEM.price)).over(order_by=ITEM.kind)),
    "distinct": select(ITEM.kind, ITEM.word).distinct(),
    "distinct in an order": select(ITEM.kind, ITEM.n)
    .distinct()
    .order_by(ITEM.n.desc(), nulls_first(ITEM.kind)),
    "distinct expression": select(ITEM.n % 2, ITEM.kind + "x").distinct(),
    "distinct groups": select(func.count()).select_from(ITEMS).group_by(ITEM.kind).distinct(),
    "distinct aggregate": select(func.count(), func.min(ITEM.price)).distinct(),
    "overflow": select(func.sum(ITEM.n) * cast(2**62, BigInteger)),
    "overflow in having": grouped().having(func.sum(ITEM.n) * cast(2**62, BigInteger) > 0),
    "overflow on a shard": grouped(func.count(ITEM.n + ITEM.n)),
    "division by nothing": select(func.count() / func.count().filter(ITEM.n == 17)),
    "other schema": select(OTHERS.c.n, func.count()).group_by(OTHERS.c.n),
    "now": grouped(func.count().filter(ITEM.made < func.now())),
    "parameter in a key": by(ITEM.small + bindparam("step", 5, Integer)),
    "untyped parameter": by(ITEM.n * bindparam("factor", Decimal("1.5"), Numeric)),
    "list in a key": by(ITEM.n.in_([1, 2, 3])),
    "cast": by(cast(ITEM.price, Integer)),
    "collated key": select(collate(ITEM.kind, "C"), func.count())
    .group_by(collate(ITEM.kind, "C"))
    .order_by(collate(ITEM.kind, "C")),
    "collated order": grouped(func.count()).order_by(collate(ITEM.kind, "C")),
    "collated least": grouped(func.min(collate(ITEM.word, "C"))),
    "per cent": by(func.concat(ITEM.word, "%s %%")),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_groups_of_shards_give_the_answer_of_one_database(both: Both, name: str) -> None:
    statement = PARTIAL[name]

    assert not both.ships_rows(statement)
    both.compare(statement)
    both.compare(statement)


ROWS: dict[str, Any] = {
    "sum of floats": select(func.sum(ITEM.weight)),
    "avg of floats": grouped(func.avg(ITEM.weight)),
    "stddev": grouped(func.stddev(ITEM.price)),
    "stddev of a key": select(ITEM.n, func.stddev(ITEM.n)).group_by(ITEM.n),
    "median": grouped(func.percentile_disc(0.5).within_group(ITEM.n)),
    "median of a key": select(ITEM.n, func.percentile_disc(0.5).within_group(ITEM.n)).group_by(
        ITEM.n
    ),
    "join of other rows": select(ITEM.kind, func.count())
    .join_from(ITEMS, OTHERS, ITEM.n == OTHERS.c.n)
    .group_by(ITEM.kind),
    "window over rows": select(ITEM.kind, func.count().over(partition_by=ITEM.kind)),
    "distinct windows": select(func.count().over(partition_by=ITEM.kind)).distinct(),
    "unnested key": select(func.unnest(ITEM.numbers), func.count()).group_by(
        func.unnest(ITEM.numbers)
    ),
    "default collation by name": select(
        func.max(collate(ITEM.kind, "default")), func.count(ITEM.word)
    ),
    "group by a constant": select(func.count()).select_from(ITEMS).group_by(literal("x")),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_be_split_is_answered_from_rows(both: Both, name: str) -> None:
    statement = ROWS[name]

    assert both.ships_rows(statement)
    both.compare(statement)


def test_frames_of_windows_over_groups(both: Both) -> None:
    """SQLAlchemy 2.0 makes their parameters when it compiles, so that rows are shipped there."""
    moving = func.avg(func.avg(ITEM.price)).over(order_by=ITEM.kind, rows=(-1, 1))

    both.compare(grouped(moving))


def test_a_kept_plan_is_met_with_other_values(both: Both) -> None:
    step = bindparam("step", type_=Integer)
    statement = by(ITEM.small + step).where(ITEM.n > bindparam("least", type_=Integer))

    for parameters in ({"step": 1, "least": -3}, {"step": -4, "least": 0}, {"step": 2, "least": 9}):
        both.compare(statement, parameters)


@pytest.mark.parametrize("factor", [Decimal("1.5"), 3, 70_000, 2**40, 2**70, None, Decimal("NaN")])
def test_values_that_tell_the_type_of_a_parameter(both: Both, factor: Any) -> None:
    """The kept plan is not that of a value of another type: sums of them have other types, too."""
    given = bindparam("factor", type_=Numeric)
    statement = select(func.sum(ITEM.small * given), func.avg(ITEM.small * given))

    both.compare(statement, {"factor": factor})


def test_changes_of_the_session_are_in_the_groups(both: Both) -> None:
    statement = select(func.count(), func.max(ITEM.k)).group_by(ITEM.k > 0)
    with both.cluster.engine.connect() as connection:
        connection.execute(ITEMS.insert(), [{"k": k} for k in range(1001, 1011)])
        found = connection.execute(statement).all()

    assert found == [(130, 1010)]


def test_few_rows_are_shipped(both: Both) -> None:
    statement = grouped(func.count(), func.avg(ITEM.price), func.count(distinct(ITEM.flag)))
    kinds, flags = 7, 3
    most = GatherLimit(rows=4 * kinds * flags)
    with both.cluster.engine.connect() as connection:
        rows = connection.execute(statement, execution_options={"gather_limit": most}).all()

    assert len(rows) == kinds


def test_the_limit_counts_groups(both: Both) -> None:
    groups = by(ITEM.k % 50).having(func.count() > 0)
    limited = groups.execution_options(gather_limit=GatherLimit(rows=20))
    with (
        both.cluster.engine.connect() as connection,
        pytest.raises(GatherLimitExceeded, match="more than 20 rows"),
    ):
        connection.execute(limited)


def test_a_function_of_the_application_does_not_run_over_a_shards_rows(both: Both) -> None:
    define = (
        "CREATE OR REPLACE FUNCTION kinds_below(n integer) RETURNS bigint IMMUTABLE LANGUAGE sql "
        "AS 'SELECT count(*) FROM items WHERE items.n < $1'"
    )
    for shard in both.cluster.shards:
        with both.cluster.connect(shard) as driver:
            driver.execute(define)

    with (
        both.cluster.engine.connect() as connection,
        pytest.raises(UnsupportedStatement, match="reads items"),
    ):
        connection.execute(select(func.sum(func.kinds_below(ITEM.n))))


def test_a_name_in_group_by_is_a_column_before_it_is_a_label(both: Both) -> None:
    """PostgreSQL groups by the column, so that a kind in two spellings makes two groups."""
    statement = select(func.lower(ITEM.kind).label("kind"), func.count()).group_by("kind")

    assert both.ships_rows(statement)
    both.compare(statement)
