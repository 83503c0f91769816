"""Sources and the values of one execution -> `Route`.

Pure: the shard map, the options and what the connection knows come in as arguments. The order of
the checks is the order of authority: one shard, an option, the key, the locator, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy_shards.errors import MissingShardKey, RoutingError, UnknownShard
from sqlalchemy_shards.topology.key_regions import UNBOUND, InBucket, Interval

from .conditions import UnknownValue, UnusableValue, regions
from .route import Reason, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy_shards.topology.key_regions import Region
    from sqlalchemy_shards.topology.shard_map import ShardMap

    from .conditions import Regions, ValueReader
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
    :param unknown: shards that are being added to the cluster, and that this process does not know.
    """

    shards: tuple[str, ...]
    shard_map: ShardMap
    global_shard: str
    unknown: frozenset[str] = frozenset()

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
    may_be_empty: bool = False,
) -> Route:
    """Route a SELECT, UPDATE or DELETE, or an INSERT into a reference or global table.

    :param enlisted: shards whose connections take part in the transaction already.
    :param locator: key of the object that a source's primary key names, None: not known.
    :param may_be_empty: let the route name no shard where none can hold a matching row; else one
        shard is asked all the same.
    """
    if sources.writes_reference:
        return Route(territory.shards, Reason.EVERY_COPY)
    if not sources.roots:
        return _unsharded_route(sources, territory, enlisted)
    is_global = sources.reads_global or sources.writes_global
    if len(sources.roots) == 1 and not is_global:
        shards, reason = _shards_of(sources.roots[0], territory, values, locator)
        if shards:
            return Route(territory.in_order(shards), reason)
    found = [_shards_of(source, territory, values, locator) for source in sources.roots]
    union = frozenset().union(*(shards for shards, _ in found))
    if is_global:
        union |= {territory.global_shard}
    if not union:
        spare = _any_of(territory.shards, territory, enlisted)
        route = Route((), Reason.NO_MATCH, spare)
        return route if may_be_empty else route.asked()
    reasons = [reason for shards, reason in found if shards] or [Reason.NO_MATCH]
    return Route(territory.in_order(union), vaguest(reasons))


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


_VAGUENESS: Final = (
    Reason.NO_MATCH,
    Reason.LOCATOR,
    Reason.KEY,
    Reason.BUCKET,
    Reason.RANGE,
    Reason.PART,
    Reason.UNKNOWN_KEY,
)
"""Of several reasons, the last one here is told."""


def vaguest(reasons: Collection[Reason]) -> Reason:
    """Of several reasons, the one that is told; those of sharded tables come before others."""
    return max(reasons, key=lambda reason: _VAGUENESS.index(reason) if reason in _VAGUENESS else -1)


def _shards_of(
    source: ShardedSource,
    territory: Territory,
    values: ValueReader,
    locator: Callable[[ShardedSource], tuple[Any, ...] | None] | None,
) -> tuple[frozenset[str], Reason]:
    shard_map = territory.shard_map
    known = shards_of_regions(
        source.keyspace, regions(source.condition, source.width, values), shard_map
    )
    if known is not None and known[1] in (Reason.KEY, Reason.BUCKET):
        return known
    if locator is not None and source.primary_key is not None:
        key = locator(source)
        if key is not None:
            try:
                return frozenset((shard_map.shard_for(source.keyspace, key),)), Reason.LOCATOR
            except RoutingError:
                pass
    everywhere = frozenset(shard_map.shards_of(source.keyspace))
    if known is None or known[0] == everywhere:
        return everywhere, Reason.UNKNOWN_KEY
    return known


def shards_of_regions(
    keyspace: str, found: Regions, shard_map: ShardMap
) -> tuple[frozenset[str], Reason] | None:
    """The shards that can hold keys of regions, and what tells it; None: it cannot be told."""
    if found is None:
        return None
    single = _single_values(found)
    if single is not None:
        homes = shard_map.shards_of_values(keyspace, single)
        if homes is None:
            return None
        return frozenset(home for home in set(homes) if home is not None), Reason.KEY
    shards: set[str] = set()
    reason = Reason.KEY
    for region in found:
        vague = _vagueness(region)
        if vague is Reason.KEY:
            try:
                key = region[:-1] if type(region[-1]) is InBucket else region
                shards.add(shard_map.shard_for(keyspace, key))
            except UnknownShard:
                continue  # no shard holds such a key, so no row has it
            except RoutingError:
                return None
            continue
        within = shard_map.shards_within(keyspace, region)
        if within is None:
            return None
        shards |= within
        reason = max(reason, vague, key=_VAGUENESS.index)
    return frozenset(shards), reason


def _single_values(found: set[Region]) -> list[Any] | None:
    """The values of regions that are keys of one part each, None: some of them are others."""
    if len(found) < 2 or set(map(len, found)) != {1}:
        return None
    values = [part for (part,) in found]
    return None if _NO_VALUES.intersection(map(type, values)) else values


_NO_VALUES: Final = frozenset({type(UNBOUND), Interval, InBucket})


def _vagueness(region: Region) -> Reason:
    """What a region says of its keys; that it is one key, where it is."""
    vague = Reason.KEY
    for part in region:
        if part is UNBOUND:
            if vague is Reason.KEY:
                vague = Reason.PART
        elif type(part) is Interval:
            vague = Reason.RANGE
        elif type(part) is InBucket and vague is not Reason.KEY:
            vague = Reason.BUCKET
    return vague


NO_KEY_ADVICE: Final = "set it before the flush, or give the column a client-side default"
"""What to do where a row that is inserted has no value for its shard key."""


def shard_of_row(
    inserted: InsertedKey, shard_map: ShardMap, values: ValueReader, row: int | None = None
) -> str:
    """The shard of one inserted row, as `key_of_row` finds it."""
    return shard_map.shard_for(inserted.keyspace, key_of_row(inserted, values, row))


def key_of_row(
    inserted: InsertedKey, values: ValueReader, row: int | None = None
) -> tuple[Any, ...]:
    """The shard key of one inserted row.

    :param row: which row of a VALUES list.
    :raises MissingShardKey: a part of the key has no value, or one that only SQL knows.
    :raises RoutingError: a value is not of the key column's type.
    """
    if inserted.lies_beside:
        raise MissingShardKey(
            f"a row for table {inserted.table!r} has no shard key of its own, but lies beside the "
            "row that it names",
            "insert one row per parameter set, or say where it is with "
            "execution_options(shard_key=(Model, key))",
        )
    key = []
    parameters = inserted.parameters if row is None else inserted.rows[row]
    for column, parameter in zip(inserted.columns, parameters, strict=True):
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
                NO_KEY_ADVICE,
            )
        key.append(value)
    return tuple(key)


def _because(error: UnusableValue) -> str:
    return f": {error.args[1]}" if len(error.args) > 1 else ""
