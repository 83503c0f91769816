"""The arguments of a cluster, refused where they are not what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.keyspace import Keyspace

from .timeouts import Timeouts

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from sqlalchemy_shards.connections.shard import Shard


DECISION_RETENTION_MIN: Final = timedelta(minutes=10)
"""Whoever was left with an unknown outcome must have time to ask for it."""


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


def are_async(engines: Mapping[str, Engine]) -> bool:
    """Whether the shards' engines wait on asyncio's event loop: all of them, or none."""
    kinds = {name: engine.dialect.is_async for name, engine in engines.items()}
    if len(set(kinds.values())) > 1:
        names = ", ".join(repr(name) for name, is_async in kinds.items() if is_async)
        raise ConfigurationError(
            f"only shards {names} have engines for asyncio",
            "make the engines of all shards alike",
        )
    return any(kinds.values())


def checked_retention(retention: Any) -> timedelta:
    """How long the records of decisions are kept, if that is long enough."""
    if not isinstance(retention, timedelta) or retention < DECISION_RETENTION_MIN:
        raise ConfigurationError(
            f"decision_retention={retention!r} is too short or no time",
            f"give a timedelta of at least {DECISION_RETENTION_MIN.seconds // 60} minutes: what"
            " became of a commit could not be asked for after it",
        )
    return retention


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


def one_of(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
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
