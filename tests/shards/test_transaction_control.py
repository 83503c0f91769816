"""SQL text that would begin or end a transaction on one shard alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import DDL, text

from sqlalchemy_shards.errors import UnsupportedStatement
from tests.databases import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from tests.shards.shop import World

WAYS: dict[str, Callable[[Session, str], Any]] = {
    "text": lambda session, sql: session.execute(text(sql), execution_options={"shard": "s1"}),
    "every shard": lambda session, sql: session.execute(
        text(sql), execution_options={"shard": "*"}
    ),
    "driver": lambda session, sql: session.connection().exec_driver_sql(
        sql, execution_options={"shard": "s1"}
    ),
    "definition": lambda session, sql: session.execute(DDL(sql)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("control", ["COMMIT", "ROLLBACK AND CHAIN", "PREPARE TRANSACTION 'mine'"])
def test_it_is_refused_and_the_transaction_goes_on(
    spread_shop: World, way: str, control: str
) -> None:
    with spread_shop.session() as session:
        for customer in session.query(spread_shop.models.Customer):
            customer.name = "changed"
        session.flush()
        with pytest.raises(UnsupportedStatement, match="on one shard alone"):
            WAYS[way](session, control)
        session.rollback()

    assert spread_shop.rows("SELECT 1 FROM customers WHERE name = 'changed'") == []
    assert ask(spread_shop.urls["s1"], "SELECT gid FROM pg_prepared_xacts") == []


def test_statements_behind_it_are_found_too(spread_shop: World) -> None:
    with spread_shop.engine.connect() as connection, pytest.raises(UnsupportedStatement):
        connection.execute(
            text("UPDATE customers SET name = 'x'; COMMIT"), execution_options={"shard": "s1"}
        )

    assert spread_shop.rows("SELECT 1 FROM customers WHERE name = 'x'") == []


def test_savepoints_of_one_shard_stay_within_the_transaction(spread_shop: World) -> None:
    on_s1 = {"shard": "s1"}
    with spread_shop.engine.begin() as connection:
        for sql in (
            "UPDATE customers SET name = 'kept'",
            "SAVEPOINT here",
            "UPDATE customers SET name = 'undone'",
            "ROLLBACK TO SAVEPOINT here",
        ):
            connection.execute(text(sql), execution_options=on_s1)

    assert {name for (name,) in ask(spread_shop.urls["s1"], "SELECT name FROM customers")} == {
        "kept"
    }


def test_a_prepared_transaction_of_ones_own_is_finished_in_autocommit_mode(
    spread_shop: World,
) -> None:
    url = spread_shop.urls["s1"]
    ask(url, "BEGIN; UPDATE customers SET name = 'mine'; PREPARE TRANSACTION 'mine'")
    with spread_shop.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("COMMIT PREPARED 'mine'"), execution_options={"shard": "s1"})

    assert {name for (name,) in ask(url, "SELECT name FROM customers")} == {"mine"}


def test_on_a_cluster_of_one_shard_it_means_what_it_means_on_one_database(
    one_shard: World,
) -> None:
    one_shard.fill()
    with one_shard.session() as session:
        session.query(one_shard.models.Customer).update({"name": "committed"})
        session.execute(text("COMMIT"))
        session.query(one_shard.models.Customer).update({"name": "rolled back"})
        session.rollback()

    assert one_shard.rows("SELECT DISTINCT name FROM customers") == [("committed",)]
