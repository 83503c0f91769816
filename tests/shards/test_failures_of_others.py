"""Answers that other systems over many databases have got wrong, as their users reported them.

Written anew from the reports: proxies in front of MySQL and PostgreSQL, extensions of PostgreSQL,
libraries of Java and Python. Above each statement stands what went wrong there.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sqlalchemy import (
    Integer,
    Text,
    and_,
    create_engine,
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
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from sqlalchemy_shards import ReferenceMixin, ShardKeyMixin, create_cluster
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers


class Base(DeclarativeBase):
    pass


class Music(ShardKeyMixin, Base):
    __tablename__ = "failures_music"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    genre: Mapped[str | None] = mapped_column(Text(collation="loosely"))
    title: Mapped[str]
    plays: Mapped[int | None]
    shelf: Mapped[int | None] = mapped_column(Integer)


class Sale(ShardKeyMixin, Base):
    __tablename__ = "failures_sales"
    __shard_key__ = "music_id"
    music_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    buyer: Mapped[int]
    amount: Mapped[int | None]


class Shelf(ReferenceMixin, Base):
    __tablename__ = "failures_shelves"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


HAS_ICU = "SELECT count(*) > 0 FROM pg_collation WHERE collname = 'und-x-icu'"
CASELESS = (
    "CREATE COLLATION loosely (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
)
BYTEWISE = "CREATE COLLATION loosely (provider = libc, locale = 'C')"
"""For builds of PostgreSQL without ICU."""
GENRES = ("rock", "Rock", "ROCK", "folk", "Folk", None, "jazz")


def rows() -> list[Any]:
    music = [
        Music(
            id=id_,
            genre=GENRES[id_ % 7],
            title=f"{'bBaA_'[id_ % 5]}{id_ % 3}",
            plays=None if id_ % 8 == 0 else (id_ * 7) % 12,
            shelf=None if id_ % 9 == 0 else id_ % 4,
        )
        for id_ in range(1, 41)
    ]
    sales = [
        Sale(music_id=id_, id=number, buyer=id_ * 3 % 10, amount=(id_ + number) % 7 or None)
        for id_ in range(1, 41)
        for number in range(id_ % 4)
    ]
    return [*music, *sales, *(Shelf(id=id_, name=f"shelf {id_}") for id_ in range(1, 7))]


class Both(NamedTuple):
    """The same rows on four shards and in one database."""

    cluster: Cluster
    one: Engine

    def answers(self, build: Callable[[], Any]) -> tuple[list[Any], list[Any]]:
        """What the cluster and one database give; in an order of ours, if they have none."""
        found = []
        for engine in (self.cluster.engine, self.one):
            statement = build()
            with Session(engine) as session:
                given = [tuple((type(v), v) for v in row) for row in session.execute(statement)]
            is_ordered = getattr(statement, "_order_by_clauses", ())
            found.append(given if is_ordered else sorted(given, key=repr))
        return found[0], found[1]


@pytest.fixture(scope="module")
def both(servers: PostgresServers) -> Iterator[Both]:
    with ExitStack() as stack:
        names = ("s0", "s1", "s2", "s3", "one")
        urls = stack.enter_context(own_urls(servers, "failures", names, spread=True))
        for url in urls.values():
            engine = create_engine(url)
            with engine.begin() as connection:
                has_icu = connection.scalar(text(HAS_ICU))
                connection.execute(text(CASELESS if has_icu else BYTEWISE))
            engine.dispose()
        one = create_engine(urls.pop("one"))
        cluster = create_cluster(urls)
        stack.callback(cluster.dispose)
        stack.callback(one.dispose)
        cluster.create_all(Base.metadata)
        Base.metadata.create_all(one)
        for engine in (cluster.engine, one):
            with Session(engine) as session, session.begin():
                session.add_all(rows())
        yield Both(cluster, one)


STATEMENTS: dict[str, Callable[[], Any]] = {
    # A proxy gave LIMIT to the shards below the counting of groups: each left out groups that
    # others had, so that counts were too small and groups were missing.
    "groups by their count, limited": lambda: (
        select(Music.shelf, func.count())
        .group_by(Music.shelf)
        .order_by(func.count(), Music.shelf)
        .limit(3)
    ),
    # A proxy gave NULL for a literal beside an aggregate, where a limited derived table was empty.
    "a literal beside a count of nothing": lambda: select(
        literal(1).label("id"),
        func.count(),
    ).select_from(select(Music.id).where(Music.shelf == 99).limit(100).subquery()),
    # An extension replaced avg by sum and count, and let the shards sort by the sum.
    "ordered by an average, limited": lambda: (
        select(Music.shelf, func.avg(Music.plays))
        .group_by(Music.shelf)
        .order_by(func.avg(Music.plays).desc().nulls_last(), Music.shelf)
        .limit(2)
    ),
    # The same of a window over groups.
    "ranked by an average": lambda: select(
        Music.shelf, func.rank().over(order_by=func.avg(Music.plays).desc())
    ).group_by(Music.shelf),
    # A proxy refused, and an older one gave one row per shard.
    "distinct expressions": lambda: select((Music.id % 3 + 1).label("rest")).distinct(),
    "a distinct literal": lambda: select(literal(1).label("one")).select_from(Music).distinct(),
    # A proxy dropped the sort that its DISTINCT relied on: values came twice.
    "distinct values": lambda: select(Music.shelf).distinct(),
    # A library merged the shards' limited rows in ascending order whatever was asked for.
    "descending, limited": lambda: (
        select(Music.id, Music.plays)
        .order_by(Music.plays.desc().nulls_last(), Music.id.desc())
        .limit(5)
    ),
    # A proxy compared group keys by bytes, while the shards grouped without regard to case.
    "groups under a collation": lambda: (
        select(func.lower(func.min(Music.genre)), func.count(), func.sum(Music.plays))
        .group_by(Music.genre)
        .order_by(func.count(), func.sum(Music.plays))
    ),
    "distinct values under a collation": lambda: select(
        func.count(Music.genre.distinct()), func.count(Music.genre)
    ),
    # A proxy gave as many rows as shards for count, where a column stood beside it.
    "aggregates beside what depends on the key": lambda: (
        select(Music.id, Music.title, Music.genre, func.max(Sale.amount))
        .join(Sale, Sale.music_id == Music.id)
        .group_by(Music.id)
        .order_by(Music.id)
    ),
    "aggregates beside plain columns": lambda: select(
        Music.plays, Music.shelf, func.max(Music.id), func.count()
    ).group_by(Music.shelf, Music.plays),
    # An extension gave DISTINCT to the shards, where groups had keys that were not selected.
    "distinct above groups": lambda: (
        select(Sale.music_id, func.count(Sale.amount))
        .distinct()
        .group_by(Sale.music_id, Sale.buyer, Sale.amount)
        .order_by(func.count(Sale.amount).desc(), Sale.music_id)
        .limit(10)
    ),
    # An extension refused grouping sets, but not within a derived table: each shard's totals came.
    "grouping sets within a derived table": lambda: select(
        select(Music.id, Music.shelf)
        .group_by(func.grouping_sets(tuple_(Music.id), tuple_(Music.shelf)))
        .subquery()
    ),
    # A proxy took two columns that are written alike for one.
    "the same aggregate twice": lambda: (
        select(func.count().label("a"), func.count().label("b"), Music.shelf)
        .group_by(Music.shelf)
        .order_by(Music.shelf)
    ),
    # A proxy counted one side of a join that was not on the key, and forgot to multiply.
    "counted over a cross join": lambda: (
        select(func.count(Music.id), Sale.buyer)
        .select_from(Music)
        .join(Sale, true())
        .group_by(Sale.buyer)
        .order_by(Sale.buyer)
        .limit(3)
    ),
    # A pooler skipped sort keys that are no columns of the answer.
    "ordered by what is not selected": lambda: select(Music.id).order_by(
        Music.plays.desc().nulls_first(), Music.title, Music.id
    ),
    # A library sorted each shard's rows by a quotient of its own sums, and summed nothing.
    "ordered by a quotient of sums": lambda: _quotients(),
    # A library let every shard apply HAVING to its own count.
    "groups that are large on no shard": lambda: (
        select(Music.shelf).group_by(Music.shelf).having(func.count() > 6)
    ),
    "a sum that passes only as a whole": lambda: select(func.sum(Music.plays)).having(
        func.sum(Music.plays) > 150
    ),
    # A proxy counted a join on something else than the key without its absent partners.
    "counted with absent partners": lambda: select(func.count(Music.id), func.count()).outerjoin(
        Sale, Sale.buyer == Music.plays
    ),
    # Another one wrapped the count of absent partners in a coalesce, and counted them.
    "absent partners that are not counted": lambda: (
        select(func.count(Sale.id), func.sum(Sale.amount))
        .select_from(Music)
        .outerjoin(Sale, and_(Sale.buyer == Music.plays, Sale.amount == 3))
    ),
    # Extensions and proxies gave the rows of a reference table once per shard, where it is the
    # side of an outer join whose rows all come.
    "a reference table on the kept side": lambda: select(Shelf.id, Music.id).outerjoin(
        Music, Music.shelf == Shelf.id
    ),
    "no shelf has this music": lambda: (
        select(func.count())
        .select_from(Shelf)
        .outerjoin(Music, and_(Music.shelf == Shelf.id, Music.plays > 100))
    ),
    "a reference table in a full join": lambda: select(Shelf.id, Music.id).join(
        Music, Music.shelf == Shelf.id, full=True
    ),
    # An extension left shards out, where outer joins with reference tables were nested.
    "outer joins within outer joins": lambda: _nested_outer_joins(),
    # A proxy routed a key that IS NULL, as one of an absent partner is, to no shard.
    "partners without a key": lambda: (
        select(Music.id, Sale.music_id)
        .outerjoin(Sale, Sale.music_id == Music.id)
        .where(Sale.music_id.is_(None))
    ),
    # A proxy let the shards apply a condition of ON to the side whose rows all come.
    "a condition of ON on the kept side": lambda: select(Music.id, Sale.id).outerjoin(
        Sale, and_(Music.shelf == 2, Sale.buyer == Music.plays)
    ),
    # An extension gave absent partners once more per shard under a UNION.
    "a union above an outer join": lambda: union(
        select(Sale.music_id).select_from(Music).outerjoin(Sale, Sale.music_id == Music.id),
        select(Sale.music_id),
    ),
    # A library bound UNION and INTERSECT equally tight.
    "intersect binds tighter than union": lambda: union_all(
        select(Music.plays).where(Music.id < 5),
        intersect(select(Music.plays).where(Music.id > 3), select(Sale.amount)),
    ),
    # A library put averages of shards together as the average of them.
    "average of shards of different sizes": lambda: select(
        func.avg(Music.plays), func.avg(Sale.amount)
    ).join(Sale, Sale.music_id == Music.id),
    # A library added the NULL of a shard without rows, and got NULL, or 0 where all were empty.
    "a sum over shards without rows": lambda: select(
        func.sum(Music.plays), func.min(Music.plays), func.count(Music.plays)
    ).where(Music.title == "b0"),
    "a sum of nothing": lambda: select(func.sum(Music.plays), func.count()).where(Music.id < 0),
    "groups of nothing": lambda: (
        select(Music.shelf, func.count()).where(Music.id < 0).group_by(Music.shelf)
    ),
    # A library let every shard skip the rows of OFFSET.
    "rows behind an offset": lambda: select(Music.id).order_by(Music.id).offset(7).limit(6),
    # A proxy gave the limit of a subquery to the shards, and kept the rows of all of them.
    "a limit within a subquery": lambda: select(Sale.music_id, Sale.id).where(
        Sale.music_id.in_(select(Music.id).order_by(Music.plays.desc(), Music.id).limit(3))
    ),
    # A proxy crashed at an order within an aggregate; others gave the shards' lists in a row.
    "a list in order": lambda: (
        select(
            Music.shelf,
            func.string_agg(Music.title, aggregate_order_by(literal(","), Music.title, Music.id)),
        )
        .group_by(Music.shelf)
        .order_by(Music.shelf)
    ),
    # A proxy counted different values per shard, and added the counts.
    "different values, counted": lambda: select(
        func.count(Music.plays.distinct()), func.sum(Music.plays.distinct())
    ),
    # A library compared text by code points, where the database has a collation.
    "the first and the last in a collation": lambda: select(
        func.lower(func.min(Music.genre)), func.lower(func.max(Music.genre))
    ),
    # An extension joined a derived table with a limit to each shard's rows of it.
    "a join with limited rows": lambda: _joined_with_few(),
}


def _quotients() -> Any:
    sums = (
        select(
            Music.shelf.label("shelf"),
            func.sum(Music.plays).label("plays"),
            func.sum(Music.id).label("ids"),
        )
        .group_by(Music.shelf)
        .subquery()
    )
    quotient = sums.c.plays / func.nullif(sums.c.ids, 0)
    return select(sums.c.shelf, sums.c.plays, quotient).order_by(quotient, sums.c.shelf)


def _nested_outer_joins() -> Any:
    other = aliased(Shelf)
    kept = select(other.id, Music.plays).outerjoin(Music, Music.shelf == other.id).subquery()
    few = select(Shelf.id.label("shelf"), kept.c.plays).outerjoin(kept, kept.c.id == Shelf.id - 3)
    inner = few.subquery()
    return select(func.count(), func.count(inner.c.plays), func.avg(inner.c.shelf))


def _joined_with_few() -> Any:
    few = select(Music.id, Music.plays).order_by(Music.plays.desc(), Music.id).limit(4).subquery()
    return select(few.c.id, Sale.id).join(Sale, Sale.buyer <= few.c.plays)


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
def test_what_others_got_wrong_is_answered_as_by_one_database(both: Both, name: str) -> None:
    cluster, one = both.answers(STATEMENTS[name])

    assert cluster == one


def test_distinct_does_not_leak_into_the_next_statement(both: Both) -> None:
    """A proxy kept that rows are to be distinct from one statement to the next."""
    with Session(both.cluster.engine) as session:
        distinct = session.scalars(select(Music.shelf).distinct()).all()
        counted = session.scalar(select(func.count(Music.shelf.distinct())))
        plain = session.scalars(select(Music.shelf)).all()
        again = session.scalar(select(func.count(Music.shelf)))

    assert (len(distinct), counted) == (5, 4)
    assert (len(plain), again) == (40, 36)


def test_several_keys_are_asked_for_on_all_their_shards(both: Both) -> None:
    """A pooler sent ``IN (1, 3)`` to the shard of one of the keys, another one each time."""
    keys = list(range(1, 20, 3))

    def build() -> Any:
        counts = select(Sale.music_id, func.count()).where(Sale.music_id.in_(keys))
        return counts.group_by(Sale.music_id).order_by(Sale.music_id)

    for _ in range(3):
        cluster, one = both.answers(build)

        assert cluster == one


def test_a_key_that_is_named_twice_is_found_once(both: Both) -> None:
    """A library that splits lists of keys gave a row for each time that its key was named."""
    wanted = select(Music.id).where(Music.id.in_([3, 4, 3, 4, 3])).order_by(Music.id)
    with Session(both.cluster.engine) as session:
        found = session.scalars(wanted).all()

    assert found == [3, 4]


def test_a_query_is_counted_as_a_whole(both: Both) -> None:
    """SQLAlchemy's own extension gave a count per shard, and ``count()`` raised for more rows."""
    with Session(both.cluster.engine) as session:
        counted = session.query(Music).filter(Music.plays > 3).count()
        found = session.query(Music).filter(Music.plays > 3).all()

    assert counted == len(found) > 0


def test_another_limit_than_that_of_the_cached_plan_is_used(both: Both) -> None:
    """A proxy kept the plan of the first limit, and cut the second answer by it."""
    for rows, first in ((3, 0), (10, 0), (1, 5), (0, 0), (50, 35)):

        def build(rows: int = rows, first: int = first) -> Any:
            counted = select(Music.shelf, Music.plays, func.count())
            counted = counted.group_by(Music.shelf, Music.plays)
            return (
                counted.order_by(func.count(), Music.shelf, Music.plays).limit(rows).offset(first)
            )

        cluster, one = both.answers(build)

        assert cluster == one
