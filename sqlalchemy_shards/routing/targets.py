"""The tables of an UPDATE or DELETE: the one that is written, and those that are read beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Table
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.selectable import SelectBase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.selectable import FromClause


def plain_table(target: Any) -> Table:
    """The table of a target, which may be an alias."""
    return target if isinstance(target, Table) else target.element


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
