"""Shipped rows, standing where tables would: as CTEs or as temporary tables of the tables' names.

A CTE's name hides the table of that name, and a temporary table comes first in the search path.
Values are text as PostgreSQL wrote it, and become what they were by a cast to the column's type;
no length is given with it, since a cast to ``varchar(5)`` would cut off silently.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from sqlalchemy_shards.sql_text import past_comments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy_shards.catalog.columns import ColumnType

    from .arrived import ArrivedRows

TEXT: Final = 25
TEXT_ARRAY: Final = 1009

_WITH: Final = re.compile(r"(?P<with>WITH(?P<recursive>\s+RECURSIVE)?\s+)?", re.I)


@dataclass(frozen=True, slots=True)
class Shadow:
    """Shipped rows of one relation.

    :param name: its name, as SQL writes it: that of a table, where it stands for one.
    :param columns: its columns' names, as SQL writes them.
    :param key: those of the primary key, where the statement relies on it.
    :param lookups: those that are to have an index, where there are many rows.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[ColumnType, ...]
    rows: ArrivedRows
    key: tuple[str, ...] = ()
    lookups: tuple[str, ...] = ()


class TextArray:
    """Cells of one column, sent as they came."""

    __slots__ = ("cells",)

    def __init__(self, cells: Sequence[bytes | None]) -> None:
        self.cells = cells

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(len(cell) for cell in self.cells if cell is not None)


class TextArrayDumper(Dumper):
    """Writes a `TextArray` as PostgreSQL's binary form of ``text[]``."""

    format = Format.BINARY
    oid = TEXT_ARRAY

    def dump(self, obj: TextArray) -> Buffer:
        """The array: dimensions, whether there are NULLs, element type; then the elements."""
        cells = obj.cells
        if not cells:
            return struct.pack("!iii", 0, 0, TEXT)
        parts = [struct.pack("!iiiii", 1, int(None in cells), TEXT, len(cells), 1)]
        for cell in cells:
            if cell is None:
                parts.append(b"\xff\xff\xff\xff")
            else:
                parts += (struct.pack("!i", len(cell)), cell)
        return b"".join(parts)


def with_ctes(sql: str, shadows: Sequence[Shadow]) -> tuple[str, Mapping[str, TextArray]]:
    """Put a CTE for each table before a SELECT; return it and the parameters that it needs more."""
    written, parameters = [], {}
    for number, shadow in enumerate(shadows):
        arrays = []
        for place, cells in enumerate(shadow.rows.columns(len(shadow.columns))):
            name = f"shards_{number}_{place}"
            parameters[name] = TextArray(cells)
            arrays.append(f"%({name})s")
        names = ", ".join(f"c{place}" for place in range(len(arrays)))
        values = ", ".join(_value(f"c{place}", type_) for place, type_ in enumerate(shadow.types))
        beginning = f"{shadow.name} ({', '.join(shadow.columns)}) AS (SELECT {values} "
        written.append(
            f"{beginning.replace('%', '%%')}"
            f"FROM unnest({', '.join(arrays)}) AS shards_cells ({names}))"
        )
    before = past_comments(sql)
    start = _WITH.match(sql, before)
    assert start is not None
    own = sql[start.end() :]
    recursive = "RECURSIVE " if start["recursive"] else ""
    separator = ", " if start["with"] else " "
    return f"{sql[:before]}WITH {recursive}{', '.join(written)}{separator}{own}", parameters


def _value(cell: str, type_: ColumnType) -> str:
    collation = "" if type_.collation is None else f" COLLATE {type_.collation}"
    return f"CAST({cell} AS {type_.sql}){collation}"


def table_definition(shadow: Shadow) -> str:
    """The statement that creates a temporary table for a shadow."""
    columns = [
        f"{name} {type_.sql}" + (f" COLLATE {type_.collation}" if type_.collation else "")
        for name, type_ in zip(shadow.columns, shadow.types, strict=True)
    ]
    if shadow.key:
        columns.append(f"PRIMARY KEY ({', '.join(shadow.key)})")
    return f"CREATE TEMPORARY TABLE {shadow.name} ({', '.join(columns)}) ON COMMIT DROP"


def index_definitions(shadow: Shadow) -> Iterator[str]:
    """The statements that create its indexes, when the table is filled."""
    for column in shadow.lookups:
        yield f"CREATE INDEX ON pg_temp.{shadow.name} ({column})"


def copy_statement(shadow: Shadow) -> str:
    """The statement that fills it from the rows as they arrived."""
    return f"COPY pg_temp.{shadow.name} ({', '.join(shadow.columns)}) FROM STDIN"
