"""The tables that a statement writes or locks, and those that are read beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Table
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.selectable import SelectBase

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.distribution import Reference, distribution_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.selectable import FromClause, Select


def plain_table(target: Any) -> Table:
    """The table of a target, which may be an alias."""
    return target if isinstance(target, Table) else getattr(target, "element", target)


def other_tables(expressions: Iterable[Any], target: FromClause) -> list[FromClause]:
    """FROM elements that the expressions of an UPDATE or DELETE name besides its target."""
    found: dict[FromClause, None] = {}
    pending = [each for each in expressions if hasattr(each, "get_children")]
    while pending:
        node = pending.pop()
        if isinstance(node, SelectBase):
            continue
        if isinstance(node, ColumnClause):
            if not node.is_literal and node.table is not None and node.table != target:
                found[node.table] = None
            continue
        pending.extend(node.get_children())
    return list(found)


def locks_copies(select: Select[Any]) -> bool:
    """Whether FOR UPDATE and its kin would lock rows of reference tables, if it reads any."""
    locked = _compat.locked_elements(select)
    tables = (plain_table(getattr(each, "table", each)) for each in locked)
    return not locked or any(isinstance(distribution_of(table), Reference) for table in tables)
