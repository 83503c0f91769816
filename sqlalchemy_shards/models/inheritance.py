"""What a mapped class inherits of its base's distribution.

- Single-table inheritance: nothing is noted, base and child share their table.
- Joined inheritance: the child's table spreads like its base's. A sharded one is sharded by its own
  columns that the inherit condition equates with the base's shard key, so that both rows of an
  object have one key and lie on one shard. A child without such columns lies *beside* the base's
  row that its foreign key names, if the base's primary key is unique over all shards.
- Concrete inheritance: the child has its own table and declares it itself. An
  `AbstractConcreteBase` has no table, and hands its declaration down.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BinaryExpression, BooleanClauseList, Column, Table
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.sql import operators

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.distribution import (
    Beside,
    Sharded,
    distribution_of,
    note_distribution,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Mapper


def parent_of(mapper: Mapper[Any]) -> Mapper[Any] | None:
    """The mapper whose distribution ``mapper`` has, or None where it must declare its own."""
    return None if mapper.concrete else mapper.inherits


def is_union_of_children(mapper: Mapper[Any]) -> bool:
    """Whether ``mapper`` is that of an `AbstractConcreteBase`: it reads its children's tables."""
    return issubclass(mapper.class_, AbstractConcreteBase) and not isinstance(
        mapper.local_table, Table
    )


def table_of(mapper: Mapper[Any]) -> Table:
    """The table of ``mapper`` itself.

    :raises ConfigurationError: the class is mapped to a join or subquery, which spreads no rows.
    """
    if isinstance(mapper.local_table, Table):
        return mapper.local_table
    raise ConfigurationError(
        f"class {mapper.class_.__name__} is mapped to a {type(mapper.local_table).__name__}, "
        "which holds no rows of its own",
        "take the declaration off the class and declare the tables below it "
        "with shard_table(), reference_table() or global_table()",
    )


def inherit_distribution(mapper: Mapper[Any], parent: Mapper[Any]) -> None:
    """Note for the table of ``mapper`` what it inherits from its ``parent``.

    :raises ConfigurationError: the parent is undeclared, or the child's table lacks the key.
    """
    inherited = distribution_of(parent.local_table)
    if inherited is None:
        raise ConfigurationError(
            f"class {mapper.class_.__name__} declares how its table spreads, "
            f"but its base {parent.class_.__name__} does not",
            f"declare {parent.class_.__name__} instead: its children have what it says",
        )
    if mapper.single:
        return
    if isinstance(inherited, Sharded):
        inherited = _of_child(mapper, parent, inherited)
    note_distribution(table_of(mapper), inherited)


def _of_child(mapper: Mapper[Any], parent: Mapper[Any], inherited: Sharded) -> Sharded:
    """How a child's table spreads: by its own key columns, else beside its base's row."""
    child_table, parent_table = table_of(mapper), table_of(parent)
    equal = dict(_equal_columns(mapper.inherit_condition, parent_table, child_table))
    if inherited.beside is None and all(name in equal for name in inherited.key):
        return replace(inherited, key=tuple(equal[name] for name in inherited.key))
    columns = _columns_beside(parent_table, inherited, equal)
    named = {child_table.c[own] for _, own in columns}
    if not columns or not any(
        set(constraint.columns) >= named and constraint.referred_table is parent_table
        for constraint in child_table.foreign_key_constraints
    ):
        raise _no_key(mapper, parent, inherited)
    rival = [name for name in inherited.key if name in child_table.c]
    if rival:
        raise ConfigurationError(
            f"table {child_table.fullname!r} of {mapper.class_.__name__} has a column {rival[0]!r} "
            f"like the shard key of its base {parent.class_.__name__}, which nothing makes equal",
            f"make it a part of the foreign key to {parent_table.fullname!r}, or give it another "
            "name",
        )
    anchor = parent_table.key if inherited.beside is None else inherited.beside.table
    return replace(inherited, beside=Beside(anchor, columns))


def _columns_beside(
    parent: Table, inherited: Sharded, equal: dict[str, str]
) -> tuple[tuple[str, str], ...]:
    """(column of the anchor's primary key, the child's that equals it); empty: not all are."""
    if inherited.beside is not None:
        pairs = [(anchors, equal.get(parents)) for anchors, parents in inherited.beside.columns]
    else:
        pairs = [(column.key, equal.get(column.key)) for column in parent.primary_key.columns]
    found = tuple((anchors, own) for anchors, own in pairs if own is not None)
    return found if len(found) == len(pairs) else ()


def _no_key(mapper: Mapper[Any], parent: Mapper[Any], inherited: Sharded) -> ConfigurationError:
    child_table, parent_table = table_of(mapper), table_of(parent)
    return ConfigurationError(
        f"table {child_table.fullname!r} of {mapper.class_.__name__} has neither columns that "
        f"equal the shard key {', '.join(inherited.key)} of its base {parent.class_.__name__}, nor "
        "a foreign key to its whole primary key",
        f"give the child's table a ForeignKeyConstraint from its primary key to that of "
        f"{parent_table.fullname!r}, or use single-table inheritance",
    )


def _equal_columns(
    condition: ColumnElement[bool] | None, parent: Table, child: Table
) -> Iterator[tuple[str, str]]:
    """Pairs of the parent's and the child's columns that ``condition`` always makes equal."""
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for clause in condition.clauses:
            yield from _equal_columns(clause, parent, child)
    elif isinstance(condition, BinaryExpression) and condition.operator is operators.eq:
        for one, other in (
            (condition.left, condition.right),
            (condition.right, condition.left),
        ):
            if not (isinstance(one, Column) and isinstance(other, Column)):
                continue
            if parent.c.contains_column(one) and child.c.contains_column(other):
                yield one.key, other.key
