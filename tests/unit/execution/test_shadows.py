from __future__ import annotations

import dataclasses
import struct

import pytest

from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.execution.arrived import ArrivedRows
from sqlalchemy_shards.execution.shadows import (
    Shadow,
    TextArray,
    TextArrayDumper,
    copy_statement,
    index_definitions,
    table_definition,
    with_ctes,
)

INTEGER = ColumnType("pg_catalog.int4", None, "integer")
TEXT = ColumnType("pg_catalog.text", 'pg_catalog."C"', "text")
ROWS = ArrivedRows()
ROWS.add([b"1\ta\n", b"2\t\\N\n"])
USERS = Shadow("users", ("id", '"Name"'), (INTEGER, TEXT), ROWS, ("id",))


def test_a_cte_stands_before_a_plain_select() -> None:
    sql, parameters = with_ctes("SELECT 1 FROM users", [USERS])

    assert sql == (
        'WITH users (id, "Name") AS (SELECT CAST(c0 AS pg_catalog.int4), '
        'CAST(c1 AS pg_catalog.text) COLLATE pg_catalog."C" '
        "FROM unnest(%(shards_0_0)s, %(shards_0_1)s) AS shards_cells (c0, c1)) "
        "SELECT 1 FROM users"
    )
    assert parameters["shards_0_1"].cells == [b"a", None]


@pytest.mark.parametrize(
    ("sql", "begins", "ends"),
    [
        ("WITH x AS (SELECT 1) SELECT 2", "WITH users ", ", x AS (SELECT 1) SELECT 2"),
        ("with recursive x AS (SELECT 1)", "WITH RECURSIVE users ", ", x AS (SELECT 1)"),
        ("/* WITH */ SELECT 2", "/* WITH */ WITH users ", ") SELECT 2"),
        ("-- a\nWITH x AS (SELECT 1)", "-- a\nWITH users ", ", x AS (SELECT 1)"),
        ("(SELECT 1) UNION (SELECT 2)", "WITH users ", ") (SELECT 1) UNION (SELECT 2)"),
        ("SELECT withheld", "WITH users ", ") SELECT withheld"),
    ],
)
def test_a_cte_stands_before_those_of_the_statement(sql: str, begins: str, ends: str) -> None:
    written, _ = with_ctes(sql, [USERS])

    assert written.startswith(begins)
    assert written.endswith(ends)


def test_a_temporary_table_has_types_collations_and_key() -> None:
    assert table_definition(USERS) == (
        'CREATE TEMPORARY TABLE users (id pg_catalog.int4, "Name" pg_catalog.text '
        'COLLATE pg_catalog."C", PRIMARY KEY (id)) ON COMMIT DROP'
    )
    assert copy_statement(USERS) == 'COPY pg_temp.users (id, "Name") FROM STDIN'


def test_a_temporary_table_has_an_index_for_each_look_up() -> None:
    looked_up = dataclasses.replace(USERS, lookups=("id", '"Name"'))

    assert list(index_definitions(looked_up)) == [
        "CREATE INDEX ON pg_temp.users (id)",
        'CREATE INDEX ON pg_temp.users ("Name")',
    ]


def test_an_array_of_cells_is_written_in_binary_form() -> None:
    written = TextArrayDumper(TextArray).dump(TextArray([b"ab", None]))

    assert written == struct.pack("!iiiiii2si", 1, 1, 25, 2, 1, 2, b"ab", -1)


def test_an_empty_array_has_no_dimension() -> None:
    assert TextArrayDumper(TextArray).dump(TextArray([])) == struct.pack("!iii", 0, 0, 25)
