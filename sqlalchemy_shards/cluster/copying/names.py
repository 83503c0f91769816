"""What the columns of a copy may be called: by the model's attributes, or the table's columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy_shards.errors import UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Table


class ColumnNames(NamedTuple):
    """The names of a table's columns.

    :param table: the table.
    :param keys: name -> key in ``table.c``.
    :param attributes: of the mapped class, those that hold columns.
    :param in_order: one name for each column that can be written, in the order of the table.
    :param constants: values of columns that every row has, by their keys.
    """

    table: Table
    keys: Mapping[str, str]
    attributes: frozenset[str]
    in_order: tuple[str, ...]
    constants: Mapping[str, Any]


def told_columns(columns: Any) -> tuple[str, ...] | None:
    """The names that ``columns=`` gives; None: it was not given.

    :raises UnsupportedStatement: they are no names.
    """
    if columns is None:
        return None
    told = () if isinstance(columns, str) or not isinstance(columns, Iterable) else tuple(columns)
    if not told or not all(isinstance(name, str) for name in told):
        raise UnsupportedStatement(
            "columns= names no columns", "give the names in a list, each as a string"
        )
    return told


def given_keys(told: Sequence[str], names: ColumnNames) -> tuple[str, ...]:
    """The keys of columns that are told by name.

    :raises UnsupportedStatement: a name is unknown, or a column told twice.
    """
    unknown = [name for name in told if name not in names.keys]
    if unknown:
        raise UnsupportedStatement(
            f"table {names.table.fullname!r} has no column {', '.join(map(repr, unknown))} that "
            "rows could be copied into",
            f"name some of {', '.join(map(repr, names.in_order))}, or leave others away with "
            "columns=",
        )
    keys = tuple(names.keys[name] for name in told)
    if len(set(keys)) < len(keys):
        raise UnsupportedStatement(
            f"a column of table {names.table.fullname!r} is named twice",
            "give each column once, by its attribute's name or its own",
        )
    return keys
