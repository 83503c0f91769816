"""Copies the rows of tables from one shard to another, and makes sure that both have the same.

- Rows come as text, which means the same on both sides for types of the application's own, too; in
  binary form, arrays and rows of those name types by numbers of their database.
- Rows are streamed: memory does not grow with their number.
- Triggers of the application's do not fire, as what they do is in the rows already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import tuple_row

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_SETTINGS: Final = """
SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL TimeZone = 'UTC';
SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL xmloption = 'content';
SET LOCAL row_security = off; SET LOCAL client_encoding = 'UTF8'
"""
"""All on which a value's text depends; and rows that a policy hides are an error."""

_COLUMNS: Final = """
SELECT pg_catalog.quote_ident(attname), pg_catalog.format_type(atttypid, atttypmod), attgenerated
FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped
ORDER BY attname COLLATE "C"
"""

_TRIGGERS: Final = """
SELECT pg_catalog.quote_ident(tgname), tgenabled FROM pg_catalog.pg_trigger
WHERE tgrelid = pg_catalog.to_regclass(%s) AND NOT tgisinternal AND tgenabled <> 'D'
"""
_ENABLE: Final = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}

_SEQUENCES: Final = """
SELECT pg_catalog.format('%%I.%%I', n.nspname, s.relname)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND d.refobjid = pg_catalog.to_regclass(%s) AND d.deptype IN ('a', 'i')
"""


@dataclass(frozen=True, slots=True)
class Copied:
    """A table that is the same on both sides."""

    table: str
    rows: int


def prepare(driver: psycopg.Connection[Any], lock_seconds: float) -> None:
    """Make settings for the transaction, which the other side must have alike."""
    driver.execute(_SETTINGS.encode(), prepare=False)
    driver.execute(f"SET LOCAL lock_timeout = {int(lock_seconds * 1000)}".encode())
    driver.execute("SET CONSTRAINTS ALL DEFERRED")


def lock(driver: psycopg.Connection[Any], tables: Sequence[str], mode: str) -> None:
    """Let nobody write some tables until the transaction ends, and wait for those who do."""
    if tables:
        driver.execute(f"LOCK TABLE {', '.join(tables)} IN {mode} MODE".encode())


def replace_rows(
    source: psycopg.Connection[Any], target: psycopg.Connection[Any], tables: Sequence[str]
) -> None:
    """Make the rows of tables those that the source has, within a transaction on both sides.

    :param tables: as SQL names them; those that others refer to come first.
    :raises ConfigurationError: a table does not have the same columns on both sides.
    """
    columns = {table: _columns(source, target, table) for table in tables}
    triggers = {table: _rows(target, _TRIGGERS, table) for table in tables}
    for table in tables:
        target.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
    for table in reversed(tables):
        target.execute(f"DELETE FROM {table}".encode())
    for table in tables:
        named = ", ".join(name for name, _, generated in columns[table] if not generated)
        out = f"COPY (SELECT {named} FROM {table}) TO STDOUT"
        into = f"COPY {table} ({named}) FROM STDIN"
        with (
            source.cursor().copy(out.encode()) as read,
            target.cursor().copy(into.encode()) as written,
        ):
            for block in read:
                written.write(block)
    # ALTER TABLE refuses to run before what waits for the end of the transaction.
    target.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for table in tables:
        for name, state in triggers[table]:
            target.execute(f"ALTER TABLE {table} {_ENABLE[state]} TRIGGER {name}".encode())
        _set_sequences(source, target, table)


def verify(
    source: psycopg.Connection[Any], target: psycopg.Connection[Any], tables: Sequence[str]
) -> list[Copied]:
    """Make sure that tables have the same rows on both sides, by their number and a checksum.

    :raises ConfigurationError: they have not.
    """
    verified, faults = [], []
    for table in tables:
        columns = _columns(source, target, table)
        (rows, checksum), (others, other) = (
            _summed(driver, table, [name for name, *_ in columns]) for driver in (source, target)
        )
        if (rows, checksum) == (others, other):
            verified.append(Copied(table, rows))
        else:
            faults.append(f"{table}: {rows} rows against {others}, or rows that differ")
    if faults:
        raise ConfigurationError(
            "copies of reference tables are not the same:",
            "see which rows differ, and correct them through the cluster",
            faults=faults,
        )
    return verified


def _columns(
    source: psycopg.Connection[Any], target: psycopg.Connection[Any], table: str
) -> list[tuple[Any, ...]]:
    mine, others = _rows(source, _COLUMNS, table), _rows(target, _COLUMNS, table)
    if mine != others or not mine:
        raise ConfigurationError(
            f"table {table} does not have the same columns on both shards",
            "run the migrations on both; `shards migrate check` tells what differs",
        )
    return mine


def _summed(driver: psycopg.Connection[Any], table: str, columns: Sequence[str]) -> tuple[int, int]:
    """How many rows there are, and the sum of a number for each."""
    row = f"pg_catalog.convert_to(ROW({', '.join(columns)})::text, 'UTF8')"
    digest = f"pg_catalog.substring(pg_catalog.sha256({row}), 1, 8)"
    number = f"('x' || pg_catalog.encode({digest}, 'hex'))::bit(64)::bigint"
    query = f"SELECT count(*), coalesce(sum({number}), 0) FROM {table}"
    with driver.cursor(row_factory=tuple_row) as cursor:
        found: Any = cursor.execute(query.encode()).fetchone()
    return int(found[0]), int(found[1])


def _set_sequences(
    source: psycopg.Connection[Any], target: psycopg.Connection[Any], table: str
) -> None:
    for (sequence,) in _rows(source, _SEQUENCES, table):
        value = source.execute(f"SELECT last_value, is_called FROM {sequence}".encode())
        target.execute(
            "SELECT pg_catalog.setval(%s::text::pg_catalog.regclass, %s, %s)",
            (sequence, *tuple(value.fetchone() or ())),
        )


def _rows(driver: psycopg.Connection[Any], query: str, table: str) -> list[tuple[Any, ...]]:
    with driver.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query.encode(), (table,)).fetchall()
