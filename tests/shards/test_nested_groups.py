"""Groups within a statement: the shards ship groups, and the answer is that of one PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Integer,
    Numeric,
    bindparam,
    case,
    distinct,
    except_,
    exists,
    func,
    intersect,
    literal,
    select,
    text,
    true,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.orm import DeclarativeBase, Session, with_loader_criteria

from sqlalchemy_shards import GatherLimit
from sqlalchemy_shards.cluster.explain.observing import SHIP
from sqlalchemy_shards.errors import GatherLimitExceeded, UnsupportedStatement
from tests.shards.aggregated import ITEMS, KEYS, KINDS, LINES, METADATA, OTHERS, Both, filled_twice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

ITEM, LINE = ITEMS.c, LINES.c


@pytest.fixture(scope="module")
def both(servers: PostgresServers) -> Iterator[Both]:
    """Four shards and one plain database, in one server, with the same rows."""
    with filled_twice(servers, "nested", ("s0", "s1", "s2", "s3")) as found:
        yield found


def picked(statement: Any, *keys: Any) -> Any:
    """The first rows of each key: DISTINCT ON, as this version of SQLAlchemy has it."""
    if not hasattr(statement, "ext"):
        return statement.distinct(*keys)
    from sqlalchemy.dialects.postgresql import distinct_on  # SQLAlchemy 2.1

    return statement.ext(distinct_on(*keys))


BY_KIND = select(ITEM.kind, func.count().label("many"), func.avg(ITEM.price).label("mean"))
BY_KIND = BY_KIND.group_by(ITEM.kind)
DERIVED = BY_KIND.subquery()
NAMED = BY_KIND.cte("named")
MEAN = select(func.avg(ITEM.n)).scalar_subquery()
FREQUENT = select(ITEM.kind).group_by(ITEM.kind).having(func.count() > 10)
WORDS = select(ITEM.word).distinct()
FIRST = select(ITEM.kind, ITEM.n, ITEM.k).order_by(ITEM.n.desc().nulls_last(), ITEM.k).limit(5)
PER_ITEM = select(LINE.k, func.count().label("lines"), func.stddev(LINE.amount).label("spread"))
PER_ITEM = PER_ITEM.group_by(LINE.k).having(func.count() > 2)

SPLIT: dict[str, Any] = {
    "groups counted": select(func.count()).select_from(DERIVED),
    "groups joined": select(KINDS.c.title, DERIVED.c.many).join_from(
        KINDS, DERIVED, KINDS.c.name == DERIVED.c.kind
    ),
    "groups of groups": select(DERIVED.c.many, func.count(), func.sum(DERIVED.c.mean)).group_by(
        DERIVED.c.many
    ),
    "distinct rows counted": select(func.count()).select_from(WORDS.subquery()),
    "all columns of groups": select(DERIVED).order_by(DERIVED.c.many, DERIVED.c.kind),
    "groups twice": select(DERIVED.c.kind, (other := DERIVED.alias()).c.many).join_from(
        DERIVED, other, DERIVED.c.many > other.c.many
    ),
    "cte": select(NAMED).where(NAMED.c.many > 10),
    "cte twice": select(NAMED.c.kind).where(
        NAMED.c.many == select(func.max(NAMED.c.many)).scalar_subquery()
    ),
    "windows over groups": select(
        DERIVED.c.kind, func.rank().over(order_by=[DERIVED.c.mean, DERIVED.c.kind])
    ),
    "window within": select(
        select(ITEM.kind, func.sum(func.count()).over(order_by=ITEM.kind).label("running"))
        .group_by(ITEM.kind)
        .subquery()
    ),
    "unlabelled": select(
        select(ITEM.kind, func.count(), func.min(ITEM.n)).group_by(ITEM.kind).subquery()
    ),
    "odd names": select(
        select(ITEM.kind.label('A "b" %'), func.count().label("select"))
        .group_by(ITEM.kind)
        .subquery()
    ),
    "totals": select(select(func.count(), func.sum(ITEM.n), func.avg(ITEM.rate)).subquery()),
    "totals of nothing": select(
        select(func.count(), func.sum(ITEM.n)).where(ITEM.n == 17).subquery()
    ),
    "groups of nothing": select(func.count()).select_from(
        select(ITEM.kind).where(ITEM.n == 17).group_by(ITEM.kind).subquery()
    ),
    "scalar subquery": select(OTHERS.c.id).where(OTHERS.c.n > MEAN),
    "scalar subquery shown": select(OTHERS.c.id, MEAN),
    "scalar subquery in a case": select(case((OTHERS.c.n > MEAN, 1), else_=0), OTHERS.c.id),
    "in": select(KINDS.c.name).where(KINDS.c.name.in_(FREQUENT)),
    "not in": select(OTHERS.c.id).where(
        OTHERS.c.n.not_in(select(ITEM.small).where(ITEM.small.is_not(None)).group_by(ITEM.small))
    ),
    "pairs in": select(OTHERS.c.id).where(
        tuple_(OTHERS.c.n, OTHERS.c.n).in_(select(ITEM.small, func.count()).group_by(ITEM.small))
    ),
    "exists": select(OTHERS.c.id).where(
        exists(select(ITEM.kind).group_by(ITEM.kind).having(func.count() > 20))
    ),
    "not exists": select(OTHERS.c.id).where(
        ~exists(select(ITEM.kind).group_by(ITEM.kind).having(func.count() > 2000))
    ),
    "union of groups": union(
        select(ITEM.kind, func.count()).group_by(ITEM.kind),
        select(LINE.kind, func.count()).group_by(LINE.kind),
    ),
    "union all of groups and rows": union_all(
        select(ITEM.kind, func.count()).group_by(ITEM.kind),
        select(KINDS.c.title, literal(1)),
    ).order_by("kind"),
    "intersect of distinct rows": intersect(
        select(ITEM.small).distinct(), select(OTHERS.c.n).distinct()
    ),
    "except, of limited groups": except_(
        select(ITEM.kind).group_by(ITEM.kind),
        select(ITEM.kind).group_by(ITEM.kind).order_by(func.count(), ITEM.kind).limit(2),
    ),
    "union in a from list": select(func.count()).select_from(
        union(select(ITEM.word).distinct(), select(LINE.kind).group_by(LINE.kind)).subquery()
    ),
    "subquery beside": select(
        ITEM.kind, func.count(), select(func.count()).select_from(KINDS).scalar_subquery()
    ).group_by(ITEM.kind),
    "subquery in having": select(ITEM.kind, func.avg(ITEM.n))
    .group_by(ITEM.kind)
    .having(func.avg(ITEM.n) > MEAN),
    "lateral": select(KINDS.c.name, (each := BY_KIND.lateral()).c.many).join_from(
        KINDS, each, true()
    ),
    "groups within groups": select(
        (
            inner := select(
                (
                    low := select(ITEM.kind, ITEM.word, func.count().label("n"))
                    .group_by(ITEM.kind, ITEM.word)
                    .subquery()
                ).c.kind,
                func.max(low.c.n).label("most"),
            )
            .group_by(low.c.kind)
            .subquery()
        ).c.most,
        func.count(),
    ).group_by(inner.c.most),
    "count distinct": select(
        select(ITEM.kind, func.count(distinct(ITEM.n)).label("n")).group_by(ITEM.kind).subquery()
    ),
    "rollup": select(
        select(ITEM.kind, ITEM.word, func.count().label("n"))
        .group_by(func.rollup(ITEM.kind, ITEM.word))
        .subquery()
    ),
    "whole groups": select(OTHERS.c.id, (per := PER_ITEM.subquery()).c.spread).join_from(
        OTHERS, per, OTHERS.c.id == per.c.k
    ),
    "whole groups in": select(OTHERS.c.id).where(
        OTHERS.c.id.in_(select(LINE.k).group_by(LINE.k).having(func.count() > 2))
    ),
    "first rows": select(func.count(), func.sum((first := FIRST.subquery()).c.n)),
    "first rows joined": select(OTHERS.c.id, first.c.kind).join_from(
        OTHERS, first, OTHERS.c.id == first.c.k
    ),
    "first rows after others": select(
        func.array_agg(
            select(ITEM.k).order_by(ITEM.price, ITEM.k).limit(7).offset(3).subquery().c.k
        )
    ),
    "distinct on": picked(select(ITEM.kind, ITEM.n, ITEM.k), ITEM.kind).order_by(
        ITEM.kind, ITEM.n.desc(), ITEM.k
    ),
    "distinct on, nested": select(
        picked(select(ITEM.word, ITEM.k), ITEM.kind)
        .order_by(ITEM.kind, ITEM.price.desc(), ITEM.k)
        .subquery()
    ),
    "parameters": select(
        select((ITEM.small + bindparam("step", 5, Integer)).label("s"), func.count().label("n"))
        .where(ITEM.n > 0)
        .group_by(ITEM.small + bindparam("step", 5, Integer))
        .subquery()
    ),
    "now": select(
        select(ITEM.made < func.now(), func.count()).group_by(ITEM.made < func.now()).subquery()
    ),
}


@pytest.mark.parametrize("name", SPLIT)
def test_nested_groups_of_shards_give_the_answer_of_one_database(both: Both, name: str) -> None:
    statement = SPLIT[name]

    assert not both.ships_rows(statement)
    both.compare(statement)
    both.compare(statement)


ROWS: dict[str, Any] = {
    "a table here and there": select(ITEM.k, DERIVED.c.mean)
    .join_from(ITEMS, DERIVED, ITEM.kind == DERIVED.c.kind)
    .where(ITEM.price > DERIVED.c.mean),
    "the same twice": select(
        select(ITEM.kind, ITEM.kind, func.count()).group_by(ITEM.kind).subquery()
    ),
    "correlated": select(
        OTHERS.c.id,
        select(func.count()).where(LINE.line == OTHERS.c.n).correlate(OTHERS).scalar_subquery(),
    ),
    "correlated lateral": select(
        OTHERS.c.id,
        (
            lines := select(func.count().label("n"))
            .where(LINE.line == OTHERS.c.n)
            .correlate(OTHERS)
            .lateral()
        ).c.n,
    ).join_from(OTHERS, lines, true()),
    "correlated within": select(
        OTHERS.c.id,
        select(
            func.max(
                (
                    counted := select(func.count().label("n"), LINE.kind)
                    .where(LINE.line > OTHERS.c.n)
                    .correlate(OTHERS)
                    .group_by(LINE.kind)
                    .lateral()
                ).c.n
            )
        ).scalar_subquery(),
    ),
    "correlated to what has no table": select(
        (given := select(literal(2).label("n")).subquery()).c.n,
        select(func.count()).where(LINE.line < given.c.n).correlate(given).scalar_subquery(),
    ),
    "sums of floats": select(
        select(ITEM.kind, func.sum(ITEM.weight)).group_by(ITEM.kind).subquery()
    ),
    "groups of a join of other rows": select(
        select(ITEM.kind, func.count().label("n"))
        .join_from(ITEMS, OTHERS, ITEM.n == OTHERS.c.n)
        .group_by(ITEM.kind)
        .subquery()
    ),
    "raw text": select(
        select(ITEM.kind, func.count().label("n"))
        .where(text("n > 0"))
        .group_by(ITEM.kind)
        .subquery()
    ),
    "recursive": (steps := select(func.count().label("n")).select_from(ITEMS).cte(recursive=True))
    .union_all(select(steps.c.n + 1).where(steps.c.n < 125))
    .select(),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_cannot_be_split_is_answered_from_rows(both: Both, name: str) -> None:
    statement = ROWS[name]

    assert both.ships_rows(statement)
    both.compare(statement)


def test_few_rows_are_shipped(both: Both) -> None:
    """As many as there are groups on each shard, of 120 rows, and as many as LIMIT takes."""
    kinds = 7
    shipped = {
        "groups counted": 4 * kinds,
        "cte twice": 4 * kinds,
        "scalar subquery": 120 + 4,  # with the rows of the other table
        "subquery beside": 4 * kinds + 1,
        "first rows": 4 * 5,
        "first rows after others": 4 * 10,
        "distinct on": 4 * kinds,
    }
    for name, rows in shipped.items():
        limited = SPLIT[name].execution_options(gather_limit=GatherLimit(rows=rows))
        with both.cluster.engine.connect() as connection:
            connection.execute(limited).all()


def test_a_condition_on_groups_of_one_key_each_is_looked_at_by_their_shards(both: Both) -> None:
    with both.plain.connect() as connection:
        groups = len(connection.execute(PER_ITEM).all())
    limited = SPLIT["whole groups"].execution_options(gather_limit=GatherLimit(rows=120 + groups))
    with both.cluster.engine.connect() as connection:
        rows = connection.execute(limited).all()

    assert len(rows) == groups


def test_the_limit_counts_nested_groups(both: Both) -> None:
    counted = SPLIT["groups counted"].execution_options(gather_limit=GatherLimit(rows=6))
    with (
        both.cluster.engine.connect() as connection,
        pytest.raises(GatherLimitExceeded, match="more than 6 rows"),
    ):
        connection.execute(counted)


def test_a_kept_plan_is_met_with_other_values(both: Both) -> None:
    step, least = bindparam("step", type_=Integer), bindparam("least", type_=Integer)
    key = ITEM.small + step
    groups = select(key.label("key"), func.count().label("many")).where(ITEM.n > least)
    groups = groups.group_by(key).subquery()
    rows = bindparam("rows", type_=Integer)
    first = select(groups).order_by(groups.c.many, groups.c.key).limit(rows).subquery()
    statement = select(func.sum(first.c.key), func.count())

    for given in ((1, -3, 2), (-4, 0, 9), (2, 9, 0), (2, 9, None)):
        both.compare(statement, dict(zip(("step", "least", "rows"), given, strict=True)))


def counted_off(order: Any, number: Any = BigInteger) -> Any:
    """The keys of the first rows after some others."""
    limit, offset = bindparam("limit", type_=number), bindparam("offset", type_=number)
    first = select(ITEM.k).order_by(order).limit(limit).offset(offset).subquery()
    return select(func.array_agg(first.c.k))


@pytest.mark.parametrize("limit", [0, 3, None, 2**62, 2**63 - 1])
@pytest.mark.parametrize("offset", [0, 2, None, 2**62])
def test_rows_that_are_counted_off(both: Both, limit: int | None, offset: int | None) -> None:
    counts = {"limit": limit, "offset": offset}
    statement = counted_off(ITEM.k.desc())

    assert not both.ships_rows(statement.params(**counts))
    both.compare(statement, counts)


def test_rows_are_counted_off_by_numbers_that_are_rounded(both: Both) -> None:
    """Each by itself: LIMIT 2.5 OFFSET 0.5 needs the first four rows, and one shard has them."""
    shards = {k: both.cluster.shard_for(ITEMS, k) for k in KEYS}
    first = [k for k in KEYS if shards[k] == shards[KEYS[0]]][:6]
    statement = counted_off(case((ITEM.k.in_(first), ITEM.k - len(KEYS)), else_=ITEM.k), Numeric)

    for limit, offset in (("2.5", "0.5"), ("0.5", "1.5"), ("2.4", "0.4"), ("1.5", "0")):
        both.compare(statement, {"limit": Decimal(limit), "offset": Decimal(offset)})


def test_rows_cannot_be_counted_off_below_zero(both: Both) -> None:
    statement = counted_off(ITEM.k)

    for limit, offset in ((3, 2), (-1, 2), (3, -1), (3, 2)):
        both.compare(statement, {"limit": limit, "offset": offset})


def test_a_cte_chooses_its_rows_once_for_all_that_name_it(both: Both) -> None:
    """Which line of a key is number 1 is open; but all who name the CTE see the same one."""
    number = func.row_number().over(partition_by=LINE.k).label("number")
    lines = select(LINE.k, LINE.line, number).where(LINE.amount > 0).cte("lines_of_keys")
    again = lines.alias()
    largest = select(func.max(again.c.line)).where(again.c.number == 1).scalar_subquery()
    statement = select(lines.c.k, lines.c.line - largest).where(lines.c.number == 1)

    assert both.ships_rows(statement)


def test_changes_of_the_session_are_in_nested_groups(both: Both) -> None:
    counted = select(func.count()).select_from(select(ITEM.k).group_by(ITEM.k).subquery())
    with both.cluster.engine.connect() as connection:
        connection.execute(ITEMS.insert(), [{"k": k} for k in range(1001, 1011)])
        found = connection.scalar(counted)

    assert found == 130


def test_a_measured_explanation_tells_how_many_groups_were_shipped(both: Both) -> None:
    told = both.cluster.explain(SPLIT["groups counted"], analyze=True)

    shipped = [step.rows for step in told.measured.steps if step.name == SHIP]
    assert len(shipped) == 4
    assert sum(shipped) <= 28


def test_rows_of_groups_cannot_be_locked(both: Both) -> None:
    with (
        both.cluster.engine.connect() as connection,
        pytest.raises(UnsupportedStatement, match="FOR UPDATE"),
    ):
        connection.execute(SPLIT["first rows joined"].with_for_update())


class Base(DeclarativeBase):
    metadata = METADATA


class Item(Base):
    __table__ = ITEMS


def test_query_count_ships_groups(both: Both) -> None:
    """`Query.count()` puts a SELECT around a query that has groups, or distinct rows."""
    queries = {
        "groups": lambda session: session.query(Item.kind, func.max(Item.n)).group_by(Item.kind),
        "distinct": lambda session: session.query(Item.kind, Item.flag).distinct(),
        "having": lambda session: (
            session.query(Item.kind).group_by(Item.kind).having(func.count() > 15)
        ),
        "first": lambda session: session.query(Item).order_by(Item.n, Item.k).limit(9),
    }
    limit = {"gather_limit": GatherLimit(rows=4 * 7 * 3)}
    for query in queries.values():
        with Session(both.plain) as one, Session(both.cluster.engine) as session:
            expected = query(one).count()
            assert query(session).execution_options(**limit).count() == expected


def test_nested_entities_and_their_criteria(both: Both) -> None:
    many = select(Item.kind, func.count().label("many")).group_by(Item.kind).subquery()
    statement = select(Item.k, many.c.many).join(many, many.c.kind == Item.kind).where(Item.n > 3)
    criteria = with_loader_criteria(Item, Item.small > 0, include_aliases=True)

    both.compare(statement)
    both.compare(statement.options(criteria))


def test_threads_meet_one_plan(both: Both) -> None:
    least = bindparam("least", type_=Integer)
    groups = select(ITEM.kind).where(ITEM.n > least).group_by(ITEM.kind).subquery()
    statement = select(func.count()).select_from(groups)
    numbers = [-3, 0, 1, 2] * 3

    def count(engine: Any, number: int) -> Any:
        with engine.connect() as connection:
            return connection.scalar(statement, {"least": number})

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: count(both.cluster.engine, number), numbers))

    assert found == [count(both.plain, number) for number in numbers]
