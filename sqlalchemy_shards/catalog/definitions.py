"""What is defined in a database, object by object, as its catalogs have it.

- A definition is text, alike where the objects are alike: no OID, owner, comment or statistics, and
  no value of a sequence is in it.
- Objects of PostgreSQL and of extensions are left out, but for the columns and rules of their
  tables; of the schema ``shards``, all but its functions.
- An object is named as the search path of the role has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.rows import tuple_row

from .definition_queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

KINDS: Final = tuple(QUERIES)
"""All kinds of objects."""


class Definition(NamedTuple):
    """An object of a database.

    :param kind: one of `KINDS`.
    :param name: of what belongs to a table: without the table.
    :param table: the table that it is, or belongs to; None: none.
    :param facts: a JSON object of texts, with its keys in one order.
    """

    kind: str
    name: str
    table: str | None
    facts: str


def read_definitions(
    driver: psycopg.Connection[Any], kinds: Sequence[str] = KINDS
) -> Iterator[Definition]:
    """Read the definitions of some kinds over an autocommit connection, in one statement.

    Those of a table come together, its columns in their order.
    """
    every = "\nUNION ALL\n".join(QUERIES[kind] for kind in kinds)
    query = f"""SELECT kind, name, relation, facts
        FROM ({every}) AS d (kind, name, relation, facts, place)
        ORDER BY relation COLLATE "C", place, kind COLLATE "C", name COLLATE "C"
    """
    with driver.cursor(row_factory=tuple_row) as cursor:
        for kind, name, table, facts in cursor.execute(query.encode()):
            yield Definition(kind, name, table, facts)
