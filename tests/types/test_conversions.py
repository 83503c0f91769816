"""Types of SQLAlchemy and of the application's own convert a value once, whoever shipped it."""

from __future__ import annotations

import enum
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    DateTime,
    Enum,
    Interval,
    Numeric,
    PickleType,
    String,
    TypeDecorator,
    Uuid,
    any_,
    create_engine,
    func,
    select,
    text,
    union,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from sqlalchemy_shards import ShardedSession, ShardKeyMixin, create_cluster
from sqlalchemy_shards.errors import UnsupportedStatement
from tests.databases import own_urls
from tests.types.answers import answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers


class Base(DeclarativeBase):
    pass


class Color(enum.Enum):
    """Its names are in another order than its members."""

    RED = "r"
    GREEN = "g"
    BLUE = "b"


class Reversed(TypeDecorator[str]):
    """Keeps a text the wrong way round, and notes each conversion."""

    impl = String
    cache_ok = True
    bound: list[Any] = []
    loaded: list[Any] = []

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        self.bound.append(value)
        return None if value is None else value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        self.loaded.append(value)
        return None if value is None else value[::-1]


class Cents(TypeDecorator[int]):
    """A whole number of cents, kept as a numeric."""

    impl = Numeric(12, 2)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Decimal(value) / 100

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else int(value * 100)


class Thing(ShardKeyMixin, Base):
    __tablename__ = "things"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    g: Mapped[int]
    word: Mapped[str | None] = mapped_column(Reversed)
    price: Mapped[int | None] = mapped_column(Cents)
    color: Mapped[Color | None] = mapped_column(Enum(Color))
    plain_color: Mapped[Color | None] = mapped_column(Enum(Color, native_enum=False))
    pickled: Mapped[Any | None] = mapped_column(PickleType)
    document: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    null_document: Mapped[Any | None] = mapped_column(JSONB(none_as_null=False))
    took: Mapped[timedelta | None] = mapped_column(Interval)
    numbers: Mapped[list[int] | None] = mapped_column(MutableList.as_mutable(ARRAY(Numeric)))
    settings: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSONB))
    seen: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    token: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))


def things() -> list[Thing]:
    """Objects with NULLs; new ones at each call."""
    colors = [*Color, None]
    return [
        Thing(
            id=number,
            g=number % 2,
            word=("abc", "xyz", None, "ba")[number % 4],
            price=(100, 1999, -5, None)[number % 4],
            color=colors[number % 4],
            plain_color=colors[(number + 1) % 4],
            pickled={"n": number % 3} if number % 3 else None,
            document=[None, {"b": [1, None]}, 1.5][number % 3],
            null_document=[None, {"n": number % 2}][number % 2],
            took=timedelta(days=number % 3, microseconds=1),
            numbers=None if number % 4 == 0 else [Decimal("1.50"), None, Decimal(number % 3)],
            settings={"n": number},
            seen=datetime(2024, 10, 27, number % 3, 30, tzinfo=timezone.utc),
            token=f"00000000-0000-0000-0000-00000000000{number % 3}",
        )
        for number in range(20)
    ]


@dataclass(frozen=True)
class Things:
    cluster: Cluster
    one: Engine


FUNCTIONS = """
CREATE FUNCTION twice(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT n * 2';
CREATE FUNCTION shouted(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql
    AS 'BEGIN RETURN upper(t) || ''!''; END';
CREATE FUNCTION counted() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM things';
CREATE FUNCTION drawn(n int) RETURNS int VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN n; END';
CREATE FUNCTION unsaid(n int) RETURNS int LANGUAGE sql AS 'SELECT n';
CREATE AGGREGATE product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
CREATE FUNCTION upto(n int) RETURNS SETOF int IMMUTABLE LANGUAGE sql
    AS 'SELECT generate_series(1, n)';
"""


@pytest.fixture(scope="module")
def filled(servers: PostgresServers) -> Iterator[Things]:
    """The same objects in one database and on three shards."""
    with ExitStack() as stack:
        names = ("s0", "s1", "s2", "one")
        urls = stack.enter_context(own_urls(servers, "things", names, spread=True))
        one = create_engine(urls.pop("one"))
        stack.callback(one.dispose)
        cluster = create_cluster(urls, name="things")
        stack.callback(cluster.dispose)
        cluster.create_all(Base.metadata)
        Base.metadata.create_all(one)
        for engine in (one, *(shard.engine for shard in cluster.shards.values())):
            with engine.begin() as connection:
                connection.execute(text(FUNCTIONS))
        for bind in (one, cluster.engine):
            with Session(bind) as session, session.begin():
                session.add_all(things())
        yield Things(cluster, one)


Other = aliased(Thing)
COLUMNS = (
    *(Thing.word, Thing.price, Thing.color, Thing.plain_color, Thing.pickled, Thing.document),
    *(Thing.null_document, Thing.took, Thing.numbers, Thing.settings, Thing.seen, Thing.token),
)
SORTABLE = (Thing.word, Thing.price, Thing.color, Thing.plain_color, Thing.took, Thing.seen)


def statements() -> Mapping[str, Any]:
    """Each column through each way of answering."""
    shown = select(Thing.id, *COLUMNS)
    found = {
        "scatter": shown,
        "ordered merge": shown.order_by(Thing.id.desc()).limit(11),
        "window": shown.add_columns(func.row_number().over(order_by=Thing.id)),
        "neighbours": shown.join(Other, Other.id == Thing.id + 1).add_columns(Other.settings),
        "outer join": select(Thing.id, Other.numbers, Other.word).outerjoin(
            Other, Other.id == Thing.id + 4
        ),
        "CTE": select(shown.cte("all_things")),
        "documents": select(Thing.settings["n"], func.count()).group_by(Thing.settings["n"]),
        "a condition": select(Thing.id, func.count().over()).where(
            Thing.word == "abc", Thing.price > 5, Thing.color.in_([Color.RED, Color.BLUE])
        ),
        "any": select(Thing.id, func.count().over()).where(Decimal("1.5") == any_(Thing.numbers)),
    }
    for column in SORTABLE:
        name = column.key
        found |= {
            f"order by {name}": select(Thing.id, column).order_by(column, Thing.id),
            f"distinct {name}": select(column).distinct(),
            f"groups of {name}": select(column, func.count()).group_by(column),
            f"union of {name}": union(select(column), select(column).where(Thing.g == 1)),
            f"greatest {name}": select(func.max(column), func.min(column)),
            f"greatest {name} of groups": select(Thing.g, func.max(column)).group_by(Thing.g),
            f"list of {name}": select(func.array_agg(column)).where(Thing.id == 3, Thing.g == 1),
        }
    return found


@pytest.mark.parametrize("with_tables", [False, True], ids=["CTEs", "temporary tables"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_values_are_those_of_one_database(
    filled: Things, monkeypatch: pytest.MonkeyPatch, zone: str, with_tables: bool
) -> None:
    if with_tables:
        monkeypatch.setattr(filled.cluster.workspace, "cte_rows_max", 0)
    set_zone = select(func.set_config("TimeZone", zone, True))

    expected, found = (
        {name: answer(bind, each, set_zone) for name, each in statements().items()}
        for bind in (filled.one, filled.cluster.engine)
    )

    assert found == expected


@pytest.mark.parametrize(
    "statement",
    [
        select(Thing.word),
        select(Thing.word).order_by(Thing.id),
        select(Thing.word).order_by(Thing.word).limit(7),
        select(Thing.word).distinct(),
        select(Thing.word, func.count()).group_by(Thing.word),
        select(func.min(Thing.word)),
        select(Thing.word, func.rank().over(order_by=Thing.word)),
        select(Thing.word).join(Other, Other.id == Thing.id + 1),
    ],
)
def test_a_decorator_converts_each_value_of_the_answer_once(filled: Things, statement: Any) -> None:
    counts = []
    for bind in (filled.one, filled.cluster.engine):
        Reversed.loaded.clear()
        with Session(bind) as session:
            session.execute(statement).all()
        counts.append(sorted(map(repr, Reversed.loaded)))

    assert counts[1] == counts[0]


def test_what_changes_in_place_is_written_to_its_shard(filled: Things) -> None:
    latest = select(Thing, func.count().over()).where(Thing.id.in_([1, 5, 9]))
    for with_tables in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if with_tables:
                patch.setattr(filled.cluster.workspace, "cte_rows_max", 0)
            with ShardedSession(filled.cluster) as session:
                for thing in session.scalars(latest):
                    assert thing.settings is not None
                    assert thing.numbers is not None
                    thing.settings["seen"] = with_tables
                    thing.numbers.append(Decimal(7))
                session.flush()
                session.expire_all()
                changed = session.execute(select(Thing.settings, Thing.numbers).order_by(Thing.id))

                assert [
                    (row.settings["n"], row.numbers[-1])
                    for row in changed
                    if row.settings.get("seen") is with_tables
                ] == [(1, 7), (5, 7), (9, 7)]


OWN: Mapping[str, Any] = {
    "immutable": select(Thing.id, func.twice(Thing.id)).where(func.twice(Thing.g) == 2),
    "immutable, in order": select(Thing.id).order_by(func.twice(Thing.id).desc()).limit(4),
    "immutable, grouped": select(func.shouted(Thing.word), func.count()).group_by(
        func.shouted(Thing.word)
    ),
    "immutable, aggregated": select(func.max(func.shouted(Thing.word))),
    "an aggregate": select(Thing.g, func.product(Thing.price)).group_by(Thing.g),
    "an aggregate of all": select(func.product(Thing.price)),
    "a window": select(Thing.id, func.product(Thing.price).over(order_by=Thing.id)),
    "rows": select(Thing.id, func.upto(Thing.g).column_valued("n")),
}


@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
def test_functions_of_the_application_give_what_one_database_gives(filled: Things) -> None:
    expected = {name: answer(filled.one, each) for name, each in OWN.items()}
    found = {name: answer(filled.cluster.engine, each) for name, each in OWN.items()}

    assert found == expected


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("counted", select(func.counted(), func.count(Thing.id))),
        ("drawn", select(Thing.id).where(func.drawn(Thing.id) > 3)),
        ("drawn", select(func.drawn(Thing.g), func.count()).group_by(func.drawn(Thing.g))),
        ("unsaid", select(func.unsaid(Thing.id)).order_by(Thing.id)),
    ],
)
def test_functions_that_may_give_something_else_elsewhere_are_refused(
    filled: Things, name: str, statement: Any
) -> None:
    with (
        pytest.raises(UnsupportedStatement, match=rf"the function {name}\(\) may give something"),
        ShardedSession(filled.cluster) as session,
    ):
        session.execute(statement)
