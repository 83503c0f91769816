"""The tables that a statement writes or locks, and those that are read beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Table

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.distribution import Reference, distribution_of

if TYPE_CHECKING:
    from sqlalchemy.sql.selectable import Select


def plain_table(target: Any) -> Table:
    """The table of a target, which may be an alias."""
    return target if isinstance(target, Table) else getattr(target, "element", target)


def locks_copies(select: Select[Any]) -> bool:
    """Whether FOR UPDATE and its kin would lock rows of reference tables, if it reads any."""
    locked = _compat.locked_elements(select)
    tables = (plain_table(getattr(each, "table", each)) for each in locked)
    return not locked or any(isinstance(distribution_of(table), Reference) for table in tables)
