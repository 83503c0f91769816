"""What PostgreSQL says of a statement without running it over any rows: the types that it returns.

The tables of the statement are given as relations without rows, under their names, so that nothing
is read or locked. Where SQL is put together here it has parameters: a per cent sign is doubled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.rows import tuple_row

from .columns import types_by_oid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from .columns import ColumnType

_OF_COLUMN: Final = """
SELECT {place}, y.oid, y.typcollation <> 0, CASE WHEN y.typcollation <> 0 THEN
    pg_catalog.pg_collation_for((SELECT c{place} FROM shards_asked))::pg_catalog.regcollation::oid
END
FROM pg_catalog.pg_type y
WHERE y.oid = pg_catalog.pg_typeof((SELECT c{place} FROM shards_asked)) AND y.typtype <> 'p'
"""


class Relation(NamedTuple):
    """A relation without rows.

    :param name: as SQL with parameters writes it, as are the columns' names.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[ColumnType, ...]


def types_returned(
    connection: psycopg.Connection[Any],
    sql: str,
    parameters: Mapping[str, Any],
    relations: Sequence[Relation],
    width: int,
) -> list[ColumnType | None]:
    """The types of a SELECT's columns; None: one without a name, or whose collation is not certain.

    :param width: how many columns it has.
    """
    names = ", ".join(f"c{place}" for place in range(width))
    asked = f"shards_asked ({names}) AS ({_over(sql, relations)})"
    questions = "UNION ALL".join(_OF_COLUMN.format(place=place) for place in range(width))
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(f"WITH {asked} {questions}".encode(), parameters).fetchall()
    known = {
        str(place): (oid, collation or 0)
        for place, oid, has_collation, collation in rows
        if collation is not None or not has_collation
    }
    types = types_by_oid(connection, known)
    return [types.get(str(place)) for place in range(width)]


def oids_returned(
    connection: psycopg.Connection[Any],
    sql: str,
    parameters: Mapping[str, Any],
    relations: Sequence[Relation],
) -> tuple[int, ...]:
    """The OIDs of the types of a SELECT's columns, as the driver is told them."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(_over(sql, relations).encode(), parameters)
        return tuple(each.type_code for each in cursor.description or ())


def _over(sql: str, relations: Sequence[Relation]) -> str:
    """A SELECT over relations without rows, which gives none of its own either."""
    written = ", ".join(
        f"{each.name} ({', '.join(each.columns)}) AS "
        f"(SELECT {', '.join(map(_nothing, each.types))} WHERE false)"
        for each in relations
    )
    asked = f"SELECT * FROM ({sql}) AS shards_rows LIMIT 0"
    return f"WITH {written} {asked}" if written else asked


def _nothing(type_: ColumnType) -> str:
    collation = "" if type_.collation is None else f" COLLATE {type_.collation}"
    return f"CAST(NULL AS {type_.sql}){collation}".replace("%", "%%")
