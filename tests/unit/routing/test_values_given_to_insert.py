from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, MetaData, String, Table, bindparam, func, insert, literal
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from sqlalchemy_shards.models.distribution import Sharded
from sqlalchemy_shards.models.key_types import KeyFamily, KeyType
from sqlalchemy_shards.routing.inserts import inserted_key

USERS = Table(
    "users", MetaData(), Column("id", BigInteger, primary_key=True), Column("name", String)
)


def name_of_key(statement: Any) -> str | None:
    compiled = statement.compile(dialect=PGDialect_psycopg())
    found = inserted_key(
        statement,
        compiled,
        USERS,
        Sharded(("id",), "default", globally_unique=False),
        (KeyType(KeyFamily.INTEGER),),
    )
    (parameter,) = found.parameters
    return None if parameter is None else parameter.name


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        (insert(USERS).values(id=3, name="x"), "id"),
        (insert(USERS).values({USERS.c.id: 3}), "id"),
        (insert(USERS).values(id=bindparam("number")), "number"),
        (insert(USERS).values(id=bindparam("number", type_=BigInteger())), "number"),
        (insert(USERS).values(id=literal(3)), "id"),
        (insert(USERS), "id"),
    ],
    ids=["value", "column", "untyped parameter", "typed parameter", "literal", "no values"],
)
def test_the_shard_key_is_the_parameter_that_values_names(statement: Any, name: str) -> None:
    found = name_of_key(statement)

    assert found == name


@pytest.mark.parametrize(
    "statement",
    [
        insert(USERS).values(id=func.abs(3)),
        insert(USERS).values(id=literal("3")),
        insert(USERS).values([{"id": 3}, {"id": 4}]),
    ],
    ids=["expression", "other type", "several rows"],
)
def test_the_shard_key_is_unknown_where_the_client_does_not_have_it(statement: Any) -> None:
    found = name_of_key(statement)

    assert found is None
