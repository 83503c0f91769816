"""A target that counts from where a shard is, as ``+1``: it has to mean the same on every shard.

- All shards are looked at before one is changed: a command that stops in the middle could not be
  given again, since it would count anew on those that it has changed.
- A shard that has another revision by then, when its turn comes or comes again, is refused: what it
  would count now is not what was asked for.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from alembic.util import CommandError

from sqlalchemy_shards._compat.alembic import command_of
from sqlalchemy_shards.migrations.relative import is_relative
from sqlalchemy_shards.migrations.turns.place import place_of
from sqlalchemy_shards.migrations.turns.run import connected
from sqlalchemy_shards.migrations.turns.version_table import revisions_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import psycopg
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext

    from sqlalchemy_shards.migrations.env.invocation import Invocation


@contextmanager
def counted_once(invocation: Invocation, shards: Sequence[str]) -> Iterator[None]:
    """Let the command at hand count the same revisions on each of some shards, or refuse it.

    :raises CommandError: before a shard is changed, with two of them that differ; within the block,
        on a shard that has moved.
    """
    environment = invocation.environment
    if not _counts(environment):
        yield
        return
    options = environment.context_opts
    function, target = options["fn"], options["destination_rev"]
    seen: dict[str, tuple[str, ...]] = {}
    if len(shards) > 1:
        seen = {shard: _revisions(invocation, shard) for shard in shards}
        _refuse_differences(seen, target, function)

    @wraps(function)
    def from_there(heads: tuple[str, ...], context: MigrationContext) -> Iterable[Any]:
        place = place_of(context)
        assert place is not None
        before = seen.setdefault(place.shard, heads)
        if set(before) != set(heads):
            raise CommandError(
                f"shard {place.shard!r} is at {_told(heads)} by now, and {target} was counted from"
                f" {_told(before)}; name the revision that it shall have"
            )
        steps: Iterable[Any] = function(heads, context)
        return steps

    options["fn"] = from_there
    try:
        yield
    finally:
        options["fn"] = function


def _counts(environment: EnvironmentContext) -> bool:
    target = environment.context_opts.get("destination_rev")
    is_moving = command_of(environment) in ("upgrade", "downgrade")
    return is_moving and isinstance(target, str) and is_relative(target)


def _revisions(invocation: Invocation, shard: str) -> tuple[str, ...]:
    with connected(invocation.cluster, shard) as turn:
        driver: psycopg.Connection[Any] = turn.connection.connection.driver_connection  # type: ignore[assignment]
        return revisions_in(driver, invocation.options)


def _refuse_differences(
    seen: dict[str, tuple[str, ...]], target: str, function: Callable[..., Iterable[Any]]
) -> None:
    meant = {heads: _steps(function, heads) for heads in set(seen.values())}
    first, *others = seen
    for other in others:
        if meant[seen[other]] != meant[seen[first]]:
            raise CommandError(
                f"{target} would mean different revisions: shard {first!r} is at"
                f" {_told(seen[first])}, shard {other!r} at {_told(seen[other])}; no shard was"
                " changed; name the revision that all of them shall have, or one shard by"
                f" -x shard={other}"
            )


def _steps(function: Callable[..., Iterable[Any]], heads: tuple[str, ...]) -> object:
    """What would be done with a shard, or what Alembic says against it."""
    try:
        infos = [step.info for step in function(heads, None)]
    except CommandError as error:
        return str(error)
    return [(info.is_upgrade, info.up_revision_id) for info in infos]


def _told(heads: Sequence[str]) -> str:
    return ", ".join(sorted(heads)) or "base"
