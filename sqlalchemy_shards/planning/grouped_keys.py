"""Where a SELECT groups by the whole primary key of a table, so that all its columns may show.

PostgreSQL takes a name alone in GROUP BY for a column of the FROM list before it takes it for one
of the answer: ``SELECT lower(name) AS id, age FROM users GROUP BY id`` groups by users' key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import ColumnClause, Label
from sqlalchemy.sql.visitors import iterate

if TYPE_CHECKING:
    from sqlalchemy_shards.routing.scopes import Occurrence


def is_grouped_by_key(occurrence: Occurrence) -> bool:
    """Whether the SELECT in whose FROM list a table stands may group by its whole primary key."""
    nodes = [node for each in occurrence.scope.group_by for node in iterate(each)]
    named = {_name_alone(node) for node in nodes}
    grouped = {
        node.key
        for node in nodes
        # By equality: the ORM annotates FROM elements, and not always the columns' tables.
        if isinstance(node, ColumnClause) and bool(node.table == occurrence.element)
    }
    key = list(occurrence.table.primary_key)
    return bool(key) and all(each.key in grouped or each.name in named for each in key)


def _name_alone(node: Any) -> str | None:
    """The name that is written of an element of GROUP BY, if it may be written alone."""
    if node.__visit_name__ == "textual_label_reference":
        return str(node.element)
    is_bare = isinstance(node, ColumnClause) and node.table is None
    return str(node.name) if is_bare or isinstance(node, Label) else None
