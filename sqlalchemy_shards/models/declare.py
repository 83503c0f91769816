"""The mixins and functions with which models say how their tables spread.

Invariants:

- A declaration notes the table's distribution at the moment the class is mapped, or the function is
  called; attribute names become columns there, once.
- What can be checked then is refused then; the rest when SQLAlchemy configures its mappers.
- A child of single-table or joined inheritance has its base's distribution, never another.
- The functions return what they were given, so they serve inline and as decorators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar

from sqlalchemy import URL, Column, Table, event, inspect
from sqlalchemy.orm import ColumnProperty, Mapper, RelationshipProperty

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.checks import check_mappers, check_table
from sqlalchemy_shards.models.distribution import (
    Distribution,
    Global,
    Reference,
    Sharded,
    distribution_of,
    note_distribution,
)
from sqlalchemy_shards.models.inheritance import (
    inherit_distribution,
    is_union_of_children,
    parent_of,
    table_of,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

T = TypeVar("T")

ShardKey: TypeAlias = str | tuple[str, ...]


class ShardKeyMixin:
    """Spreads the rows of a mapped class over the shards by the attributes in ``__shard_key__``.

    Abstract bases hand all three attributes down; children of single-table and joined inheritance
    have their base's. The class is refused with `ConfigurationError` when it is mapped, or when
    mappers are configured, where its rows could be lost or doubled (see `checks`).
    """

    __shard_key__: ClassVar[str | tuple[str, ...]]
    """Name of the attribute, or names of the attributes, whose value decides a row's shard."""

    __keyspace__: ClassVar[str] = "default"
    """The keyspace that places the keys; tables of one keyspace lie beside each other by key."""

    __globally_unique__: ClassVar[bool] = False
    """Promise that a primary key without the shard key is unique over all shards."""


class ReferenceMixin:
    """Keeps a full copy of a mapped class's table on every shard."""


class GlobalMixin:
    """Keeps a mapped class's table, unsharded, on the cluster's global shard."""


def shard_table(
    table_or_class: T,
    key: ShardKey = "id",
    keyspace: str = "default",
    *,
    globally_unique: bool = False,
) -> T:
    """Spread the rows of a table over the shards by ``key``; returns what it was given.

    :param table_or_class: a Core `Table`, or a mapped class without the mixins; its children of
        single-table and joined inheritance follow.
    :param key: of a table, keys in ``table.c``; of a class, attribute names.
    :param keyspace: name of the keyspace that places the keys.
    :param globally_unique: promise that a primary key without the shard key is unique over shards.
    :raises ConfigurationError: at once where the fault can be seen, else when mappers are
        configured. A table without its columns (to be reflected) is checked when it is used.
    """
    names = _key_names(key, f"shard_table({_name_of(table_or_class)})")
    if not isinstance(table_or_class, Table):
        mapper = _mapper_of(table_or_class)
        names = _columns_of(mapper, names)
    _declare(table_or_class, Sharded(names, keyspace, globally_unique))
    return table_or_class


def reference_table(table_or_class: T) -> T:
    """Keep a full copy of a table on every shard; returns what it was given.

    :param table_or_class: as of `shard_table`.
    :raises ConfigurationError: the copies would come to differ.
    """
    _declare(table_or_class, Reference())
    return table_or_class


def global_table(table_or_class: T) -> T:
    """Keep a table, unsharded, on the cluster's global shard; returns what it was given.

    :param table_or_class: as of `shard_table`.
    :raises ConfigurationError: it was declared as something else before.
    """
    _declare(table_or_class, Global())
    return table_or_class


def _declare(table_or_class: object, distribution: Distribution) -> None:
    if isinstance(table_or_class, Table):
        if len(table_or_class.c) > 0:
            check_table(table_or_class, _dialect(), declared=distribution, allow_unresolved=True)
        note_distribution(table_or_class, distribution)
        return
    mapper = _mapper_of(table_or_class)
    parent = parent_of(mapper)
    if parent is not None:
        raise ConfigurationError(
            f"class {mapper.class_.__name__} has the table or the distribution of its base "
            f"{parent.class_.__name__}",
            "declare the base class only: its children follow",
        )
    note_distribution(table_of(mapper), distribution)
    family = [
        each for each in mapper.self_and_descendants if _follow_parent(each) or each is mapper
    ]
    check_mappers([*family, *_configured_neighbours(family)], _dialect(), allow_unresolved=True)
    event.listen(mapper, "after_mapper_constructed", _on_child_constructed, propagate=True)


def _mapper_of(class_: object) -> Mapper[Any]:
    mapper = inspect(class_, raiseerr=False)
    if isinstance(mapper, Mapper):
        return mapper
    raise ConfigurationError(
        f"{_name_of(class_)} is neither a Table nor a mapped class",
        "pass the Table, or declare the class after it was mapped (after prepare(), for automap)",
    )


def _name_of(table_or_class: object) -> str:
    if isinstance(table_or_class, Table):
        return table_or_class.fullname
    return getattr(table_or_class, "__name__", type(table_or_class).__name__)


def _follow_parent(mapper: Mapper[Any]) -> bool:
    """Note what ``mapper`` inherits, if its parent was declared; whether it was."""
    parent = parent_of(mapper)
    if parent is None or distribution_of(parent.local_table) is None:
        return False
    inherit_distribution(mapper, parent)
    return True


def _on_child_constructed(mapper: Mapper[Any], class_: type[Any]) -> None:
    del class_
    _follow_parent(mapper)


def _on_mapper_constructed(mapper: Mapper[Any], class_: type[Any]) -> None:
    if is_union_of_children(mapper):
        return
    mixins = [mixin for mixin in _MIXINS if issubclass(class_, mixin)]
    if len(mixins) > 1:
        raise ConfigurationError(
            f"class {class_.__name__} has {' and '.join(mixin.__name__ for mixin in mixins)}",
            "keep one of them: a table spreads in one way",
        )
    parent = parent_of(mapper)
    if parent is not None:
        _refuse_other_key(class_, parent.class_)
        inherit_distribution(mapper, parent)
    elif mixins == [ShardKeyMixin]:
        note_distribution(table_of(mapper), _sharded_as_said(mapper))
    else:
        said = Reference() if mixins == [ReferenceMixin] else Global()
        note_distribution(table_of(mapper), said)


def _on_mapper_configured(mapper: Mapper[Any], class_: type[Any]) -> None:
    """Check all models of a registry when the last of them is configured.

    Relationships are checked with both sides known, and all faults are told at once.
    """
    del class_
    mappers = mapper.registry.mappers
    if not all(each.configured for each in mappers):
        return
    try:
        check_mappers(mappers, _dialect(), allow_unresolved=True)
    except ConfigurationError:
        mapper.configured = False  # else SQLAlchemy would refuse it once only
        raise


def _configured_neighbours(family: list[Mapper[Any]]) -> list[Mapper[Any]]:
    """The mappers that are related to a class that is declared late, after they were checked."""
    everyone = family[0].registry.mappers
    if not all(each.configured for each in everyone):
        return []  # they will be checked with the rest
    return [
        each
        for each in everyone
        if each not in family and any(related.mapper in family for related in each.relationships)
    ]


def _refuse_other_key(class_: type[Any], base: type[Any]) -> None:
    for name in ("__shard_key__", "__keyspace__", "__globally_unique__"):
        if getattr(class_, name, None) != getattr(base, name, None):
            raise ConfigurationError(
                f"class {class_.__name__} sets {name}, but has that of its base {base.__name__}",
                f"leave {name} out",
            )


def _sharded_as_said(mapper: Mapper[Any]) -> Sharded:
    class_ = mapper.class_
    key = getattr(class_, "__shard_key__", None)
    if key is None:
        raise ConfigurationError(
            f"class {class_.__name__} has ShardKeyMixin but no __shard_key__",
            f"set it to the name of an attribute or a tuple of names, of {_attributes(mapper)}",
        )
    names = _key_names(key, f"__shard_key__ of class {class_.__name__}")
    return Sharded(
        _columns_of(mapper, names), class_.__keyspace__, bool(class_.__globally_unique__)
    )


def _key_names(key: object, where: str) -> tuple[str, ...]:
    names = (key,) if isinstance(key, str) else key
    if isinstance(names, tuple) and names and len(set(names)) == len(names):
        texts = tuple(name for name in names if isinstance(name, str))
        if len(texts) == len(names):
            return texts
    raise ConfigurationError(
        f"the key in {where} is neither a name nor a tuple of different names",
        'write "tenant_id" or ("tenant_id", "region")',
    )


def _columns_of(mapper: Mapper[Any], attributes: tuple[str, ...]) -> tuple[str, ...]:
    """Keys in ``table.c`` of the columns behind ``attributes``."""
    table = table_of(mapper)
    columns = [_column_of(mapper, table, attribute) for attribute in attributes]
    faults = [
        f"{attribute!r} {_what_it_is(mapper, attribute)}"
        for attribute, column in zip(attributes, columns, strict=True)
        if column is None
    ]
    if faults:
        raise ConfigurationError(
            f"the shard key of class {mapper.class_.__name__} names what is no column:",
            f"name attributes that hold a column of {table.fullname!r}: {_attributes(mapper)}",
            faults=faults,
        )
    return tuple(column.key for column in columns if column is not None)


def _column_of(mapper: Mapper[Any], table: Table, attribute: str) -> Column[Any] | None:
    if not mapper.has_property(attribute):
        return None
    # Not mapper.attrs: that would configure the mappers before all of them are there.
    attribute_property = mapper.get_property(attribute)
    if not isinstance(attribute_property, ColumnProperty):
        return None
    column = attribute_property.columns[0]
    return column if isinstance(column, Column) and table.c.contains_column(column) else None


def _what_it_is(mapper: Mapper[Any], attribute: str) -> str:
    if not mapper.has_property(attribute):
        return "does not exist"
    attribute_property = mapper.get_property(attribute)
    if isinstance(attribute_property, RelationshipProperty):
        return "is a relationship; name the attributes of its foreign key"
    return "is not a plain column"


def _attributes(mapper: Mapper[Any]) -> str:
    return ", ".join(mapper.columns.keys())


def _dialect() -> Dialect:
    # Made anew each time: a dialect remembers the types that it has seen.
    return URL.create("postgresql+psycopg").get_dialect()()


_MIXINS: Final = (ShardKeyMixin, ReferenceMixin, GlobalMixin)

for _mixin in _MIXINS:
    event.listen(_mixin, "after_mapper_constructed", _on_mapper_constructed, propagate=True)

# Of every mapper, since the last one to be configured may be one that says nothing.
event.listen(Mapper, "mapper_configured", _on_mapper_configured)
