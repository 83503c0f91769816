"""INSERT ... SELECT moves rows with all kinds of values and keys to other shards, unchanged."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    case,
    cast,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import INET, INT4RANGE, JSONB
from sqlalchemy.exc import DataError

from sqlalchemy_shards import shard_table
from sqlalchemy_shards.cluster import moved_rows
from sqlalchemy_shards.errors import ScatterNotAllowed, TransactionAborted, UnsupportedStatement
from tests.shards.made import made

if TYPE_CHECKING:
    from tests.shards.shop import World

EVERYWHERE = {"scatter": "allow"}

# As SQL: Python has no object for some of them.
KINDS: dict[str, tuple[Any, list[str]]] = {
    "text": (Text, ["''", "'NULL'", "'\"\\'", "'{a,b}'", "E'\\n\\t'", "'é🐘'", "NULL"]),
    "short": (String(6), ["'sixsix'", "' '", "NULL"]),
    "number": (Numeric, ["1e-20", "'NaN'", "12345678901234567890.5", "NULL"]),
    "float": (Float, ["0.1", "'-Infinity'", "1e-300", "'-0'", "NULL"]),
    "day": (Date, ["'infinity'", "'0044-03-15 BC'", "'2026-01-31'", "NULL"]),
    "moment": (DateTime(timezone=True), ["'-infinity'", "'2026-01-31 23:59:59.999999-07'", "NULL"]),
    "span": (Interval, ["'1 mon -1 day 00:00:01.5'", "'-3 years'", "NULL"]),
    "bytes": (LargeBinary, ["'\\x00ff'", "''", "NULL"]),
    "document": (JSON, ['\'{"b": 1,  "a":1.0, "a":2}\'', "'null'", "NULL"]),
    "binary": (JSONB, ["'{\"b\": 12345678901234567890.5}'", "'[]'", "NULL"]),
    "list": (ARRAY(Integer), ["'{{1,2},{3,NULL}}'", "'[0:1]={1,2}'", "'{}'", "NULL"]),
    "words": (ARRAY(Text), ['\'{"a,b","",NULL,"NULL"}\'', "NULL"]),
    "colour": (Enum("red", "light green", name="colour"), ["'light green'", "'red'", "NULL"]),
    "range": (INT4RANGE, ["'[1,5)'", "'empty'", "'(,)'", "NULL"]),
    "address": (INET, ["'10.0.0.0/8'", "'::1'", "NULL"]),
    "identifier": (Uuid, ["'00000000-0000-0000-0000-0000000000ff'", "NULL"]),
}


def fill(world: World, table: Table) -> None:
    """Seven rows of values, each on the shard of its key."""
    for number in range(7):
        values = [kind[number % len(kind)] for _, kind in KINDS.values()]
        columns = ", ".join(f'"{name}"' for name in ("id", *KINDS))
        sql = f"INSERT INTO made ({columns}) VALUES ({number}, {', '.join(values)})"
        options = {"shard_key": (table, number)} if world.is_spread else {}
        with world.engine.begin() as connection:
            connection.exec_driver_sql(sql, execution_options=options)


def test_values_of_all_kinds(plain: World, four_shards: World) -> None:
    found = []
    for world in (plain, four_shards):
        columns = [Column(name, type_) for name, (type_, _) in KINDS.items()]
        key = Column("id", BigInteger, primary_key=True, autoincrement=False)
        with made(world, key, *columns) as table:
            fill(world, table)
            rows = select(table.c.id + 100, *(table.c[name] for name in KINDS))
            with world.engine.begin() as connection:
                connection.execute(
                    insert(table).from_select(["id", *KINDS], rows), execution_options=EVERYWHERE
                )
            found.append(world.rows("SELECT made::text FROM made"))

    assert found[0] == found[1]
    assert len(found[0]) == 14


@pytest.mark.parametrize(
    ("type_", "values", "change"),
    [
        (String(8), ["a", "b", "é", "'"], lambda key: key + literal("x")),
        (Date, [date(2026, 1, day) for day in range(1, 5)], lambda key: key + timedelta(days=40)),
        (Numeric(8, 2), [Decimal("1.5"), Decimal(2)], lambda key: key * 3),
        (BigInteger, [10, 20, 30], lambda key: cast(key, Numeric) * literal(1.35, Numeric)),
        (BigInteger, [1, 2, 3, 4], lambda key: cast(key, Float) * 7.7),
    ],
)
def test_keys_of_other_kinds(four_shards: World, type_: Any, values: Any, change: Any) -> None:
    key = Column("id", type_, primary_key=True, autoincrement=False)
    with made(four_shards, key, Column("note", String)) as table:
        with four_shards.engine.begin() as connection:
            connection.execute(insert(table), [{"id": value, "note": "old"} for value in values])
            rows = select(cast(change(table.c.id), type_), literal("new"))
            if isinstance(type_, type):  # PostgreSQL assigns the value to the column
                rows = select(change(table.c.id), literal("new"))
            connection.execute(
                insert(table).from_select(["id", "note"], rows), execution_options=EVERYWHERE
            )
        by_shard = four_shards.rows_by_shard("SELECT id, note FROM made")
        assert four_shards.cluster is not None
        homes = {
            name: {four_shards.cluster.shard_for(table, found) for found, _ in rows}
            for name, rows in by_shard.items()
        }

    assert all(found <= {name} for name, found in homes.items())
    assert sum(note == "new" for rows in by_shard.values() for _, note in rows) == len(values)


def test_keys_of_two_parts_one_of_them_a_default(plain: World, four_shards: World) -> None:
    found = []
    for world in (plain, four_shards):
        columns = (
            Column("team", BigInteger, primary_key=True, autoincrement=False),
            Column("year", BigInteger, primary_key=True, default=lambda: 2026),
            Column("id", BigInteger, primary_key=True, autoincrement=False),
        )
        with made(world, *columns, key=("team", "year")) as table:
            rows = [{"team": number, "year": 2025, "id": 1} for number in range(12)]
            with world.engine.begin() as connection:
                connection.execute(insert(table), rows)
                connection.execute(
                    insert(table).from_select(
                        ["team", "id"], select(table.c.team + 1, func.abs(table.c.id))
                    ),
                    execution_options=EVERYWHERE,
                )
                read = select(table.c.id).where(table.c.team == 7, table.c.year == 2026)
                one = connection.execute(read).all()
            found.append((one, world.rows("SELECT team, year, id FROM made")))

    assert found[0] == found[1]
    assert found[0][0] == [(1,)]


def test_a_key_that_the_driver_refuses_leaves_nothing(
    spread_shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moved_rows, "ROWS_PER_BATCH", 1)
    order = spread_shop.models.Order
    day = case((order.id == 122, literal_column("'infinity'::date")), else_=date(2026, 1, 1))
    key = Column("day", Date, primary_key=True)
    with made(spread_shop, key, key="day") as table, spread_shop.engine.connect() as connection:
        rows = select(day).where(order.customer_id == 12).order_by(order.id)
        with pytest.raises(DataError, match="infinity"):
            connection.execute(insert(table).from_select(["day"], rows))
        with pytest.raises(TransactionAborted):
            connection.commit()
        connection.rollback()
        found = spread_shop.rows("SELECT day FROM made")

    assert found == []


def test_schemas_are_translated(four_shards: World) -> None:
    key = Column("id", BigInteger, primary_key=True, autoincrement=False)
    table = Table("made", MetaData(), key, Column("note", String), schema="logical")
    shard_table(table)
    options = {"shard": "*"}
    with four_shards.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA physical"), execution_options=options)
        connection.execute(
            text("CREATE TABLE physical.made (id bigint PRIMARY KEY, note text)"),
            execution_options=options,
        )
    engine = four_shards.engine.execution_options(schema_translate_map={"logical": "physical"})
    try:
        with engine.begin() as connection:
            connection.execute(insert(table), [{"id": number} for number in range(12)])
            rows = select(table.c.id + 20, literal("new"))
            connection.execute(
                insert(table).from_select(["id", "note"], rows), execution_options=EVERYWHERE
            )
        found = four_shards.rows("SELECT id FROM physical.made WHERE note = 'new'")
    finally:
        with four_shards.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA physical CASCADE"), execution_options=options)

    assert found == [(number,) for number in range(20, 32)]


def test_values_that_mean_something_else_elsewhere_are_refused(spread_shop: World) -> None:
    m = spread_shop.models
    rows = select(m.Order.customer_id + 1, m.Order.id, func.to_regclass("orders"))
    with spread_shop.session() as session, pytest.raises(UnsupportedStatement):
        session.execute(
            insert(m.Label).from_select(["customer_id", "id", "text"], rows),
            execution_options=EVERYWHERE,
        )


def test_without_a_transaction_several_shards_are_not_written(spread_shop: World) -> None:
    m = spread_shop.models
    engine = spread_shop.engine.execution_options(isolation_level="AUTOCOMMIT")
    rows = select(m.Order.customer_id % 12 + 1, m.Order.id, m.Order.status)
    statement = insert(m.Label).from_select(["customer_id", "id", "text"], rows)
    with engine.connect() as connection, pytest.raises(ScatterNotAllowed, match="AUTOCOMMIT"):
        connection.execute(statement, execution_options=EVERYWHERE)

    assert len(spread_shop.rows("SELECT id FROM labels")) == 24
