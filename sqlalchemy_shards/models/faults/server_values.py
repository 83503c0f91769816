"""Values that each server would make for itself: two shards make the same, or different ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ClauseElement, Sequence

from sqlalchemy_shards.models.faults.setting import label_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column, Table
    from sqlalchemy.engine import Dialect


def server_number_faults(table: Table, dialect: Dialect) -> Iterator[str]:
    """Columns for which a server counts: all shards would hand out the same numbers."""
    for column in table.c:
        source = source_of_numbers(column, dialect)
        if source is not None:
            yield (
                f"{label_of(column)} gets its value from {source}, and every shard would hand out "
                "the same numbers; set autoincrement=False and give it a client-side default"
            )


def diverging_faults(table: Table, dialect: Dialect) -> Iterator[str]:
    """Columns of a reference table whose copies would get different values."""
    for column in table.c:
        # A computed value follows from its row, which is alike on every shard.
        if column.computed is not None or source_of_numbers(column, dialect) is not None:
            continue
        sources = {
            "a server default": column.server_default is not None,
            "an SQL expression as default": is_expression(column.default),
            "a server-side onupdate": column.server_onupdate is not None,
            "an SQL expression as onupdate": is_expression(column.onupdate),
        }
        for source in (name for name, is_there in sources.items() if is_there):
            yield (
                f"{label_of(column)} of a reference table has {source}, whose value would differ "
                "between shards; give it a client-side default"
            )


def source_of_numbers(column: Column[Any], dialect: Dialect) -> str | None:
    """What on the server counts for ``column``, or None."""
    if column.identity is not None:
        return "an identity of the server"
    if isinstance(column.default, Sequence):
        return f"the sequence {column.default.name!r}"
    for source in (column.default, column.server_default, column.onupdate):
        if "nextval(" in _sql_of(source, dialect).lower():
            return "a sequence of the server"
    if column is column.table.autoincrement_column and column.default is None:
        return "the server (SQLAlchemy would make it SERIAL)"
    return None


def is_expression(default: Any) -> bool:
    """Whether a default is computed by the server."""
    return default is not None and (default.is_clause_element or default.is_sequence)


def _sql_of(source: Any, dialect: Dialect) -> str:
    """The SQL of a default; empty where it is a value or callable of the client, or unknown."""
    argument = getattr(source, "arg", None)
    if isinstance(argument, ClauseElement):
        return str(argument.compile(dialect=dialect))
    return argument if isinstance(argument, str) else ""
