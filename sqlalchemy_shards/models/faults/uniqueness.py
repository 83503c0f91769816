"""What must be unique, and would be so on each shard only.

A set of columns is unique over all shards if two rows on different shards cannot agree in it:

- it holds the shard key, or a generated id, which carries the bucket of its row's key;
- it holds a primary key that is unique over all shards;
- it holds the columns by which a foreign key, together with the shard key, names a row whose
  primary key is unique over all shards: rows that agree in them name one row, and have its key.

For the primary key alone, a UUID or a promise will do. Another constraint says that values may come
twice and are then to be refused, which no shard can do for the others: it is declared per shard, or
is a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Join, Table, TypeDecorator, UnaryExpression, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.sql import operators

from sqlalchemy_shards._compat import exclusion_elements
from sqlalchemy_shards.models.distribution import Sharded
from sqlalchemy_shards.models.faults.co_location import Side, obstacle
from sqlalchemy_shards.models.faults.foreign_keys import pairs_of
from sqlalchemy_shards.models.faults.setting import Setting, is_per_shard, names_of
from sqlalchemy_shards.models.generated_id import carries_bucket
from sqlalchemy_shards.models.key_types import KeyFamily, family_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sqlalchemy import ColumnElement, ForeignKeyConstraint, Index
    from sqlalchemy.engine import Dialect
    from sqlalchemy.orm import Mapper
    from sqlalchemy.types import TypeEngine


def primary_key_faults(table: Table, sharded: Sharded, setting: Setting) -> Iterator[str]:
    """The primary key is there, and unique over all shards."""
    columns = tuple(table.primary_key.columns)
    if not columns:
        yield f"table {table.fullname!r} has no primary key; give it one with the shard key in it"
    elif not is_identity(columns, sharded, setting.dialect):
        yield _no_identity(f"primary key ({names_of(columns)}) of {table.fullname!r}", sharded)


def identity_faults(mapper: Mapper[Any], setting: Setting) -> Iterator[str]:
    """The same of the identity of objects, which a mapping may choose differently.

    Of a join, it is enough that the rows of one sharded table in it are told apart.
    """
    columns = [column for column in mapper.primary_key if isinstance(column, Column)]
    spread = ((table, setting.spread(table)) for table in _tables_below(mapper))
    sharded = [(table, said) for table, said in spread if isinstance(said, Sharded)]
    for table, said in sharded:
        own = [column for column in columns if table.c.contains_column(column)]
        is_its_own = bool(own) and set(own) == set(table.primary_key)
        if is_its_own or (own and is_identity(own, said, setting.dialect)):
            return
    if sharded:
        what = f"mapped primary key ({names_of(columns)}) of class {mapper.class_.__name__}"
        yield _no_identity(what, sharded[0][1])


def _tables_below(mapper: Mapper[Any]) -> list[Table]:
    """The tables of a mapping whose rows are its objects; none for a mapped SELECT."""
    if isinstance(mapper.local_table, Table):
        return [mapper.local_table]
    if isinstance(mapper.local_table, Join):
        return [table for table in mapper.tables if isinstance(table, Table)]
    return []


def is_identity(columns: Collection[Column[Any]], sharded: Sharded, dialect: Dialect) -> bool:
    """Whether a primary key of ``columns`` is, or is promised to be, unique over all shards."""
    if sharded.globally_unique or _fix_the_shard(columns, sharded):
        return True
    return len(columns) == 1 and all(_is_uuid(column.type, dialect) for column in columns)


def unique_faults(table: Table, sharded: Sharded, setting: Setting) -> Iterator[str]:
    """Unique constraints, unique indexes and exclusion constraints hold over all shards."""
    constraints = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    for constraint in sorted(constraints, key=lambda each: names_of(each.columns)):
        columns = list(constraint.columns)
        may_repeat_null = not constraint.dialect_kwargs.get("postgresql_nulls_not_distinct")
        if not _holds(constraint, columns, columns, may_repeat_null, Side(table, sharded), setting):
            what = f"unique constraint ({names_of(columns)}) of {table.fullname!r}"
            yield _per_shard_only(what, sharded)
    for index in sorted(table.indexes, key=lambda each: each.name or ""):
        compared = [column for each in index.expressions if (column := _plain(each)) is not None]
        may_repeat_null = not index.dialect_kwargs.get("postgresql_nulls_not_distinct")
        named = list(index.columns)
        if index.unique and not _holds(
            index, compared, named, may_repeat_null, Side(table, sharded), setting
        ):
            yield _per_shard_only(f"unique index {_index_name(index)}", sharded)


def is_unique_over_shards(
    columns: Collection[Column[Any]], table: Table, sharded: Sharded, dialect: Dialect
) -> bool:
    """Whether two rows on different shards cannot agree in ``columns``."""
    side, setting = Side(table, sharded), Setting(dialect)
    found = set(columns)
    return _determine_the_shard(found, side, setting) or _name_one_row(found, side, setting)


def exclusion_faults(table: Table, sharded: Sharded, setting: Setting) -> Iterator[str]:
    """The same of exclusion constraints: rows of different keys must not exclude each other."""
    del setting  # what is compared by equality stands in the constraint itself
    for constraint in table.constraints:
        if not isinstance(constraint, ExcludeConstraint) or is_per_shard(constraint):
            continue
        elements = exclusion_elements(constraint)
        equal = [column for column, operator in elements if operator == "="]
        if not _fix_the_shard([each for each in equal if isinstance(each, Column)], sharded):
            name = constraint.name or ", ".join(constraint.operators)
            yield (
                f"exclusion constraint ({name}) of {table.fullname!r} does not compare the shard "
                f"key ({', '.join(sharded.key)}) by =, so that each shard would keep it for its "
                'own rows only; add (key, "=") to it, or say that this is meant with '
                'info={"per_shard": True}'
            )


def _holds(
    item: UniqueConstraint | Index,
    compared: Collection[Column[Any]],
    named: Collection[Column[Any]],
    may_repeat_null: bool,
    side: Side,
    setting: Setting,
) -> bool:
    """Whether a unique constraint or index is kept over all shards, or need not be.

    :param compared: the columns that it compares as they are.
    :param named: all columns that it speaks of.
    """
    if is_per_shard(item) or (len(named) == 1 and is_per_shard(*named)):
        return True
    found = set(compared)
    # Where NULLs agree, rows without a value do, and name nothing.
    naming = found if may_repeat_null else {column for column in found if not column.nullable}
    return _determine_the_shard(found, side, setting) or _name_one_row(naming, side, setting)


def _determine_the_shard(columns: set[Column[Any]], side: Side, setting: Setting) -> bool:
    sharded = side.said
    assert isinstance(sharded, Sharded)
    primary = set(side.table.primary_key.columns)
    if primary and primary <= columns and is_identity(primary, sharded, setting.dialect):
        return True
    return _fix_the_shard(columns, sharded)


def _name_one_row(columns: set[Column[Any]], side: Side, setting: Setting) -> bool:
    """Whether ``columns`` and the shard key name a row that no other shard has."""
    return any(
        _names_one_row(constraint, columns, side, setting)
        for constraint in side.table.foreign_key_constraints
    )


def _names_one_row(
    constraint: ForeignKeyConstraint, columns: set[Column[Any]], side: Side, setting: Setting
) -> bool:
    pairs = pairs_of(constraint)
    if pairs is None or pairs[0][1].table is side.table:
        return False
    if any(one not in columns and one not in side.key for one, _ in pairs):
        return False  # it is not looked at where such a column is NULL
    parent = pairs[0][1].table
    parent_said = setting.spread(parent)
    if not isinstance(parent_said, Sharded):
        return False
    if obstacle(side, Side(parent, parent_said), pairs, setting) is not None:
        return False
    identity = set(parent.primary_key.columns)
    return identity <= {other for one, other in pairs if one in columns} and is_identity(
        identity, parent_said, setting.dialect
    )


def _fix_the_shard(columns: Iterable[Column[Any]], sharded: Sharded) -> bool:
    """Whether rows that agree in ``columns`` are on one shard."""
    columns = list(columns)
    if any(carries_bucket(column.type) for column in columns):
        return True  # equal ids have one bucket
    return {column.key for column in columns} >= set(sharded.key)


def _is_uuid(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    if family_of(type_, dialect) is KeyFamily.UUID:
        return True
    if isinstance(type_, TypeDecorator):
        return _is_uuid(type_.load_dialect_impl(dialect), dialect)
    return isinstance(type_, Uuid)


def _plain(expression: ColumnElement[Any] | str) -> Column[Any] | None:
    """The column that an element of an index is, ASC or DESC; None for what is computed."""
    while isinstance(expression, UnaryExpression) and expression.modifier in _ORDERINGS:
        expression = expression.element
    return expression if isinstance(expression, Column) else None


def _index_name(index: Index) -> str:
    return repr(index.name) if index.name else f"({names_of(index.columns)})"


def _no_identity(what: str, sharded: Sharded) -> str:
    return (
        f"{what} lacks the shard key ({', '.join(sharded.key)}), so two shards could hold the same "
        "one; add the shard key to it, use a Uuid or GeneratedId column, or promise that it is "
        "unique over all shards (__globally_unique__ = True, or globally_unique=True)"
    )


def _per_shard_only(what: str, sharded: Sharded) -> str:
    return (
        f"{what} lacks the shard key ({', '.join(sharded.key)}), so that each shard would keep it "
        "for its own rows only; add the shard key to it, or say that this is meant with "
        'info={"per_shard": True}'
    )


_ORDERINGS = frozenset(
    {
        operators.asc_op,
        operators.desc_op,
        operators.nulls_first_op,
        operators.nulls_last_op,
    }
)
