"""Running a transaction again where that is safe: `run_transaction`, `run_async_transaction`.

- Over asyncio the same attempts run in a greenlet; the user's coroutine is awaited from there.
- Every attempt has a session of its own, which is closed at its end.
- Nothing is run again once anything of it may be committed: not after a commit, not where its
  outcome is unknown until that is settled, not where a connection was lost in COMMIT.
- Bounded in attempts and in time.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import tenacity
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import greenlet_spawn

from sqlalchemy_shards._compat import await_only
from sqlalchemy_shards.cluster.arguments import DECISION_RETENTION_MIN
from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.errors import ConfigurationError, ShardsError, TransactionOutcomeUnknown
from sqlalchemy_shards.transactions.retryable import may_run_again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

SessionT = TypeVar("SessionT", bound="Session")
AsyncSessionT = TypeVar("AsyncSessionT", bound="AsyncSession")
T = TypeVar("T")

RETRIES: Final = 5
SECONDS: Final = 120.0
ASKING_SECONDS_MAX: Final = 300.0
"""How long an outcome is asked for at most: well below the shortest ``decision_retention``, after
which a transaction that recovery has finished would be taken for aborted."""
PAUSE_SECONDS_FIRST: Final = 0.05
PAUSE_SECONDS_MAX: Final = 2.0

_log = logging.getLogger(__name__)


def run_transaction(
    session_factory: Callable[[], SessionT],
    function: Callable[[SessionT], T],
    *,
    retries: int = RETRIES,
    seconds: float = SECONDS,
) -> T:
    """Run a function in a transaction, commit it, and run it again where it failed but may pass.

    Run again are: serialization failures, deadlocks, waits for a lock that took too long,
    `TransactionAborted` and other errors of ours that are retryable, and connections that were lost
    before the commit. Where the outcome of a commit is unknown, it is asked for: committed is
    committed, aborted is run again, and otherwise the error is raised. Between two attempts there
    is a pause of random length, at most 2 seconds.

    :param session_factory: makes a session, as a ``sessionmaker`` does; each attempt has its own,
        which is closed when it ends. Of a session within an outer transaction (bound to a
        connection) nothing is run again.
    :param function: is given the session and does the work. It may be run several times, so what it
        does beside the session must do no harm when repeated. If it commits the session itself,
        nothing is run again after that.
    :param retries: how often it may be run again.
    :param seconds: after which it is not begun again, and an unknown outcome no longer asked for.
    :returns: what the function returned in the attempt that was committed. Objects of the session
        are detached by then.
    :raises ConfigurationError: an argument is not what it should be.
    :raises TransactionOutcomeUnknown: it may be committed, and nobody can tell yet.
    :raises TransactionUnfinished: it is committed, on a cluster with ``on_unfinished="raise"``.
    :raises Exception: of the last attempt, as it came; nothing of it was committed, unless it is a
        connection that was lost in the commit of one shard.
    """
    _check(session_factory, retries, seconds)
    attempt = _Attempt(session_factory, function, seconds)
    return tenacity.Retrying(**attempt.policy(retries))(attempt.run)


async def run_async_transaction(
    session_factory: Callable[[], AsyncSessionT],
    function: Callable[[AsyncSessionT], Awaitable[T]],
    *,
    retries: int = RETRIES,
    seconds: float = SECONDS,
) -> T:
    """Run a coroutine in a transaction, commit it, and run it again where it failed but may pass.

    All is as in `run_transaction`. A task that is cancelled runs nothing again: what was not
    committed is rolled back.

    :param session_factory: makes an asyncio session, as an ``async_sessionmaker`` does.
    :param function: an ``async def`` function that is given the session and does the work.
    """
    _check(session_factory, retries, seconds)
    attempt = _AsyncAttempt(session_factory, function, seconds)
    return await greenlet_spawn(tenacity.Retrying(**attempt.policy(retries)), attempt.run)


class _Attempt(Generic[SessionT, T]):
    """The state of one `run_transaction`."""

    def __init__(
        self,
        session_factory: Callable[[], SessionT],
        function: Callable[[SessionT], T],
        seconds: float,
    ) -> None:
        self._session_factory = session_factory
        self._function = function
        self._seconds = seconds
        self._is_safe = False
        self._is_committing = False
        self._has_committed = False
        self._committing_since = 0.0

    def policy(self, retries: int) -> dict[str, Any]:
        """How attempts follow each other, as tenacity's loops take it."""
        return {
            "retry": tenacity.retry_if_exception(lambda error: self._is_safe),
            "stop": tenacity.stop_after_attempt(retries + 1)
            | tenacity.stop_before_delay(self._seconds),
            "wait": _PAUSE,
            "before_sleep": _tell,
            "sleep": sleep,
            "reraise": True,
        }

    def run(self) -> T:
        self._is_safe = self._has_committed = self._is_committing = False
        session = self._begin()
        try:
            with self._closing(session):
                event.listen(session, "after_commit", self._note_commit)
                value = self._work(session)
                session.flush()
                self._is_committing = True
                self._committing_since = time.time()
                session.commit()
        except TransactionOutcomeUnknown as error:
            # Where the function itself had committed, there is no value to return.
            if not self._is_committing or not self._was_committed(session, error):
                raise
        except Exception as error:
            self._is_safe = self._may_run_again(session, error)
            raise
        return value

    def _begin(self) -> SessionT:
        session = self._session_factory()
        if isinstance(session, AsyncSession):
            raise ConfigurationError(
                "run_transaction() was given a factory of asyncio sessions",
                "await run_async_transaction() with it",
            )
        return session

    def _closing(self, session: SessionT) -> AbstractContextManager[object]:
        return session

    def _work(self, session: SessionT) -> T:
        return self._function(session)

    def _note_commit(self, session: Session) -> None:
        # It is called for savepoints, too.
        self._has_committed = self._has_committed or not session.in_nested_transaction()

    def _may_run_again(self, session: Session, error: Exception) -> bool:
        if self._has_committed or isinstance(session.bind, Connection):
            return False
        return may_run_again(error, is_committing=self._is_committing)

    def _was_committed(self, session: Session, unknown: TransactionOutcomeUnknown) -> bool:
        """Find out what became of the commit; note whether the transaction may be run again."""
        asking = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda outcome: outcome == "unknown"),
            stop=tenacity.stop_before_delay(min(self._seconds, ASKING_SECONDS_MAX)),
            wait=_PAUSE,
            sleep=sleep,
            retry_error_callback=lambda state: "unknown",
        )
        outcome = asking(_outcome, session, unknown)
        # No trace means aborted only as long as nobody removes decisions. By the clock that goes on
        # while the machine sleeps, unlike that of the pauses.
        is_believed = time.time() - self._committing_since < DECISION_RETENTION_MIN.total_seconds()
        self._is_safe = outcome == "aborted" and is_believed and not self._has_committed
        return bool(outcome == "committed")


class _AsyncAttempt(_Attempt["Session", T], Generic[AsyncSessionT, T]):
    """The state of one `run_async_transaction`, in whose greenlet it is."""

    def __init__(
        self,
        session_factory: Callable[[], AsyncSessionT],
        function: Callable[[AsyncSessionT], Awaitable[T]],
        seconds: float,
    ) -> None:
        super().__init__(self._make, self._await, seconds)
        self._async_factory = session_factory
        self._coroutine_function = function
        self._made: AsyncSessionT

    def _make(self) -> Session:
        self._made = self._async_factory()
        if not isinstance(self._made, AsyncSession):
            raise ConfigurationError(
                f"run_async_transaction() was given a factory of {type(self._made).__name__}",
                "give it an async_sessionmaker, or use run_transaction()",
            )
        return self._made.sync_session

    @contextmanager
    def _closing(self, session: Session) -> Iterator[None]:
        try:
            yield
        finally:
            # A task of its own, as SQLAlchemy's session has it: a cancellation that is repeated
            # does not cut the rollback short.
            await_only(asyncio.shield(asyncio.ensure_future(self._made.close())))

    def _await(self, session: Session) -> T:
        awaitable = self._coroutine_function(self._made)
        if not inspect.isawaitable(awaitable):
            raise ConfigurationError(
                "the function that run_async_transaction() was given returns no awaitable",
                "make it an async def function, or use run_transaction()",
            )
        return await_only(awaitable)


_PAUSE: Final = tenacity.wait_random_exponential(
    multiplier=PAUSE_SECONDS_FIRST, max=PAUSE_SECONDS_MAX
)


def _outcome(session: Any, unknown: TransactionOutcomeUnknown) -> str:
    cluster = getattr(session, "cluster", None) or session.get_bind().dialect.cluster
    if unknown.gid is None:
        return "unknown"
    try:
        outcome = str(cluster.outcome(unknown.gid))
        if outcome != "unknown":
            # Or the next attempt would wait for the locks of this one's prepared parts.
            cluster.recover(gid=unknown.gid)
    except ShardsError:
        return "unknown"
    return outcome


def _tell(state: tenacity.RetryCallState) -> None:
    error = None if state.outcome is None else state.outcome.exception()
    _log.info("the transaction is run again after attempt %d: %r", state.attempt_number, error)


def _check(session_factory: Any, retries: int, seconds: float) -> None:
    if not callable(session_factory):
        raise ConfigurationError(
            f"run_transaction() was given a {type(session_factory).__name__} to make sessions with",
            "give it a sessionmaker, since each attempt has a session of its own",
        )
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ConfigurationError(f"retries={retries!r} is no number of retries", "give 0 or more")
    if not seconds > 0:
        raise ConfigurationError(f"seconds={seconds!r} is no time", "give more than 0")
