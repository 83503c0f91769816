"""The execution options of this package, read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from sqlalchemy_shards.errors import ConfigurationError, MissingShardKey, RoutingError
from sqlalchemy_shards.models.distribution import Sharded, distribution_of, key_columns
from sqlalchemy_shards.models.key_types import NotOfFamily, key_type_of
from sqlalchemy_shards.routing.route import Reason, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Table
    from sqlalchemy.engine import Dialect

    from sqlalchemy_shards.routing.router import Territory


class ShardKeyOfModel(NamedTuple):
    """A sharded table and a key of it, checked and in the form in which it is hashed."""

    table: Table
    keyspace: str
    key: tuple[Any, ...]


def named_route(options: Mapping[str, Any], territory: Territory, dialect: Dialect) -> Route | None:
    """The route that the options ``shard`` or ``shard_key`` ask for; None: they say nothing.

    :raises UnknownShard: there is no such shard.
    :raises RoutingError: the key is not one.
    """
    if (shard := options.get("shard")) is not None:
        return territory.named(shard)
    if (model_and_key := options.get("shard_key")) is not None:
        try:
            model, key = model_and_key
        except (TypeError, ValueError):
            raise MissingShardKey(
                "the execution option shard_key is not a pair",
                "give it as shard_key=(Model, key)",
            ) from None
        found = key_of_model(model, key, dialect)
        shard_map = territory.shard_map
        return Route((shard_map.shard_for(found.keyspace, found.key),), Reason.OPTION)
    return None


def allows_scatter(options: Mapping[str, Any], default: str) -> bool:
    """Whether a statement without a known key may go to several shards."""
    return checked_scatter(options.get("scatter", default)) == "allow"


def check_named(
    route: Route, named: Route | None, target: str | None, sql: str | None = None
) -> None:
    """Refuse rows that belong elsewhere than an option says.

    :raises RoutingError: they do.
    """
    if named is not None and not set(route.shards) <= set(named.shards):
        raise RoutingError(
            f"a row for table {target!r} belongs to shard {route.shards[0]!r}, and the "
            f"execution option names {', '.join(map(repr, named.shards))}",
            "leave the option away: inserted rows go where their shard key says",
            shard=route.shards[0],
            statement=sql,
        )


def checked_scatter(value: Any) -> str:
    """The value of ``scatter``, if it is one."""
    if value not in ("allow", "refuse"):
        raise ConfigurationError(
            f"scatter={value!r} is not a choice", 'use scatter="allow" or scatter="refuse"'
        )
    return str(value)


def key_of_model(model: Any, key: Any, dialect: Dialect) -> ShardKeyOfModel:
    """Check a shard key given for a model or table.

    :param model: mapped class, aliased class, mapper or `Table`.
    :param key: one value, or a tuple with one for each part.
    :raises MissingShardKey: the model is not sharded, or a part is missing or of another type.
    """
    table = _table_of(model)
    distribution = distribution_of(table)
    if not isinstance(distribution, Sharded):
        raise MissingShardKey(
            f"table {table.fullname!r} is not sharded, so that it has no shard key",
            "name the shard with shard=",
        )
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) != len(distribution.key):
        raise MissingShardKey(
            f"the shard key of table {table.fullname!r} has {len(distribution.key)} parts "
            f"({', '.join(distribution.key)}), and {len(parts)} were given",
            "give a tuple with one value for each part",
        )
    checked = []
    for column, part in zip(key_columns(table, distribution), parts, strict=True):
        type_ = column.type
        processor = type_.dialect_impl(dialect).bind_processor(dialect)
        value = processor(part) if processor is not None and part is not None else part
        key_type = key_type_of(type_, dialect)
        try:
            if value is None or key_type is None:
                raise NotOfFamily
            checked.append(key_type.stored_value(value))
        except NotOfFamily:
            raise MissingShardKey(
                f"a value of type {type(part).__name__} is no shard key of column {column}",
                "give a value of the column's own type",
            ) from None
    return ShardKeyOfModel(table, distribution.keyspace, tuple(checked))


def _table_of(model: Any) -> Any:
    try:
        inspected = inspect(model)
    except NoInspectionAvailable:
        inspected = None
    mapper = getattr(inspected, "mapper", None)
    if isinstance(mapper, Mapper):
        return mapper.local_table
    if inspected is None or not hasattr(inspected, "fullname"):
        raise MissingShardKey(
            f"{model!r} is neither a mapped class nor a table", "name the model of the shard key"
        )
    return inspected
