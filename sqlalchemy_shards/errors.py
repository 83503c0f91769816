"""One tree of errors.

Every error says what happened, where, and what to do next; none carries a password or a row's
values. The shard, statement or gid that it speaks of is an attribute, so that a program can act on
it without reading the sentence. Every error can be pickled, and says through ``is_retryable``
whether running the same transaction again is safe.

`docs/errors.md` has a section for each class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class ShardsError(SQLAlchemyError):
    """Base of all errors of this package.

    :param problem: what happened, one sentence, lower-case start, no full stop.
    :param advice: what to do about it, same form.
    :param shard: name of the shard that the error speaks of.
    :param statement: SQL text of the statement that it speaks of.
    :param gid: identifier of the distributed transaction that it speaks of.
    :param shard_errors: shard name -> the error raised there, where several shards failed.
    """

    is_retryable: bool = False
    """Whether running the same transaction again, from its beginning, is safe and may succeed."""

    def __init__(
        self,
        problem: str,
        advice: str,
        *,
        shard: str | None = None,
        statement: str | None = None,
        gid: str | None = None,
        shard_errors: Mapping[str, BaseException] | None = None,
    ) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem
        self.advice = advice
        self.shard = shard
        self.statement = statement
        self.gid = gid
        self.shard_errors = dict(shard_errors or {})

    def __reduce__(self) -> tuple[Callable[..., ShardsError], tuple[Any, ...]]:
        # The errors of the shards are left behind: a driver's errors need not be picklable.
        state = {name: value for name, value in vars(self).items() if name != "shard_errors"}
        return _rebuild, (type(self), state)


def _rebuild(cls: type[ShardsError], state: dict[str, Any]) -> ShardsError:
    error = cls.__new__(cls)
    ShardsError.__init__(error, state["problem"], state["advice"])
    error.__dict__.update(state)
    return error


class ConfigurationError(ShardsError):
    """Models, shards or keyspaces are declared in a way that cannot work.

    :param faults: every fault that was found, one sentence each.
    """

    def __init__(
        self,
        problem: str,
        advice: str,
        *,
        faults: Sequence[str] = (),
        shard: str | None = None,
        shard_errors: Mapping[str, BaseException] | None = None,
    ) -> None:
        if faults:
            problem = problem + "".join(f"\n  - {fault}" for fault in faults) + "\n"
        super().__init__(problem, advice, shard=shard, shard_errors=shard_errors)
        self.faults = tuple(faults)


class RoutingError(ShardsError):
    """It cannot be told to which shards a statement or object belongs."""


class MissingShardKey(RoutingError):
    """A row or statement has no usable value for its shard key."""


class ScatterNotAllowed(RoutingError):
    """A statement would go to several shards, which was not asked for or is switched off."""


class UnknownShard(RoutingError):
    """A shard was named that the cluster does not have, or a key maps to none."""


class RowRefused(ShardsError):
    """A row that was given in bulk cannot be stored. ``row`` is its number, from 1."""

    row: int | None = None


class UnsupportedStatement(ShardsError):
    """The statement cannot be answered over several shards exactly as one PostgreSQL would."""


class GatherLimitExceeded(ShardsError):
    """More rows or bytes would have to be brought together than the limit allows."""


class ShardKeyChanged(ShardsError):
    """A row's shard key was to be changed in place, leaving the row on the shard of the old one."""


class TransactionAborted(ShardsError):
    """The transaction was rolled back on every shard. Nothing of it was committed."""


class SnapshotsDiffer(TransactionAborted):
    """Snapshots of several shards did not come to show the same; nothing of the transaction ran.

    :param shards: names of the shards that do not show yet what others show.
    """

    is_retryable = True

    def __init__(
        self, problem: str, advice: str, *, shards: Sequence[str], gid: str | None = None
    ) -> None:
        super().__init__(problem, advice, shard=shards[0], gid=gid)
        self.shards = tuple(shards)


class TransactionInDoubt(ShardsError):
    """A distributed transaction is not finished on every shard; ``gid`` names it."""


class TransactionUnfinished(TransactionInDoubt, UserWarning):
    """The transaction *is* committed; the shards in ``unfinished`` are finished by recovery.

    A warning category too: by default it is warned, not raised.

    :param unfinished: names of the shards whose part is prepared and will be committed.
    """

    def __init__(
        self,
        problem: str,
        advice: str,
        *,
        unfinished: Sequence[str] = (),
        gid: str | None = None,
        shard_errors: Mapping[str, BaseException] | None = None,
    ) -> None:
        super().__init__(problem, advice, gid=gid, shard_errors=shard_errors)
        self.unfinished = tuple(unfinished)


class TransactionOutcomeUnknown(TransactionInDoubt):
    """It is not known whether the transaction was committed: never run it again unasked.

    ``cluster.outcome(gid)`` settles it.
    """


class MigrationFailed(ShardsError):
    """Some shard could not be migrated, or had no turn because another could not.

    :param report: what became of each shard, a `MigrationReport`.
    """

    def __init__(self, problem: str, advice: str, *, report: Any) -> None:
        super().__init__(problem, advice)
        self.report = report


class ShardUnavailable(ShardsError):
    """A shard cannot be reached. Nothing was committed by the call that raised this."""

    is_retryable = True


class MigrationBlocked(ShardsError):
    """A shard was not migrated, since another migration or a long transaction is in the way.

    What had been begun there was rolled back; revisions that were committed before stay.
    """

    is_retryable = True


class StaleShardMap(ShardsError):
    """The shard no longer owns the bucket: this process has an old shard map."""

    is_retryable = True
