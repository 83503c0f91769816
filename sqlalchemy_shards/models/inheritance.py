"""What a mapped class inherits of its base's distribution.

- Single-table inheritance: nothing is noted, base and child share their table.
- Joined inheritance: the child's table spreads like its base's. A sharded one is sharded by its own
  columns that the inherit condition equates with the base's shard key, so that both rows of an
  object have one key and lie on one shard.
- Concrete inheritance: the child has its own table and declares it itself. An `AbstractConcreteBase`
  has no table, and hands its declaration down.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BinaryExpression, BooleanClauseList, Column, Table
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.sql import operators

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.distribution import Sharded, distribution_of, note_distribution

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
        inherited = replace(inherited, key=_key_of_child(mapper, parent, inherited))
    note_distribution(table_of(mapper), inherited)


def _key_of_child(mapper: Mapper[Any], parent: Mapper[Any], inherited: Sharded) -> tuple[str, ...]:
    """The child's own shard-key columns: those that equal the parent's in every object."""
    child_table, parent_table = table_of(mapper), table_of(parent)
    equal = dict(_equal_columns(mapper.inherit_condition, parent_table, child_table))
    missing = [name for name in inherited.key if name not in equal]
    if missing:
        raise ConfigurationError(
            f"table {child_table.fullname!r} of {mapper.class_.__name__} has no column that equals "
            f"the shard key {', '.join(missing)} of its base {parent.class_.__name__}; "
            "joined children without a key column are not supported yet",
            f"give the child's table such columns and a ForeignKeyConstraint from them and its "
            f"primary key to {parent_table.fullname!r}, or use single-table inheritance",
        )
    return tuple(equal[name] for name in inherited.key)


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
