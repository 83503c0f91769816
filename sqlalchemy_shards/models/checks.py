"""What is refused in a declared table, since rows would be lost, doubled or not found again.

Invariants that a table has once it passed:

- Each row of a sharded table has a shard key, of a type that can be hashed, known to the client
  before the row is written, and never changed by a default.
- No two rows on different shards have the same primary key.
- No server hands out numbers of its own in a sharded or reference table: two shards would hand out
  the same, or the copies would differ.

A check is a function of one table that yields faults, one sentence each, and stands in
`_SHARDED_CHECKS` or `_REFERENCE_CHECKS`. Checks see declarations only, never a server; a check of
how tables relate (foreign keys, secondary tables) belongs beside `check_mappers`, where all of them
are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ClauseElement, Column, Sequence, Table, TypeDecorator, Uuid
from sqlalchemy.orm import registry
from sqlalchemy.types import NullType

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.distribution import Reference, Sharded, distribution_of
from sqlalchemy_shards.models.generated_id import carries_bucket
from sqlalchemy_shards.models.inheritance import parent_of
from sqlalchemy_shards.models.key_types import KeyFamily, family_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.engine import Dialect
    from sqlalchemy.orm import Mapper
    from sqlalchemy.types import TypeEngine

    from sqlalchemy_shards.models.distribution import Distribution


def check_table(
    table: Table,
    dialect: Dialect,
    *,
    declared: Distribution | None = None,
    allow_unresolved: bool = False,
) -> None:
    """Check ``table`` against what it is declared as; an undeclared or global one passes.

    :param dialect: tells which PostgreSQL type a column has.
    :param declared: check against this instead, before it is noted.
    :param allow_unresolved: let a key column pass whose type is not known yet, because the table
        that its foreign key refers to is still to be defined.
    :raises ConfigurationError: with all faults of the table.
    """
    said = declared or distribution_of(table)
    _raise(list(_table_faults(table, said, dialect, allow_unresolved=allow_unresolved)))


def check_mappers(
    mappers: registry | Iterable[Mapper[Any]], dialect: Dialect, *, allow_unresolved: bool = False
) -> None:
    """Check the tables and identities of all ``mappers``, as `check_table` does for one table.

    :raises ConfigurationError: with all faults of all of them.
    """
    chosen = mappers.mappers if isinstance(mappers, registry) else mappers
    faults: dict[str, None] = {}  # the classes of a single-table hierarchy have the same faults
    for mapper in sorted(chosen, key=lambda each: each.class_.__name__):
        table = mapper.local_table
        if isinstance(table, Table):
            said = distribution_of(table)
            found = _table_faults(table, said, dialect, allow_unresolved=allow_unresolved)
            faults.update(dict.fromkeys(found))
            faults.update(dict.fromkeys(_identity_faults(mapper, dialect)))
    _raise(list(faults))


def undeclared_error(table: Table) -> ConfigurationError:
    """The error for the first use of ``table``, of which nothing was said."""
    return ConfigurationError(
        f"table {table.fullname!r} does not say how it spreads over the shards",
        "give its model ShardKeyMixin (or call shard_table()), ReferenceMixin (reference_table()) "
        'or GlobalMixin (global_table()), or create the cluster with undeclared="global"',
    )


def _raise(faults: list[str]) -> None:
    if faults:
        raise ConfigurationError(
            "these declarations would lose or double rows:",
            "change each as its sentence says",
            faults=faults,
        )


def _table_faults(
    table: Table, distribution: Distribution | None, dialect: Dialect, *, allow_unresolved: bool
) -> Iterator[str]:
    if isinstance(distribution, Sharded):
        missing = [name for name in distribution.key if name not in table.c]
        if missing:
            yield _no_such_columns(table, missing)
            return
        for check in _SHARDED_CHECKS:
            yield from check(table, distribution, dialect)
        if not allow_unresolved:
            yield from _unresolved_faults(table, distribution)
    elif isinstance(distribution, Reference):
        yield from _server_number_faults(table, dialect)
        yield from _diverging_faults(table, dialect)


def _no_such_columns(table: Table, missing: list[str]) -> str:
    return (
        f"table {table.fullname!r} has no shard-key column {', '.join(map(repr, missing))}; "
        f"name one of {', '.join(table.c.keys()) or '(it has no columns yet)'}"
    )


def _key_faults(table: Table, sharded: Sharded, dialect: Dialect) -> Iterator[str]:
    for column in (table.c[name] for name in sharded.key):
        label = _label(column)
        if column.nullable and not column.primary_key:
            yield f"shard key {label} can be NULL; make it nullable=False"
        if not _is_unresolved(column) and family_of(column.type, dialect) is None:
            yield (
                f"shard key {label} has type {column.type!r}, whose equality is not that of its "
                "bytes or is unknown; use an integer, text (not char or citext; no collation of "
                "your own), uuid, bytea, date, timestamp, numeric or boolean"
            )
        if carries_bucket(column.type):
            yield (
                f"shard key {label} is a GeneratedId, which carries the bucket of a shard key and "
                "cannot be one; use BigInteger (ids of an IdGenerator need a row's key first)"
            )
        if _source_of_numbers(column, dialect) is None:
            yield from _key_value_faults(column, label)


def _key_value_faults(column: Column[Any], label: str) -> Iterator[str]:
    """The value must be there before the shard is known, and stay."""
    if column.computed is not None:
        yield f"shard key {label} is computed by the server; let the client give its value"
        return
    if column.server_default is not None:
        yield f"shard key {label} has a server default; give it a client-side default or none"
    if _is_expression(column.default):
        yield (
            f"shard key {label} has an SQL expression as default, whose value no client knows; "
            "use a Python value or callable"
        )
    if column.onupdate is not None or column.server_onupdate is not None:
        yield f"shard key {label} has onupdate, which would change it in place; leave it out"


def _unresolved_faults(table: Table, sharded: Sharded) -> Iterator[str]:
    for column in (table.c[name] for name in sharded.key):
        if _is_unresolved(column):
            yield (
                f"shard key {_label(column)} has no type, since the table that its foreign key "
                "refers to is not defined; import that table's module or give the column a type"
            )


def _is_unresolved(column: Column[Any]) -> bool:
    return isinstance(column.type, NullType) and bool(column.foreign_keys)


def _primary_key_faults(table: Table, sharded: Sharded, dialect: Dialect) -> Iterator[str]:
    columns = tuple(table.primary_key.columns)
    if not columns:
        yield f"table {table.fullname!r} has no primary key; give it one with the shard key in it"
    elif not _is_unique_over_shards(columns, sharded, dialect):
        yield _not_unique(f"primary key ({_names(columns)}) of {table.fullname!r}", sharded)


def _identity_faults(mapper: Mapper[Any], dialect: Dialect) -> Iterator[str]:
    """The same of the identity of objects, which a mapping may choose differently."""
    distribution = distribution_of(mapper.local_table)
    if not isinstance(distribution, Sharded) or parent_of(mapper) is not None:
        return
    columns = tuple(column for column in mapper.primary_key if isinstance(column, Column))
    if set(columns) == set(mapper.local_table.primary_key):
        return
    if not _is_unique_over_shards(columns, distribution, dialect):
        what = f"mapped primary key ({_names(columns)}) of class {mapper.class_.__name__}"
        yield _not_unique(what, distribution)


def _is_unique_over_shards(
    columns: tuple[Column[Any], ...], sharded: Sharded, dialect: Dialect
) -> bool:
    if sharded.globally_unique or {column.key for column in columns} >= set(sharded.key):
        return True
    if any(carries_bucket(column.type) for column in columns):
        return True  # equal ids have one bucket, and its shard has the constraint
    return len(columns) == 1 and _is_uuid(columns[0].type, dialect)


def _is_uuid(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    if family_of(type_, dialect) is KeyFamily.UUID:
        return True
    if isinstance(type_, TypeDecorator):
        return _is_uuid(type_.load_dialect_impl(dialect), dialect)
    return isinstance(type_, Uuid)


def _not_unique(what: str, sharded: Sharded) -> str:
    return (
        f"{what} lacks the shard key ({', '.join(sharded.key)}), so two shards could hold the same "
        "one; add the shard key to it, use a Uuid or GeneratedId column, or promise that it is "
        "unique over all shards (__globally_unique__ = True, or globally_unique=True)"
    )


def _sharded_number_faults(table: Table, sharded: Sharded, dialect: Dialect) -> Iterator[str]:
    del sharded  # the same for every key
    return _server_number_faults(table, dialect)


def _server_number_faults(table: Table, dialect: Dialect) -> Iterator[str]:
    for column in table.c:
        source = _source_of_numbers(column, dialect)
        if source is not None:
            yield (
                f"{_label(column)} gets its value from {source}, and every shard would hand out "
                "the same numbers; set autoincrement=False and give it a client-side default"
            )


def _source_of_numbers(column: Column[Any], dialect: Dialect) -> str | None:
    """What on the server counts for ``column``, or None."""
    if column.identity is not None:
        return "an identity of the server"
    if isinstance(column.default, Sequence):
        return f"the sequence {column.default.name!r}"
    for source in (column.default, column.server_default, column.onupdate):
        if "nextval(" in _sql_of(source, dialect).lower():
            return "a sequence of the server"
    if column is column.table.autoincrement_column and column.default is None:
        return "the server (SQLAlchemy would make it SERIAL)"
    return None


def _sql_of(source: Any, dialect: Dialect) -> str:
    """The SQL of a default; empty where it is a value or callable of the client, or unknown."""
    argument = getattr(source, "arg", None)
    if isinstance(argument, ClauseElement):
        return str(argument.compile(dialect=dialect))
    return argument if isinstance(argument, str) else ""


def _diverging_faults(table: Table, dialect: Dialect) -> Iterator[str]:
    for column in table.c:
        # A computed value follows from its row, which is alike on every shard.
        if column.computed is not None or _source_of_numbers(column, dialect) is not None:
            continue
        sources = {
            "a server default": column.server_default is not None,
            "an SQL expression as default": _is_expression(column.default),
            "a server-side onupdate": column.server_onupdate is not None,
            "an SQL expression as onupdate": _is_expression(column.onupdate),
        }
        for source in (name for name, is_there in sources.items() if is_there):
            yield (
                f"{_label(column)} of a reference table has {source}, whose value would differ "
                "between shards; give it a client-side default"
            )


def _is_expression(default: Any) -> bool:
    return default is not None and (default.is_clause_element or default.is_sequence)


def _label(column: Column[Any]) -> str:
    return f"{column.table.fullname}.{column.name}"


def _names(columns: Iterable[Column[Any]]) -> str:
    return ", ".join(column.name for column in columns)


_SHARDED_CHECKS: Final = (_key_faults, _primary_key_faults, _sharded_number_faults)
