"""Groups, distinct rows and windows over several shards are those of one PostgreSQL.

Where they are made of one shard key's rows each, shards answer alone; plain groups are made one by
Python; what neither can do is gathered. Each statement runs twice: the second time it is planned.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Text,
    and_,
    bindparam,
    case,
    cast,
    create_engine,
    desc,
    distinct,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.plan import Concatenate, GroupedMerge, OrderedMerge, Tier
from tests.databases import own_urls
from tests.shards.grouped import KEYED, METADATA, ORDERS, PAIRS, PEOPLE, PLACES, keyspaces, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

pytestmark = [
    pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product"),
    pytest.mark.filterwarnings("ignore:Column-expression-level unary distinct"),
]

P, S = PEOPLE.c, ORDERS.c


FOLD = (
    "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "ALTER TABLE people ALTER folded TYPE text COLLATE folding",
)


class Both:
    """The same rows on four shards and in one database."""

    def __init__(self, cluster: Cluster, one: Engine) -> None:
        self.cluster = cluster
        self.one = one
        self.can_fold = False

    def fold(self) -> None:
        """Give a column of text a collation that calls "a" and "A" equal, where there is ICU."""
        engines = [self.one, *(shard.engine for shard in self.cluster.shards.values())]
        for engine in engines:
            with engine.begin() as connection:
                for statement in FOLD:
                    connection.execute(text(statement))
        self.can_fold = True

    def answers(self, statement: Any, parameters: Any = None) -> list[list[str]]:
        """What one database gives, then what the shards give, each value with its type."""
        found = []
        for engine in (self.one, self.cluster.engine, self.cluster.engine):
            with engine.connect() as connection:
                connection.execute(text("SET LOCAL TIME ZONE 'Europe/Berlin'"))
                found.append([repr(row) for row in connection.execute(statement, parameters)])
        return found


@pytest.fixture(scope="module")
def both(servers: PostgresServers) -> Iterator[Both]:
    with ExitStack() as stack:
        names = ("s0", "s1", "s2", "s3", "one")
        urls = stack.enter_context(own_urls(servers, "groups", names, spread=True))
        one = create_engine(urls.pop("one"))
        cluster = create_cluster(urls, name="groups", keyspaces=keyspaces())
        stack.callback(cluster.dispose)
        stack.callback(one.dispose)
        METADATA.create_all(one)
        cluster.create_all(METADATA)
        for engine in (one, cluster.engine):
            with engine.begin() as connection:
                for table, values in rows().items():
                    connection.execute(insert(table), values)
        found = Both(cluster, one)
        with suppress(DBAPIError):
            found.fold()
        yield found


def numbered(partition: Any, *order: Any) -> Any:
    rank = func.row_number().over(partition_by=partition, order_by=order).label("rank")
    return select(ORDERS, rank).subquery()


COUNT = func.count().label("n")
OUTER = PEOPLE.outerjoin(ORDERS, S.person_id == P.id)
TWICE = PEOPLE.alias()
SUMS = (
    select(S.person_id, func.sum(S.amount).label("total"), func.count().label("n"))
    .group_by(S.person_id)
    .subquery()
)
RANKED = numbered(S.person_id, S.amount, S.id)

ON_SHARDS: Mapping[str, Any] = {
    "any aggregate": select(
        S.person_id,
        func.avg(S.amount),
        func.string_agg(S.status, aggregate_order_by(literal(","), S.id.desc())),
        func.array_agg(aggregate_order_by(S.amount, S.id)),
        func.count(S.status.distinct()),
        func.percentile_cont(0.5).within_group(S.amount),
        func.stddev_pop(S.id).filter(S.id > 0),
    ).group_by(S.person_id),
    "having": select(S.person_id).group_by(S.person_id).having(func.avg(S.amount) > 0),
    "the key among others": select(S.status, func.avg(S.amount)).group_by(S.status, S.person_id),
    "the key by its label": select(S.person_id.label("p"), func.avg(S.id)).group_by(
        S.person_id.label("p")
    ),
    "a co-located join": select(P.name, func.avg(S.amount)).select_from(OUTER).group_by(P.id),
    "a key that equals another": select(S.person_id, func.avg(P.n))
    .join_from(PEOPLE, ORDERS, S.person_id == P.id)
    .group_by(S.person_id),
    "a reference table": select(P.id, func.max(PLACES.c.name), func.avg(P.n))
    .outerjoin_from(PEOPLE, PLACES, PLACES.c.code == P.place)
    .group_by(P.id),
    "the key in parts": select(PAIRS.c.word, PAIRS.c.weight, func.avg(PAIRS.c.n)).group_by(
        PAIRS.c.word, PAIRS.c.weight
    ),
    "distinct": select(S.person_id, S.amount).distinct(),
    "windows": select(
        S.person_id,
        S.id,
        func.rank().over(partition_by=S.person_id, order_by=S.amount),
        func.sum(S.amount).over(partition_by=[S.person_id, S.status], order_by=S.id, rows=(-1, 0)),
        func.lag(S.id, 1).over(partition_by=S.person_id, order_by=S.id),
        func.count().filter(S.amount > 0).over(partition_by=S.person_id),
    ),
    "windows over groups": select(
        S.person_id,
        S.status,
        func.sum(func.count()).over(partition_by=S.person_id, order_by=S.status),
    ).group_by(S.person_id, S.status),
    "first of each key": select(RANKED).where(RANKED.c.rank == 1),
    "first of some keys": select(RANKED).where(
        RANKED.c.rank == 1, RANKED.c.person_id.in_(range(3, 20))
    ),
    "first of each key, joined": select(P.name, RANKED.c.id).join_from(
        PEOPLE, RANKED, and_(RANKED.c.person_id == P.id, RANKED.c.rank == 1), isouter=True
    ),
    "groups in a derived table": select(P.id, SUMS.c.total).join_from(
        PEOPLE, SUMS, SUMS.c.person_id == P.id, isouter=True
    ),
    "tied by the key, with ORDER BY": select(
        P.id,
        select(func.string_agg(S.status, aggregate_order_by(literal(","), S.id)))
        .where(S.person_id == P.id)
        .scalar_subquery(),
    ),
    "tied groups": select(P.id).where(
        exists(select(S.person_id).where(S.person_id == P.id).group_by(S.person_id))
    ),
}

MADE_ONE: Mapping[str, Any] = {
    "one key": select(P.n, COUNT).group_by(P.n),
    "every aggregate": select(
        P.n,
        func.sum(P.small),
        func.sum(P.big),
        func.sum(P.price),
        func.sum(P.cents),
        func.min(P.day),
        func.max(P.seen),
        func.min(P.at),
        func.bool_and(P.active),
        func.bool_or(P.active),
        func.every(P.n > 0),
        func.bit_and(P.n),
        func.bit_or(P.n),
    ).group_by(P.n),
    "FILTER": select(
        P.small, func.count().filter(P.n > 0), func.sum(P.n).filter(P.active)
    ).group_by(P.small),
    "text": select(P.name, COUNT).group_by(P.name),
    "text with a collation": select(P.code, COUNT).group_by(P.code),
    "an enum": select(P.mood, COUNT).group_by(P.mood),
    "an enum of text": select(P.kind, COUNT).group_by(P.kind),
    "moments": select(P.seen, COUNT).group_by(P.seen),
    "bytes": select(P.raw, COUNT).group_by(P.raw),
    "many keys": select(P.small, P.active, P.day, P.at, P.token, COUNT).group_by(
        P.token, P.at, P.small, P.active, P.day
    ),
    "keys that are not shown": select(COUNT).select_from(PEOPLE).group_by(P.name, P.small),
    "an expression": select((P.n % 2).label("half"), COUNT).group_by("half"),
    "case": select(case((P.n > 0, "x"), else_="y").label("c"), COUNT).group_by("c"),
    "by the day": (lambda day: select(day, COUNT).group_by(day))(
        func.date_trunc(literal_column("'day'"), P.seen)
    ),
    "upper case": select(func.upper(P.name), COUNT).group_by(func.upper(P.name)),
    "what follows from the key": select(func.lower(P.name), literal("x"), COUNT).group_by(P.name),
    "a filled key": select(S.person_id, COUNT).select_from(OUTER).group_by(S.person_id),
    "the filled side": select(S.status, func.count(P.id)).select_from(OUTER).group_by(S.status),
    "the name of a place": select(PLACES.c.name, func.count(P.id))
    .join_from(PEOPLE, PLACES, PLACES.c.code == P.place)
    .group_by(PLACES.c.code),
    "groups of groups": select(SUMS.c.n, func.count(), func.sum(SUMS.c.total)).group_by(SUMS.c.n),
    "a union": (lambda u: select(u.c.place, func.count()).group_by(u.c.place))(
        union_all(select(P.place, P.id), select(S.place, S.person_id)).subquery()
    ),
    "tied subqueries": select(P.n, COUNT)
    .where(exists().where(S.person_id == P.id, S.amount > 0))
    .group_by(P.n),
    "no rows": select(P.n, COUNT).where(P.n > 99).group_by(P.n),
    "distinct": select(P.name, P.active).distinct(),
    "distinct expression": select((P.n + 1).label("m")).distinct(),
    "distinct, joined": select(P.active, S.status).select_from(OUTER).distinct(),
    "distinct constants": select(literal("x"), P.active).distinct(),
}

IN_ORDER: Mapping[str, Any] = {
    "groups by an aggregate": select(S.person_id)
    .group_by(S.person_id)
    .order_by(func.sum(S.price).desc(), S.person_id)
    .limit(5)
    .offset(2),
    "groups by an average": select(S.person_id, func.avg(S.price).label("a"))
    .group_by(S.person_id)
    .order_by(desc("a"), S.person_id)
    .limit(7),
    "distinct rows": select(S.amount, S.person_id)
    .distinct()
    .order_by(S.amount.desc().nulls_last(), S.person_id)
    .limit(5),
    "numbers": select(P.id).order_by(P.price, P.id),
    "numbers, backwards": select(P.id).order_by(P.price.desc().nulls_last(), P.id).limit(30),
    "fetch": select(P.id).order_by(P.n, P.id).offset(3).fetch(4),
    "merged groups": select(P.n, COUNT).group_by(P.n).order_by(P.n.desc().nulls_last()),
    "merged groups by a count": select(P.name.label("who"), COUNT)
    .group_by(P.name)
    .order_by(desc("n"), func.min(P.small), func.max(P.id))
    .limit(3)
    .offset(1),
    "merged groups by text": select(P.code, COUNT).group_by(P.code).order_by(P.code),
    "merged groups by a sum": select(P.small).group_by(P.small).order_by(func.sum(P.cents).desc()),
    "merged groups, none": select(P.n, COUNT).group_by(P.n).order_by(P.n).limit(0),
    "merged distinct rows": select(P.n, P.small)
    .distinct()
    .order_by(P.small, P.n)
    .limit(4)
    .offset(2),
    "merged groups, fetched": select(P.n, COUNT).group_by(P.n).order_by(P.n).fetch(2),
    "one row": select(func.count(), func.sum(P.cents), literal(1)).order_by(func.count()).limit(1),
    "one row, left out": select(func.count(P.id)).offset(1),
    "one row, with FILTER": select(
        func.sum(P.n).filter(P.n > 0),
        func.bool_and(P.active),
        func.bit_or(P.n),
        func.every(P.n > 9),
    ),
    "one row of nothing": select(
        func.sum(P.cents), func.bool_or(P.active), func.bit_and(P.n), func.count(), literal("x")
    ).where(P.id < 0),
}

GATHERED: Mapping[str, Any] = {
    "a part of the key": select(PAIRS.c.word, func.avg(PAIRS.c.n)).group_by(PAIRS.c.word),
    "the filled side's key": select(S.person_id, func.avg(P.n))
    .select_from(OUTER)
    .group_by(S.person_id),
    "the filled side's key within": (lambda q: select(q))(
        select(S.person_id, COUNT).select_from(OUTER).group_by(S.person_id).subquery()
    ),
    "distinct of the filled side within": (lambda q: select(q))(
        select(S.person_id).select_from(OUTER).distinct().subquery()
    ),
    "a window by the filled side": select(
        P.id, func.count().over(partition_by=S.person_id)
    ).select_from(OUTER),
    "a key that is equal or not": select(S.person_id, func.avg(P.n))
    .join_from(PEOPLE, ORDERS, or_(S.person_id == P.id, S.amount == P.n))
    .group_by(S.person_id),
    "rollup": select(S.person_id, COUNT).group_by(func.rollup(S.person_id)),
    "sets, one without the key": select(S.person_id, S.status, COUNT).group_by(
        func.grouping_sets(tuple_(S.person_id, S.status), tuple_(S.status))
    ),
    "by position": select(P.n, COUNT).group_by(literal_column("1")),
    "the name of a label is a column's": select(P.n.label("small"), COUNT).group_by(P.n, "small"),
    "numbers that look different": select(func.count()).select_from(PEOPLE).group_by(P.price),
    "floats": select(func.count()).select_from(PEOPLE).group_by(P.ratio),
    "blanks": select(P.short, COUNT).group_by(P.short),
    "jsonb": select(P.extra, COUNT).group_by(P.extra),
    "having": select(P.n).group_by(P.n).having(func.count() > 5),
    "distinct groups": select(COUNT).select_from(ORDERS).group_by(S.person_id).distinct(),
    "distinct groups, the other way": select(distinct(S.amount), func.count(S.id)).group_by(
        S.person_id, S.amount
    ),
    "average": select(P.n, func.avg(P.small)).group_by(P.n),
    "distinct within": select(P.n, func.count(P.small.distinct())).group_by(P.n),
    "sum of floats": select(P.small, func.sum(P.ratio)).where(P.ratio > 0).group_by(P.small),
    "the least number": select(P.n, func.min(P.cents)).group_by(P.n),
    "the last text": select(P.n, func.max(P.name)).group_by(P.n),
    "windows over all": select(P.id, func.rank().over(order_by=P.n)),
    "two windows": select(
        S.id,
        func.rank().over(partition_by=S.person_id, order_by=S.id),
        func.rank().over(partition_by=S.status, order_by=[S.person_id, S.id]),
    ),
    "a window over groups of one key": select(
        S.person_id, func.rank().over(order_by=[func.count(), S.person_id])
    ).group_by(S.person_id),
    "a limit within": (lambda q: select(q.c.n, func.count()).group_by(q.c.n))(
        select(P.n, P.id).order_by(P.id).limit(7).subquery()
    ),
    "a condition on what no window is divided by": (lambda q: select(q).where(q.c.person_id == 7))(
        numbered(S.status, S.person_id, S.id)
    ),
    "with ties": select(P.id).order_by(P.n).fetch(3, with_ties=True),
    "not joined by the key": select(P.n, func.count(TWICE.c.id))
    .join_from(PEOPLE, TWICE, TWICE.c.n == P.n)
    .group_by(P.n),
}


@pytest.mark.parametrize("name", [*ON_SHARDS, *(f"merged: {name}" for name in MADE_ONE)])
def test_answers_are_those_of_one_database(both: Both, name: str) -> None:
    statement = ON_SHARDS[name] if name in ON_SHARDS else MADE_ONE[name.removeprefix("merged: ")]

    one, first, second = map(sorted, both.answers(statement))
    assert first == one
    assert second == one


@pytest.mark.parametrize("name", GATHERED)
def test_what_shards_cannot_answer_is_gathered(both: Both, name: str) -> None:
    one, first, second = map(sorted, both.answers(GATHERED[name]))

    assert first == one
    assert second == one
    if name != "a condition on what no window is divided by":
        assert one
    assert both.cluster.explain(GATHERED[name]).tier is Tier.GATHER


@pytest.mark.parametrize("name", IN_ORDER)
def test_the_order_is_that_of_one_database(both: Both, name: str) -> None:
    one, first, second = both.answers(IN_ORDER[name])

    assert first == one
    assert second == one
    assert both.cluster.explain(IN_ORDER[name]).tier is Tier.SCATTER


@pytest.mark.filterwarnings("ignore:Passing expression to ``distinct``")
def test_the_first_row_of_each_key(both: Both) -> None:
    statement = (
        select(S.person_id, S.id, S.amount)
        .distinct(S.person_id)
        .order_by(S.person_id, S.amount.desc(), S.id)
        .limit(5)
    )

    one, first, second = both.answers(statement)
    assert first == one
    assert second == one
    assert both.cluster.explain(statement).tier is Tier.SCATTER


@pytest.mark.parametrize("name", ON_SHARDS)
def test_what_is_made_of_one_key_stays_on_its_shard(both: Both, name: str) -> None:
    explained = both.cluster.explain(ON_SHARDS[name])

    assert isinstance(explained.merge, (Concatenate, OrderedMerge))


@pytest.mark.parametrize("name", MADE_ONE)
def test_plain_groups_are_made_one_without_a_gather(both: Both, name: str) -> None:
    explained = both.cluster.explain(MADE_ONE[name])

    assert isinstance(explained.merge, GroupedMerge)


@pytest.mark.parametrize("name", KEYED)
def test_keys_that_look_different_and_are_equal_are_one_group(both: Both, name: str) -> None:
    table = KEYED[name]
    statement = select(table.c.key, func.avg(table.c.n), func.count()).group_by(table.c.key)

    one, first, second = map(sorted, both.answers(statement))
    assert first == one
    assert second == one
    assert isinstance(both.cluster.explain(statement).merge, Concatenate)


def test_the_second_execution_has_its_own_values(both: Both) -> None:
    statement = (
        select(P.n + bindparam("more"), func.count().filter(P.small > bindparam("least")))
        .group_by(P.n)
        .order_by(P.n)
        .limit(bindparam("most"))
    )
    for values in ({"more": 1, "least": 0, "most": 2}, {"more": 5, "least": -1, "most": 3}):
        one, first, second = both.answers(statement, values)

        assert len(one) == values["most"]
        assert first == one
        assert second == one


@pytest.mark.parametrize(
    "statement",
    [
        select(P.n, func.count(P.id)),
        select(P.n, P.small, func.count()).group_by(P.n),
        select(P.id, S.amount, func.count()).select_from(OUTER).group_by(P.id),
        select(P.n).distinct().order_by(P.small),
        select(P.n, func.count()).group_by(P.n).with_for_update(),
    ],
    ids=range(5),
)
def test_what_one_database_refuses_is_refused(both: Both, statement: Any) -> None:
    for engine in (both.one, both.cluster.engine):
        with engine.connect() as connection, pytest.raises((DBAPIError, UnsupportedStatement)):
            connection.execute(statement)


def test_groups_are_read_through_cursors_of_the_servers(both: Both) -> None:
    statement = select(P.n, COUNT).group_by(P.n).order_by(P.n)
    found = []
    for engine in (both.one, both.cluster.engine):
        with engine.connect() as connection:
            result = connection.execution_options(yield_per=2).execute(statement)
            found.append([row for part in result.partitions() for row in part])

    assert found[1] == found[0]


def test_the_number_of_merged_groups_is_told(both: Both) -> None:
    with both.cluster.engine.connect() as connection:
        result = connection.execute(select(P.small, COUNT).group_by(P.small))

        assert result.rowcount == 3
        assert len(result.all()) == 3


@pytest.mark.parametrize(
    "key",
    [P.folded, func.substr(P.folded, 1), func.coalesce(P.folded, P.name), cast(P.folded, Text)],
    ids=["column", "function", "of two", "cast"],
)
def test_text_that_a_collation_folds_is_not_told_apart_by_python(both: Both, key: Any) -> None:
    if not both.can_fold:
        pytest.skip("this PostgreSQL has no ICU")
    statement = select(func.count().label("n")).select_from(PEOPLE).group_by(key)

    one, first, second = map(sorted, both.answers(statement))
    assert first == one
    assert second == one
    assert both.cluster.explain(statement).tier is Tier.GATHER
