"""What ON CONFLICT may be asked, where each shard sees the rows of its own only.

A conflict with a row of another shard would not be noticed, so the columns that a conflict is
looked for in must tell the shard, be declared unique over all shards, or per shard. Without such
columns every unique constraint counts, and these are looked at when mappers are configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, UniqueConstraint
from sqlalchemy.sql.elements import ColumnClause

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.faults.setting import is_per_shard, names_of
from sqlalchemy_shards.models.faults.uniqueness import is_unique_over_shards

from .set_parts import assigned_value
from .sources import SetPart

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Constraint, Index, Table
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import ClauseElement

    from sqlalchemy_shards.models.distribution import Sharded
    from sqlalchemy_shards.models.key_types import KeyType


def why_conflict_unseen(
    clause: ClauseElement, table: Table, sharded: Sharded, dialect: Dialect
) -> str | None:
    """The reason why a conflict with a row of another shard would not be noticed, or None."""
    target = _compat.conflict_target(clause)
    if target is None:
        return None
    if isinstance(target, str):
        found = _named(target, table)
        if found is None:
            return f"it cannot be told which columns the constraint {target!r} has"
        columns = _columns(found)
    else:
        columns = {column for each in target if (column := _column(each, table)) is not None}
        found = next((each for each in _unique(table) if _columns(each) == columns), None)
    if found is not None and is_per_shard(found, *(columns if len(columns) == 1 else ())):
        return None
    if is_unique_over_shards(columns, table, sharded, dialect):
        return None
    return (
        f"its columns ({names_of(sorted(columns, key=lambda each: each.name))}) lack the shard key "
        f"({', '.join(sharded.key)}), so that a conflict with a row of another shard would not be "
        "noticed"
    )


def keys_set_on_conflict(
    clause: ClauseElement,
    table: Table,
    sharded: Sharded,
    key_types: Sequence[KeyType],
    compiled: SQLCompiler,
) -> tuple[SetPart, ...]:
    """The parts of the shard key that DO UPDATE may give another value.

    Where a conflict is looked for in the key, the row that is there has the value that was to be
    inserted: so ``excluded.key`` changes nothing, nor does another parameter of the same value.
    """
    compared, found = _compared(clause, table), []
    assigned = _compat.conflict_assignments(clause)
    for part, (key, key_type) in enumerate(zip(sharded.key, key_types, strict=False)):
        if key not in assigned or (key in compared and _is_excluded(assigned[key], key)):
            continue
        value = assigned_value(assigned[key], key_type, table.c[key].type, compiled)
        found.append(SetPart(key, part, value if key in compared else None))
    return tuple(found)


def moved_ids(
    clause: ClauseElement, table: Table, sharded: Sharded, ids: Collection[str]
) -> tuple[str, ...]:
    """Those of the generated ids that DO UPDATE may give the bucket of another row.

    Where a conflict is looked for in the whole key, or in a generated id, the row that is there has
    the bucket of the one that was to be inserted.
    """
    compared = _compared(clause, table)
    is_same_bucket = compared.issuperset(sharded.key) or not compared.isdisjoint(ids)
    return tuple(
        sorted(
            key
            for key, value in _compat.conflict_assignments(clause).items()
            if key in ids and not (is_same_bucket and _is_excluded(value, key))
        )
    )


def _compared(clause: ClauseElement, table: Table) -> set[str]:
    """Keys of the columns in which a conflict is looked for, as far as they are known."""
    target = _compat.conflict_target(clause)
    found = _named(target, table) if isinstance(target, str) else None
    if found is not None:
        return {column.key for column in _columns(found)}
    elements = () if target is None or isinstance(target, str) else target
    return {c.key for each in elements if (c := _column(each, table)) is not None}


def _is_excluded(value: Any, key: str) -> bool:
    return (
        isinstance(value, ColumnClause)
        and not value.is_literal
        and value.key == key
        and getattr(value.table, "name", None) == "excluded"
    )


def _unique(table: Table) -> Iterator[Constraint | Index]:
    yield table.primary_key
    yield from (each for each in table.constraints if isinstance(each, UniqueConstraint))
    yield from (each for each in table.indexes if each.unique)


def _named(name: str, table: Table) -> Constraint | Index | None:
    """The constraint of a name, which PostgreSQL has made up where none was given."""
    for each in _unique(table):
        if each.name is not None and str(each.name) == name:
            return each
    if name == f"{table.name}_pkey" and table.primary_key.name is None:
        return table.primary_key
    for each in _unique(table):
        columns = "_".join(column.name for column in getattr(each, "columns", ()))
        if each.name is None and name == f"{table.name}_{columns}_key":
            return each
    return None


def _columns(item: Constraint | Index) -> set[Column[Any]]:
    elements: Any = getattr(item, "expressions", None) or getattr(item, "columns", ())
    return {each for each in elements if isinstance(each, Column)}


def _column(element: Any, table: Table) -> Column[Any] | None:
    """The column that an element of a conflict target is; None: it is computed."""
    name = element if isinstance(element, str) else getattr(element, "name", None)
    return next((column for column in table.columns if column.name == name), None)
