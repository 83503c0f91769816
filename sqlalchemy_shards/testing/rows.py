"""Deletes all rows of a database and leaves its tables, which is quicker than to make them again.

- Deleting is one statement for all tables: foreign keys are checked at its end, so that neither
  their order nor a cycle of them matters.
- `schema_state` tells whether the tables are still those that were made: a row of a system catalog
  that is changed has another `xmin`. VACUUM and ANALYZE leave it as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

FIRST_OWN_OID = 16384
"""PostgreSQL's own objects have smaller numbers."""

_TABLES = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
    AND n.nspname <> 'information_schema' AND (n.nspname, c.relname) <> ('shards', 'identity')
"""

_RESTART_SEQUENCES = f"""
SELECT pg_catalog.setval(seqrelid::pg_catalog.regclass, seqstart, false)
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
WHERE c.oid >= {FIRST_OWN_OID} AND c.relpersistence <> 't'
"""

# Catalog -> the column that holds the number of an object.
_CATALOGS = {
    "pg_class": "oid",
    "pg_attribute": "attrelid",
    "pg_attrdef": "oid",
    "pg_constraint": "oid",
    "pg_index": "indexrelid",
    "pg_sequence": "seqrelid",
    "pg_trigger": "oid",
    "pg_rewrite": "oid",
    "pg_policy": "oid",
    "pg_type": "oid",
    "pg_enum": "oid",
    "pg_proc": "oid",
    "pg_operator": "oid",
    "pg_collation": "oid",
    "pg_extension": "oid",
    "pg_namespace": "oid",
    "pg_description": "objoid",
}


def delete_rows(connection: psycopg.Connection) -> None:
    """Delete all rows but what names the shard, and let sequences start anew; or do nothing.

    :raises psycopg.Error: something forbids it.
    """
    with connection.transaction():
        if tables := _tables(connection):
            connection.execute(sql.SQL("LOCK TABLE {}").format(sql.SQL(", ").join(tables)))
            # An error, and not rows that stay because of a policy.
            connection.execute("SET LOCAL row_security = off")
            deletes = [
                sql.SQL("d{} AS (DELETE FROM ONLY {})").format(sql.SQL(str(number)), table)
                for number, table in enumerate(tables)
            ]
            connection.execute(sql.SQL("WITH {} SELECT").format(sql.SQL(", ").join(deletes)))
        connection.execute(_RESTART_SEQUENCES.encode())


def has_rows(connection: psycopg.Connection) -> bool:
    """Return whether a table holds a row, but for what names the shard."""
    tables = _tables(connection)
    if not tables:
        return False
    questions = [sql.SQL("EXISTS (SELECT FROM ONLY {})").format(table) for table in tables]
    query = sql.SQL("SELECT {}").format(sql.SQL(" OR ").join(questions))
    found = connection.execute(query).fetchone()
    return found is not None and bool(found[0])


def schema_state(connection: psycopg.Connection) -> str:
    """Return what changes with each change of a schema, a table or what belongs to them."""
    entries = " UNION ALL ".join(
        f"SELECT pg_catalog.format('{catalog} %s %s %s', {number}, ctid, xmin)"
        f" FROM pg_catalog.{catalog} WHERE {number} >= {FIRST_OWN_OID}"
        for catalog, number in _CATALOGS.items()
    )
    query = f"SELECT md5(string_agg(entry, ' ' ORDER BY entry)) FROM ({entries}) AS e (entry)"
    found = connection.execute(query.encode()).fetchone()
    return "" if found is None else str(found[0])


def _tables(connection: psycopg.Connection) -> list[sql.Identifier]:
    return [sql.Identifier(*name) for name in connection.execute(_TABLES.encode())]
