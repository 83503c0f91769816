"""Sources and the values of one execution -> `Route`.

Pure: the shard map, the options and what the connection knows come in as arguments. The order of
the checks is the order of authority: one shard, an option, the key, the locator, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy_shards.errors import MissingShardKey, RoutingError, UnknownShard

from .conditions import UNBOUND, UnknownValue, UnusableValue, bindings
from .route import Reason, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy_shards.topology.shard_map import ShardMap

    from .conditions import Bindings, ValueReader
    from .sources import InsertedKey, ShardedSource, StatementSources

NOWHERE: Final[frozenset[str]] = frozenset()


class Locator(Protocol):
    """What a session knows of the whereabouts of its objects."""

    def key_of(self, table: Any, primary_key: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The shard key of the row with this primary key, None: not known."""


@dataclass(frozen=True, slots=True)
class Territory:
    """The shards of a cluster, as routing sees them.

    :param shards: all names, in the cluster's order.
    :param shard_map: where buckets and pins are.
    :param global_shard: where global tables are.
    """

    shards: tuple[str, ...]
    shard_map: ShardMap
    global_shard: str

    def in_order(self, names: Collection[str]) -> tuple[str, ...]:
        """Names in the cluster's order."""
        if len(names) == 1:
            return tuple(names)
        return tuple(name for name in self.shards if name in names)

    def named(self, option: str | Sequence[str]) -> Route:
        """The route that the execution option ``shard`` asks for."""
        if option == "*":
            return Route(self.shards, Reason.OPTION)
        names = (option,) if isinstance(option, str) else tuple(option)
        for name in names:
            if name not in self.shards:
                raise UnknownShard(
                    f"the cluster has no shard {name!r}",
                    f"name one of {', '.join(map(repr, self.shards))}, or '*' for all of them",
                    shard=str(name),
                )
        if not names:
            raise UnknownShard("the option shard=() names no shard", "name at least one")
        return Route(self.in_order(set(names)), Reason.OPTION)


def route_of(
    sources: StatementSources,
    territory: Territory,
    values: ValueReader,
    *,
    enlisted: Collection[str] = (),
    locator: Callable[[ShardedSource], tuple[Any, ...] | None] | None = None,
) -> Route:
    """Route a SELECT, UPDATE or DELETE, or an INSERT into a reference or global table.

    :param enlisted: shards whose connections take part in the transaction already.
    :param locator: key of the object that a source's primary key names, None: not known.
    """
    if sources.writes_reference:
        return Route(territory.shards, Reason.EVERY_COPY)
    if not sources.roots:
        return _unsharded_route(sources, territory, enlisted)
    found = [_shards_of(source, territory, values, locator) for source in sources.roots]
    reasons = [reason for _, reason in found]
    constrained = [shards for shards, _ in found if shards]
    if sources.reads_global or sources.writes_global:
        constrained.append(frozenset((territory.global_shard,)))
    if not constrained:
        return Route((_any_of(territory.shards, territory, enlisted),), Reason.NO_MATCH)
    if all(len(shards) == 1 for shards in constrained):
        union = frozenset().union(*constrained)
        return Route(territory.in_order(union), reasons[0])
    union = frozenset().union(*constrained)
    reason = Reason.UNKNOWN_KEY if Reason.UNKNOWN_KEY in reasons else reasons[0]
    return Route(territory.in_order(union), reason)


def _unsharded_route(
    sources: StatementSources, territory: Territory, enlisted: Collection[str]
) -> Route:
    if sources.reads_global or sources.writes_global:
        return Route((territory.global_shard,), Reason.GLOBAL)
    if sources.locks_copies:
        # Where writers of a reference table begin, so that locks of all copies meet there.
        return Route(territory.shards[:1], Reason.LOCKED_COPY)
    if sources.reads_reference:
        return Route((_any_of(territory.shards, territory, enlisted),), Reason.REFERENCE)
    return Route((territory.global_shard,), Reason.NO_TABLE)


def _any_of(shards: Sequence[str], territory: Territory, enlisted: Collection[str]) -> str:
    """A shard that takes part in the transaction already, else the global one."""
    return next((name for name in shards if name in enlisted), territory.global_shard)


def _shards_of(
    source: ShardedSource,
    territory: Territory,
    values: ValueReader,
    locator: Callable[[ShardedSource], tuple[Any, ...] | None] | None,
) -> tuple[frozenset[str], Reason]:
    shard_map = territory.shard_map
    shards = shards_of_bindings(
        source.keyspace, bindings(source.condition, source.width, values), shard_map
    )
    if shards is not None:
        return shards, Reason.KEY
    if locator is not None and source.primary_key is not None:
        key = locator(source)
        if key is not None:
            try:
                return frozenset((shard_map.shard_for(source.keyspace, key),)), Reason.LOCATOR
            except RoutingError:
                pass
    return frozenset(shard_map.shards_of(source.keyspace)), Reason.UNKNOWN_KEY


def shards_of_bindings(
    keyspace: str, found: Bindings, shard_map: ShardMap
) -> frozenset[str] | None:
    """The shards that hold keys; None: it cannot be told."""
    if found is None:
        return None
    shards = set()
    for key in found:
        if UNBOUND in key:
            return None
        try:
            shards.add(shard_map.shard_for(keyspace, key))
        except UnknownShard:
            continue  # no shard holds such a key, so no row has it
        except RoutingError:
            return None
    return frozenset(shards)


def shard_of_row(inserted: InsertedKey, shard_map: ShardMap, values: ValueReader) -> str:
    """The shard of one inserted row.

    :raises MissingShardKey: a part of the key has no value, or one that only SQL knows.
    :raises RoutingError: a value is not of the key column's type.
    """
    key = []
    for column, parameter in zip(inserted.columns, inserted.parameters, strict=True):
        if parameter is None:
            raise MissingShardKey(
                f"the value of shard-key column {inserted.table}.{column} is not known to the "
                "client",
                "give the value itself (of the column's own type, not an SQL expression), one row "
                "per parameter set",
            )
        try:
            value = values.one(parameter)
        except UnknownValue:
            value = None
        except UnusableValue as error:
            raise RoutingError(
                f"the value given for shard-key column {inserted.table}.{column} is of type "
                f"{error.args[0]}, which does not store as it is in a column of kind "
                f"{parameter.key_type.family.value}{_because(error)}",
                "give a value of the column's own type",
            ) from None
        if value is None:
            raise MissingShardKey(
                f"a row for table {inserted.table!r} has no value for its shard key {column!r}",
                "set it before the flush, or give the column a client-side default",
            )
        key.append(value)
    return shard_map.shard_for(inserted.keyspace, tuple(key))


def _because(error: UnusableValue) -> str:
    return f": {error.args[1]}" if len(error.args) > 1 else ""
