"""Which INSERTs and DELETEs take their rows as arrays, and how these are written."""

from __future__ import annotations

from datetime import datetime, time, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from sqlalchemy_shards.planning.row_arrays import (
    ROWS_PER_STATEMENT,
    deleted_arrays,
    row_arrays,
)

SQL = "INSERT INTO users (id, name) VALUES (%(id)s::BIGINT, %(name)s)"
NOON = datetime(2026, 1, 1, 12)


class Colour(str, Enum):
    RED = "red"


def test_the_rows_of_arrays() -> None:
    arrays = row_arrays(SQL + " ON CONFLICT DO NOTHING RETURNING users.id")

    assert arrays is not None
    assert arrays.sql == (
        "INSERT INTO users (id, name) SELECT c0, c1 FROM unnest(%(id)s::BIGINT[], %(name)s) "
        "AS shards_rows (c0, c1) ON CONFLICT DO NOTHING RETURNING users.id"
    )
    assert not arrays.updates


def test_do_update_is_told() -> None:
    arrays = row_arrays(SQL + " ON CONFLICT (id) DO UPDATE SET name = excluded.name")

    assert arrays is not None
    assert arrays.updates


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO users (id, name) VALUES (%(id)s::BIGINT, upper(%(name)s))",
        "INSERT INTO users (id, name) VALUES (%(id)s::BIGINT, nextval('numbers'))",
        "INSERT INTO users (id, name) VALUES (%(id)s::BIGINT, %(name)s || 'x')",
        "INSERT INTO users (id, name) VALUES (%(id)s::INTEGER[], %(name)s)",
        'INSERT INTO users (id) VALUES (%(id)s::app."Colour")',
        "INSERT INTO users (id, other) VALUES (%(id)s, %(id)s)",
        'INSERT INTO users (" VALUES (") VALUES (%(id)s)',
        "INSERT INTO users (id) VALUES (%(id)s), (%(id_1)s)",
        "INSERT INTO users (id) VALUES (%(id)s) RETURNING users.id + %(more)s",
        "INSERT INTO users (id) SELECT %(id)s",
        "INSERT INTO users DEFAULT VALUES",
        "WITH x AS (SELECT 1) INSERT INTO users (id) VALUES (%(id)s)",
    ],
)
def test_what_is_more_than_a_row_of_parameters_is_left(sql: str) -> None:
    assert row_arrays(sql) is None


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ([1, 2], [1.5, None]),
        ([1, None], [Decimal(1), Decimal("NaN")]),
        (["1", "2"], [True, None]),
        ([None, None], [b"x", b""]),
        ([NOON, NOON], [1, 2]),
        ([NOON.replace(tzinfo=timezone.utc)] * 2, [1, 2]),
    ],
)
def test_values_of_one_type(ids: list[Any], names: list[Any]) -> None:
    arrays = row_arrays(SQL)
    assert arrays is not None
    rows = [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]

    assert arrays.parameters(rows) == {"id": ids, "name": names}


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ([1, 2], [1, 2.5]),  # of several types
        ([1, True], [1, 2]),
        ([1, 2], ["a", "b"]),  # of no type where no cast says one
        ([1, 2], [NOON, NOON]),
        ([1, 2], [None, None]),
        ([[1], [2]], [1, 2]),  # an array would be unnested, too
        ([{"a": 1}, {"a": 2}], [1, 2]),
        ([Colour.RED, Colour.RED], [1, 2]),
        ([NOON, NOON.replace(tzinfo=timezone.utc)], [1, 2]),
        ([time(1), time(1, tzinfo=timezone.utc)], [1, 2]),
    ],
)
def test_values_that_an_array_might_change(ids: list[Any], names: list[Any]) -> None:
    arrays = row_arrays(SQL)
    assert arrays is not None
    rows = [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]

    assert arrays.parameters(rows) is None


def test_a_statement_holds_some_thousands_of_rows() -> None:
    arrays = row_arrays(SQL)
    assert arrays is not None
    rows = [{"id": number, "name": number} for number in range(2 * ROWS_PER_STATEMENT + 1)]

    batches = arrays.batches(rows)

    assert batches is not None
    assert [len(each["id"]) for each in batches] == [ROWS_PER_STATEMENT, ROWS_PER_STATEMENT, 1]
    assert batches[2] == {"id": [rows[-1]["id"]], "name": [rows[-1]["id"]]}


def test_the_rows_that_arrays_name_are_deleted() -> None:
    arrays = deleted_arrays(
        'DELETE FROM s."Or ders" WHERE s."Or ders".a = %(a)s::BIGINT '
        'AND s."Or ders"."Id" = %(Id)s::VARCHAR(4)'
    )

    assert arrays is not None
    assert arrays.sql == (
        'DELETE FROM s."Or ders" USING unnest(%(a)s::BIGINT[], %(Id)s::VARCHAR(4)[]) '
        'AS shards_rows (c0, c1) WHERE s."Or ders".a = shards_rows.c0 '
        'AND s."Or ders"."Id" = shards_rows.c1'
    )


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM a",
        "DELETE FROM a WHERE a.x > %(x)s",
        "DELETE FROM a WHERE a.x = %(x)s OR a.x = %(y)s",
        "DELETE FROM a WHERE (a.x = %(x)s)",
        "DELETE FROM a WHERE a.x = %(x)s AND a.n IS NULL",
        "DELETE FROM a WHERE a.x = %(x)s AND a.y = %(x)s",
        "DELETE FROM a WHERE a.x = lower(%(x)s)",
        "DELETE FROM a WHERE a.x = %(x)s RETURNING a.y",
        "DELETE FROM a WHERE a.x = (SELECT b.x FROM b WHERE b.y = %(x)s)",
        "DELETE FROM a USING b WHERE a.x = %(x)s",
        "DELETE FROM a AS b WHERE b.x = %(x)s",
        "WITH c AS (SELECT 1) DELETE FROM a WHERE a.x = %(x)s",
        "UPDATE a SET x=1 WHERE a.x = %(x)s",
    ],
)
def test_other_deletes_stay_as_they_are(sql: str) -> None:
    assert deleted_arrays(sql) is None
