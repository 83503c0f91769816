"""What a run is asked to do, checked before anything begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.errors import ConfigurationError, UnknownShard
from sqlalchemy_shards.migrations.relative import is_relative
from sqlalchemy_shards.migrations.turns.bounds import Bounds
from sqlalchemy_shards.migrations.workers.alembic_settings import AlembicSettings
from sqlalchemy_shards.migrations.workers.messages import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy_shards.migrations.workers.addresses import Addresses
    from sqlalchemy_shards.migrations.workers.messages import Command
    from sqlalchemy_shards.migrations.workers.schedule import OnFailure

PARALLEL_MAX: Final = 8
"""How many workers there are at most, unless another number is asked for."""

_OWN: Final = MappingProxyType({"shard": "--shard", "shards": "--shard", "atomic": "--atomic"})
"""What ``-x`` says to us, and a run is told otherwise."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes through the shards.

    :param shards: names of those that are meant; None: all.
    :param parallel: how many shards are migrated at once, each by a process of its own, which has
        one connection at a time; None: as many as there are shards, but at most 8.
    :param canary: a shard that goes first; the rest follows if it succeeds.
    :param pause: seconds between the canary and the rest; or a function that is asked whether the
        rest is to follow.
    :param on_failure: whether a failure keeps shards that have not begun from beginning.
    :param alembic: where Alembic's configuration is, ``-x`` and ``--tag``.
    :param bounds: how long the migrations of a shard wait; they win over those of ``env.py``.
    """

    shards: Sequence[str] | None = None
    parallel: int | None = None
    canary: str | None = None
    pause: float | Callable[[], bool] | None = None
    on_failure: OnFailure = "stop"
    alembic: AlembicSettings = field(default_factory=AlembicSettings)
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class Order:
    """What a run does.

    :param addresses: all shards of the configuration.
    :param shards: those that are meant, in the order of the cluster.
    """

    job: Job
    addresses: Addresses
    shards: tuple[str, ...]
    parallel: int
    canary: str | None
    pause: float | Callable[[], bool] | None
    on_failure: OnFailure


def order_of(
    addresses: Addresses,
    command: Command,
    revisions: tuple[str, ...],
    options: RunOptions,
    *,
    purge: bool = False,
) -> Order:
    """Check what is asked for.

    :raises UnknownShard: a shard is named that the cluster does not have.
    :raises ConfigurationError: the target is another one for each shard; a number is too small; a
        canary is no shard that is meant.
    """
    for revision in revisions:
        _refuse_relative(revision)
    refuse_own_arguments(options.alembic)
    known = tuple(addresses.shards)
    shards = _meant(options.shards, known)
    if options.canary is not None and options.canary not in shards:
        _meant([options.canary], known)
        raise ConfigurationError(
            f"the canary {options.canary!r} is not among the shards that are to be migrated",
            f"name one of them: {', '.join(shards)}",
        )
    parallel = min(len(shards), PARALLEL_MAX) if options.parallel is None else options.parallel
    if parallel < 1:
        raise ConfigurationError(f"parallel is {parallel}", "let at least one worker work")
    return Order(
        Job(command, revisions, options.alembic, purge, bounds=options.bounds),
        addresses,
        shards,
        parallel,
        options.canary,
        options.pause,
        options.on_failure,
    )


def _meant(named: Sequence[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    for shard in named or ():
        if shard not in known:
            raise UnknownShard(
                f"there is no shard {shard!r}", f"name one of: {', '.join(known)}", shard=shard
            )
    return known if named is None else tuple(shard for shard in known if shard in named)


def refuse_own_arguments(settings: AlembicSettings) -> None:
    """Refuse ``-x`` that says to us what a run is told otherwise.

    :raises ConfigurationError: there is one.
    """
    for argument in settings.x:
        name = argument.partition("=")[0]
        if name in _OWN:
            raise ConfigurationError(
                f"-x {argument} is for Alembic's own command", f"a run takes {_OWN[name]} instead"
            )


def _refuse_relative(revision: str) -> None:
    """A shard that is there would be moved on once more when a run is repeated."""
    if is_relative(revision):
        raise ConfigurationError(
            f"the revision {revision!r} is relative to where each shard is, so that a run could not"
            " be repeated after a failure",
            "name the revision that all shards shall have",
        )
