"""Rows put in an order that PostgreSQL alone knows: it is shown the sort keys, and says the order.

The rows themselves stay; only their keys go to the workspace, as text, and the numbers of the rows
come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .shadows import TextArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards.plan import ForeignOrder


def order_statement(
    merge: ForeignOrder, rows: Sequence[tuple[Any, ...]], encoding: str
) -> tuple[str, Mapping[str, TextArray]]:
    """A statement that gives the numbers of rows, from 1, in their order; and its parameters.

    :param encoding: of the workspace's connection, as Python names it.
    """
    parameters, arrays, keys = {}, [], []
    for number, key in enumerate(merge.keys):
        name = f"shards_key_{number}"
        cells = (row[key.column] for row in rows)
        parameters[name] = TextArray(
            [None if cell is None else cell.encode(encoding) for cell in cells]
        )
        arrays.append(f"%({name})s")
        collation = "" if key.collation is None else f" COLLATE {key.collation}"
        direction = "DESC" if key.descending else "ASC"
        nulls = "FIRST" if key.nulls_first else "LAST"
        keys.append(f"CAST(k{number} AS {key.type_sql}){collation} {direction} NULLS {nulls}")
    names = ", ".join(f"k{number}" for number in range(len(keys)))
    return (
        f"SELECT n FROM unnest({', '.join(arrays)}) WITH ORDINALITY AS shards_keys ({names}, n) "
        f"ORDER BY {', '.join(keys)}"
    ), parameters
