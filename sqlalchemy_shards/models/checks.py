"""What is refused in declared tables and classes, since rows would be lost, doubled or not found.

Invariants of what passed:

- Each row of a sharded table has a shard key, of a type that can be hashed, known to the client
  before the row is written, and never changed by a default or a cascade.
- No two rows on different shards have the same primary key; nor do they agree in what a unique or
  exclusion constraint names, unless that is declared per shard.
- No server hands out numbers of its own in a sharded or reference table: two shards would hand out
  the same, or the copies would differ.
- A foreign key names rows that lie on every shard where its own row is, and so do the relationships
  by which the ORM writes the other side.

A check yields faults, one sentence each (see the package `faults`); all faults of all models are
raised in one error. Checks see declarations only, never a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Table
from sqlalchemy.orm import registry

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.distribution import Global, Reference, Sharded, distribution_of
from sqlalchemy_shards.models.faults.foreign_keys import foreign_key_faults
from sqlalchemy_shards.models.faults.keys import key_faults, unresolved_faults
from sqlalchemy_shards.models.faults.relationships import relationship_faults
from sqlalchemy_shards.models.faults.server_values import diverging_faults, server_number_faults
from sqlalchemy_shards.models.faults.setting import Setting
from sqlalchemy_shards.models.faults.uniqueness import (
    exclusion_faults,
    identity_faults,
    primary_key_faults,
    unique_faults,
)
from sqlalchemy_shards.models.inheritance import parent_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.engine import Dialect
    from sqlalchemy.orm import Mapper

    from sqlalchemy_shards.models.distribution import Distribution


def check_table(
    table: Table,
    dialect: Dialect,
    *,
    declared: Distribution | None = None,
    allow_unresolved: bool = False,
) -> None:
    """Check ``table`` against what it is declared as; an undeclared one passes.

    :param dialect: tells which PostgreSQL type a column has.
    :param declared: check against this instead, before it is noted.
    :param allow_unresolved: let a key column pass whose type is not known yet, because the table
        that its foreign key refers to is still to be defined.
    :raises ConfigurationError: with all faults of the table.
    """
    said = declared or distribution_of(table)
    _raise(_table_faults(table, said, Setting(dialect), allow_unresolved=allow_unresolved))


def check_tables(
    tables: Iterable[Table], dialect: Dialect, *, undeclared: Distribution | None = None
) -> None:
    """Check ``tables`` and what they refer to, as `check_table` does for one table.

    :param undeclared: what a table is that says nothing; None leaves what refers to it unchecked.
    :raises ConfigurationError: with all faults of all of them.
    """
    setting = Setting(dialect, undeclared)
    _raise(
        fault
        for table in tables
        for fault in _table_faults(table, setting.spread(table), setting, allow_unresolved=False)
    )


def check_mappers(
    mappers: registry | Iterable[Mapper[Any]], dialect: Dialect, *, allow_unresolved: bool = False
) -> None:
    """Check the tables, identities and relationships of all ``mappers``.

    Relationships are checked of those mappers that are configured: before, they do not know what
    they join.

    :raises ConfigurationError: with all faults of all of them.
    """
    chosen = mappers.mappers if isinstance(mappers, registry) else mappers
    ordered = sorted(chosen, key=lambda each: each.class_.__name__)
    setting = Setting(dialect)
    tables = _tables_of(ordered)
    if any(setting.spread(table) is not None for table in tables):
        _raise(_faults_of_all(ordered, tables, setting, allow_unresolved=allow_unresolved))


def undeclared_error(table: Table) -> ConfigurationError:
    """The error for the first use of ``table``, of which nothing was said."""
    return ConfigurationError(
        f"table {table.fullname!r} does not say how it spreads over the shards",
        "give its model ShardKeyMixin (or call shard_table()), ReferenceMixin (reference_table()) "
        'or GlobalMixin (global_table()), or create the cluster with undeclared="global"',
    )


def _raise(faults: Iterable[str]) -> None:
    found = list(dict.fromkeys(faults))  # two sides of a relationship can have one fault
    if found:
        raise ConfigurationError(
            "these declarations do not hold over several shards:",
            "change each as its sentence says",
            faults=found,
        )


def _tables_of(mappers: list[Mapper[Any]]) -> list[Table]:
    """The tables that the mappers map, and those through which they are related."""
    tables = {table for mapper in mappers for table in mapper.tables if isinstance(table, Table)}
    for mapper in mappers:
        if mapper.configured:
            tables.update(
                each.secondary for each in mapper.relationships if isinstance(each.secondary, Table)
            )
    return sorted(tables, key=lambda each: each.fullname)


def _faults_of_all(
    mappers: list[Mapper[Any]], tables: list[Table], setting: Setting, *, allow_unresolved: bool
) -> Iterator[str]:
    for table in tables:
        said = setting.spread(table)
        yield from _table_faults(table, said, setting, allow_unresolved=allow_unresolved)
    for mapper in mappers:
        if parent_of(mapper) is None:
            yield from identity_faults(mapper, setting)
        if mapper.configured:
            yield from relationship_faults(mapper, setting)


def _table_faults(
    table: Table, said: Distribution | None, setting: Setting, *, allow_unresolved: bool
) -> Iterator[str]:
    if isinstance(said, Sharded):
        missing = [name for name in said.key if said.beside is None and name not in table.c]
        if missing:
            yield _no_such_columns(table, missing)
            return
        for check in _SHARDED_CHECKS:
            yield from check(table, said, setting)
        if said.beside is None:  # else its anchor is checked
            yield from key_faults(table, said, setting.dialect)
            yield from primary_key_faults(table, said, setting)
            if not allow_unresolved:
                yield from unresolved_faults(table, said)
    if isinstance(said, Sharded | Reference):
        yield from server_number_faults(table, setting.dialect)
    if isinstance(said, Reference):
        yield from diverging_faults(table, setting.dialect)
    if isinstance(said, Sharded | Reference | Global):
        yield from foreign_key_faults(table, said, setting)


def _no_such_columns(table: Table, missing: list[str]) -> str:
    return (
        f"table {table.fullname!r} has no shard-key column {', '.join(map(repr, missing))}; "
        f"name one of {', '.join(table.c.keys()) or '(it has no columns yet)'}"
    )


_SHARDED_CHECKS: Final = (unique_faults, exclusion_faults)
