from __future__ import annotations

import struct

import pytest

from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.execution.shadows import (
    Shadow,
    TextArray,
    TextArrayDumper,
    by_part,
    copy_rows,
    copy_statement,
    size_of,
    table_definition,
    with_ctes,
)

INTEGER = ColumnType("pg_catalog.int4", None, "integer")
TEXT = ColumnType("pg_catalog.text", 'pg_catalog."C"', "text")
USERS = Shadow("users", ("id", '"Name"'), (INTEGER, TEXT), [(b"1", b"a"), (b"2", None)], ("id",))


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


def test_copied_values_are_escaped() -> None:
    rows = [(b"a\tb\nc\rd\\e", None), (b"\\N", b"")]

    assert list(copy_rows(rows)) == [b"a\\tb\\nc\\rd\\\\e\t\\N\n", b"\\\\N\t\n"]


def test_an_array_of_cells_is_written_in_binary_form() -> None:
    written = TextArrayDumper(TextArray).dump(TextArray([b"ab", None]))

    assert written == struct.pack("!iiiiii2si", 1, 1, 25, 2, 1, 2, b"ab", -1)


def test_an_empty_array_has_no_dimension() -> None:
    assert TextArrayDumper(TextArray).dump(TextArray([])) == struct.pack("!iii", 0, 0, 25)


def test_rows_are_sorted_out_by_their_part() -> None:
    rows = [(b"1", b"x", None), (b"0", b"y", b"z")]

    assert by_part(rows, [2, 1]) == [[(b"y", b"z")], [(b"x",)]]
    assert size_of([(b"ab", None), (b"c",)]) == 3
