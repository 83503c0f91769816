"""The arguments of a cluster, refused where they are not what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.keyspace import Keyspace

from .timeouts import Timeouts

if TYPE_CHECKING:
    from sqlalchemy_shards.connections.shard import Shard


def check_kinds(shards: Any, keyspaces: Any, timeouts: Any) -> None:
    """Refuse what is easily mistaken for what is meant."""
    check_names(shards)
    is_named = isinstance(keyspaces, Mapping)
    given = list(keyspaces.values()) if is_named else [keyspaces]
    for wrong in (each for each in given if not (is_named and isinstance(each, Keyspace))):
        raise ConfigurationError(
            f"keyspaces holds a {type(wrong).__name__}, not keyspaces by their names",
            'write {"default": Keyspace(partitioner)}',
        )
    if not isinstance(timeouts, Timeouts | None):
        raise ConfigurationError(
            f"timeouts is a {type(timeouts).__name__}", "write Timeouts(statement_seconds=...)"
        )


def check_names(shards: Any) -> None:
    """Refuse shards that are not a mapping of names."""
    if not isinstance(shards, Mapping):
        raise ConfigurationError(
            f"the shards are a {type(shards).__name__}",
            'name them: {"s0": "postgresql+psycopg://...", "s1": ...}',
        )


def existing(name: str | None, shards: Mapping[str, Shard]) -> str:
    """The shard that is named, or the first."""
    if name is None:
        return next(iter(shards))
    if name not in shards:
        raise ConfigurationError(
            f"global_shard={name!r} is not a shard of the cluster",
            f"name one of {', '.join(map(repr, shards))}",
            shard=name,
        )
    return name


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """A value that is one of the choices."""
    if value not in choices:
        raise ConfigurationError(
            f"{name}={value!r} is not a choice", f"use one of {', '.join(map(repr, choices))}"
        )
    return value


def refuse_what_is_to_come(multi_shard_writes: Any) -> None:
    """Refuse what is known and not there yet."""
    if multi_shard_writes == "non_atomic":
        raise ConfigurationError(
            'multi_shard_writes="non_atomic" is not available yet',
            'use "atomic" (which needs max_prepared_transactions above 0) or "refuse"',
        )
    one_of("multi_shard_writes", multi_shard_writes, ("atomic", "refuse"))
