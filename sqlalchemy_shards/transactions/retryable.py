"""Whether a transaction that failed may be run again from its beginning.

- Safe is what was certainly rolled back; worth it is what may pass the next time.
- A connection that is lost before COMMIT was sent took its transaction with it. Lost in COMMIT, it
  says nothing: the server may have committed.
"""

from __future__ import annotations

from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards.errors import ShardsError, TransactionInDoubt

BY_THE_SERVER: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock timeout (as a deadlock over several shards ends): the
server lives, says so, and has rolled back or will."""

_LOST: Final = frozenset({"53300", "57P01", "57P02", "57P03"})
"""Too many connections; the server is being shut down, crashed, or is starting."""


def may_run_again(error: BaseException, *, is_committing: bool) -> bool:
    """Return whether to run the transaction again after this error came out of it.

    :param is_committing: the error came out of its commit, not of its work.
    """
    if isinstance(error, ShardsError):
        return error.is_retryable and not isinstance(error, TransactionInDoubt)
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state in BY_THE_SERVER:
        return True
    return not is_committing and (error.connection_invalidated or _is_lost(error.orig, state))


def _is_lost(error: BaseException | None, state: str | None) -> bool:
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state.startswith("08") or state in _LOST
