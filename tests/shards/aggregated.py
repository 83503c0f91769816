"""Rows to aggregate, on four shards and in one plain PostgreSQL, and how answers are compared."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BIGINT,
    CHAR,
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    Integer,
    Interval,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    create_engine,
    insert,
)
from sqlalchemy.dialects.postgresql import BIT, INT4RANGE, JSONB
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards import create_cluster, reference_table, shard_table
from sqlalchemy_shards.plan import Gather
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

METADATA = MetaData()
ITEMS = shard_table(
    Table(
        "items",
        METADATA,
        Column("k", BIGINT, primary_key=True, autoincrement=False),
        Column("kind", Text),
        Column("word", String(20)),
        Column("code", CHAR(5)),
        Column("small", SmallInteger),
        Column("n", Integer),
        Column("big", BIGINT),
        Column("price", Numeric),
        Column("rate", Numeric(12, 3)),
        Column("weight", Double),
        Column("flag", Boolean),
        Column("bits", BIT(4)),
        Column("made", DateTime(timezone=True)),
        Column("born", Date),
        Column("lasts", Interval),
        Column("mood", Enum("bad", "fair", "good", name="mood")),
        Column("token", Uuid),
        Column("extra", JSONB),
        Column("note", JSON),
        Column("numbers", ARRAY(Integer)),
        Column("span", INT4RANGE),
    ),
    key="k",
)
LINES = shard_table(
    Table(
        "lines",
        METADATA,
        Column("k", BIGINT, primary_key=True, autoincrement=False),
        Column("line", Integer, primary_key=True, autoincrement=False),
        Column("amount", Numeric),
        Column("kind", Text),
    ),
    key="k",
)
KINDS = reference_table(
    Table("kinds", METADATA, Column("name", Text, primary_key=True), Column("title", Text))
)
OTHERS = shard_table(
    Table(
        "others",
        METADATA,
        Column("id", BIGINT, primary_key=True, autoincrement=False),
        Column("n", Integer),
        schema="away",
    ),
    key="id",
)
PRICES = [Decimal(each) for each in "1 1.5 2.25 0.001 123456789.123456789 -3.50 0 7e-20".split()]
KEYS = range(1, 121)


def rows() -> dict[Table, list[dict[str, Any]]]:
    """The rows of each table, the same every time."""
    draw = Random(20260101)

    def maybe(value: Any) -> Any:
        return None if draw.random() < 0.15 else value

    def item(k: int) -> dict[str, Any]:
        n = draw.randint(-5, 5)
        return {
            "k": k,
            "kind": maybe(draw.choice(["a", "b", "B", "ä", "a b", "a-b"])),
            "word": maybe(draw.choice(["one", "two", "Three", "%", "it's"])),
            "code": maybe(draw.choice(["x", "xy", "x  z"])),
            "small": maybe(n),
            "n": maybe(draw.choice([n, 2**31 - 1, -(2**31)])),
            "big": maybe(draw.choice([n, 2**63 - 1, -(2**62)])),
            "price": maybe(draw.choice(PRICES)),
            "rate": maybe(Decimal(draw.randint(-10_000, 10_000)) / 1000),
            "weight": maybe(draw.choice([0.1, 0.2, -1e300, 5.0])),
            "flag": maybe(draw.random() < 0.7),
            "bits": maybe(draw.choice(["0101", "1100", "1111"])),
            "made": maybe(datetime(2026, draw.randint(1, 3), draw.randint(1, 28), tzinfo=_UTC)),
            "born": maybe(date(1999, draw.randint(1, 3), 1)),
            "lasts": maybe(timedelta(days=draw.randint(0, 40), microseconds=draw.randint(0, 9))),
            "mood": maybe(draw.choice(["bad", "fair", "good"])),
            "token": maybe(UUID(int=draw.randint(1, 3))),
            "extra": maybe({"v": draw.randint(1, 2)}),
            "note": maybe({"v": draw.randint(1, 2)}),
            "numbers": maybe([draw.randint(1, 2), None]),
            "span": None,
        }

    return {
        ITEMS: [item(k) for k in KEYS],
        LINES: [
            {
                "k": k,
                "line": line,
                "amount": maybe(draw.choice(PRICES)),
                "kind": maybe(draw.choice("abc")),
            }
            for k in KEYS
            for line in range(draw.randint(0, 3))
        ],
        KINDS: [{"name": "a", "title": "A"}, {"name": "b", "title": None}],
        OTHERS: [{"id": k, "n": k % 3} for k in KEYS],
    }


_UTC = timezone.utc


@dataclass
class Both:
    """The same rows twice."""

    cluster: Cluster
    plain: Engine

    def fill(self) -> None:
        """Create the tables and insert the rows."""
        for shard in self.cluster.shards:
            with self.cluster.connect(shard) as connection:
                connection.execute("CREATE SCHEMA away")
        with self.plain.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA away")
        self.cluster.create_all(METADATA)
        METADATA.create_all(self.plain)
        for engine in (self.cluster.engine, self.plain):
            with engine.begin() as connection:
                for table, values in rows().items():
                    connection.execute(insert(table), values)

    def compare(self, statement: Any, parameters: Any = None, *, is_ordered: bool = False) -> None:
        """Assert that both answer alike, digit by digit, or fail alike."""
        expected = answer(self.plain, statement, parameters)
        found = answer(self.cluster.engine, statement, parameters)

        if is_ordered or isinstance(expected, str):
            assert found == expected
        else:
            assert Counter(found) == Counter(expected)

    def ships_rows(self, statement: Any) -> bool:
        """Whether the shards ship rows of tables, not groups of them."""
        merge = self.cluster.explain(statement).merge
        return isinstance(merge, Gather) and merge.head is None


@contextmanager
def filled_twice(servers: PostgresServers, name: str, shards: Sequence[str]) -> Iterator[Both]:
    """Shards and one plain database, in one server, with the same rows."""
    with ExitStack() as stack:
        urls = stack.enter_context(own_urls(servers, name, (*shards, "one")))
        one_url = urls.pop("one")
        cluster = create_cluster(urls, name=name)
        stack.callback(cluster.dispose)
        plain = create_engine(one_url)
        stack.callback(plain.dispose)
        found = Both(cluster, plain)
        found.fill()
        yield found


def answer(engine: Engine, statement: Any, parameters: Any = None) -> Any:
    """The rows that a statement gives, or the SQLSTATE of its failure."""
    with engine.connect() as connection:
        try:
            result = connection.execute(statement, parameters or {}).all()
        except DBAPIError as error:
            return cast("str", error.orig.sqlstate)  # type: ignore[union-attr]
    return [tuple(map(exactly, row)) for row in result]


def exactly(value: Any) -> str:
    """A value with its type and all its digits."""
    return f"{type(value).__name__} {value!r}"
