"""What a shard's version table tells: its revisions, without Alembic's context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

_EXISTS: Final = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = %s::text AND c.relkind IN ('r', 'p')
      AND CASE WHEN %s::text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
               ELSE n.nspname = %s::text END
)
"""


def revisions_in(driver: psycopg.Connection[Any], options: Mapping[str, Any]) -> tuple[str, ...]:
    """What a shard's version table tells; nothing where it has none.

    :param options: what ``env.py`` says to ``context.configure()``.
    """
    schema, table = version_table_of(options)
    with driver.transaction(), driver.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_EXISTS, (table, schema, schema)).fetchone()
        if row is None or not row[0]:
            return ()
        name = sql.Identifier(*filter(None, (schema, table)))
        cursor.execute(sql.SQL("SELECT version_num FROM {}").format(name))
        return tuple(sorted(str(row[0]) for row in cursor))


def version_table_of(options: Mapping[str, Any]) -> tuple[str | None, str]:
    """Its schema, if one is given, and its name.

    :param options: what ``env.py`` says to ``context.configure()``.
    """
    return options.get("version_table_schema"), options.get("version_table") or "alembic_version"
