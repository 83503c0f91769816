from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg
from sqlalchemy import exc
from sqlalchemy.exc import DBAPIError, OperationalError

from sqlalchemy_shards.connections.fan_out import DeadlineExceeded
from sqlalchemy_shards.errors import (
    ShardUnavailable,
    TransactionAborted,
    TransactionOutcomeUnknown,
    TransactionUnfinished,
)
from sqlalchemy_shards.transactions.retryable import may_run_again


def wrapped(error: Exception, *, invalidated: bool = False) -> DBAPIError:
    return OperationalError("SELECT 1", {}, error, connection_invalidated=invalidated)


def aborted(*, is_retryable: bool) -> TransactionAborted:
    error = TransactionAborted("it was", "see")
    error.is_retryable = is_retryable
    return error


ALWAYS = [
    wrapped(pg.SerializationFailure()),
    wrapped(pg.DeadlockDetected()),
    wrapped(pg.LockNotAvailable()),
    aborted(is_retryable=True),
    ShardUnavailable("it is down", "wait"),
]
BEFORE_THE_COMMIT = [
    wrapped(psycopg.OperationalError("the connection is closed"), invalidated=True),
    wrapped(psycopg.OperationalError("consuming input failed")),
    wrapped(pg.AdminShutdown(), invalidated=True),
    wrapped(pg.CannotConnectNow()),
    wrapped(pg.ConnectionFailure()),
]
NEVER = [
    ValueError("of the application"),
    wrapped(pg.UniqueViolation()),
    wrapped(pg.QueryCanceled()),
    wrapped(DeadlineExceeded("the deadline passed")),
    wrapped(pg.UndefinedTable()),
    aborted(is_retryable=False),
    TransactionUnfinished("it is committed", "wait"),
    TransactionOutcomeUnknown("nobody knows", "ask"),
    exc.TimeoutError("the pool is used up"),
]


@pytest.mark.parametrize("error", ALWAYS, ids=repr)
def test_what_is_rolled_back_and_may_pass_is_run_again(error: Exception) -> None:
    assert may_run_again(error, is_committing=False)
    assert may_run_again(error, is_committing=True)


@pytest.mark.parametrize("error", BEFORE_THE_COMMIT, ids=repr)
def test_a_lost_connection_says_nothing_in_the_commit(error: Exception) -> None:
    assert may_run_again(error, is_committing=False)
    assert not may_run_again(error, is_committing=True)


@pytest.mark.parametrize("error", NEVER, ids=repr)
def test_what_would_fail_again_or_is_committed_is_not_run_again(error: Exception) -> None:
    assert not may_run_again(error, is_committing=False)
    assert not may_run_again(error, is_committing=True)
