"""A shard's turn, told of while it goes on.

The turn reports what it finds, each revision, and how it ended; a failure ends there, so that the
next shard can have its turn. What is told of a version table was read from it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alembic.util import to_tuple

from sqlalchemy_shards.migrations.turns.origin import INTERRUPTIONS
from sqlalchemy_shards.migrations.workers.messages import Applied, Began, Done, Failed, in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from alembic.runtime.migration import MigrationContext, MigrationInfo

    from sqlalchemy_shards.migrations.turns.run import Turn
    from sqlalchemy_shards.migrations.workers.messages import Job, Message


class WatchedTurn:
    """A turn that tells what happens in it, and swallows its failure.

    `open` it before it is entered: what fails there is not swallowed.

    :param tell: is called with messages.
    """

    def __init__(
        self,
        shard: str,
        turn: AbstractContextManager[Turn],
        tell: Callable[[Message], None],
        job: Job,
    ) -> None:
        self._shard = shard
        self._turn = turn
        self._tell = tell
        self._job = job
        self._opened: Turn | None = None
        self._context: MigrationContext | None = None
        self._steps: Sequence[str] = ()
        self._applied = 0

    def open(self) -> None:
        """Enter the turn: connect, and whatever else it takes."""
        self._opened = self._turn.__enter__()

    def __enter__(self) -> Turn:
        if self._opened is None:
            raise RuntimeError("the turn is not open")
        told = to_tuple(self._opened.options.get("on_version_apply"), ())
        options = {**self._opened.options, "on_version_apply": (*told, self._on_step)}
        return replace(self._opened, options=options, is_due=self._is_due)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        after = self._heads()
        try:
            is_swallowed = self._turn.__exit__(kind, error, trace)
        except Exception as raised:
            kind, error, is_swallowed = type(raised), raised, False
        if error is None:
            self._tell(Done(self._shard, after or ()))
            return False
        if not is_swallowed:
            self._tell(self._failure(error, after))
        return not isinstance(error, (*INTERRUPTIONS, GeneratorExit))

    def _is_due(self, context: MigrationContext) -> bool:
        """Tell what the shard needs; whether that is anything."""
        self._context = context
        if self._opened is None or not self._opened.is_due(context):
            return False
        before = context.get_current_heads()
        # What Alembic will ask once more; it only looks at the revisions.
        steps = [step.info for step in context.opts["fn"](before, context)]
        self._steps = tuple(str(step.up_revision_id) for step in steps)
        is_due = any(_moves(step) for step in steps) or self._job.is_purging
        self._tell(Began(self._shard, before, self._steps if is_due else ()))
        return is_due

    def _on_step(self, *, step: MigrationInfo, **further: Any) -> None:
        del further
        self._applied += 1
        self._tell(Applied(self._shard, str(step.up_revision_id)))

    def _heads(self) -> tuple[str, ...] | None:
        """What the version table says when all is committed or rolled back; None: nobody knows."""
        if self._opened is None or self._context is None:
            return None
        connection = self._opened.connection
        with suppress(Exception):
            connection.rollback()
            heads = self._context.get_current_heads()
            connection.rollback()
            return heads
        return None

    def _failure(self, error: BaseException, after: tuple[str, ...] | None) -> Failed:
        revision = self._steps[self._applied] if self._applied < len(self._steps) else None
        is_interrupted = isinstance(error, INTERRUPTIONS)
        said = "interrupted" if is_interrupted else in_one_line(error)
        return Failed(self._shard, said, revision, after, is_interrupted)


def _moves(step: MigrationInfo) -> bool:
    """Whether a step leads anywhere: one that stamps may lead to where the shard is."""
    return step.source_revision_ids != step.destination_revision_ids
