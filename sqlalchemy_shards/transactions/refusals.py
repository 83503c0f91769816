"""Which error a transaction that was rolled back everywhere is reported with.

- What the transaction's own work did wrong (a constraint, a serialization failure, a trigger's
  exception) is the driver's own error, as one PostgreSQL would have raised it from COMMIT.
- What kept the protocol from being carried out is `TransactionAborted`, with what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from sqlalchemy_shards.errors import ConfigurationError, TransactionAborted
from sqlalchemy_shards.transactions.statements import RolledBackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OF_THE_SERVER = frozenset({"08", "0A", "25", "53", "55", "57", "58", "XX"})
_RETRYABLE = frozenset({"08", "53", "57"})
_ROW_OF_ANOTHER = "23505"


class RoundError(Exception):
    """A round before the decision failed on the shards in ``errors``; everything is rolled back.

    :param deciding: the shard that was writing the decision row, whose errors are ours.
    """

    def __init__(
        self,
        errors: Mapping[str, BaseException],
        *,
        deciding: str | None = None,
        gid: str | None = None,
    ) -> None:
        super().__init__(", ".join(errors))
        self.errors = errors
        self.deciding = deciding
        self.gid = gid


def report(failure: RoundError, unconfirmed: Sequence[str]) -> BaseException:
    """Return the error to raise for a failed round.

    :param unconfirmed: shards that did not confirm the rollback; recovery will do it.
    """
    for shard, error in failure.errors.items():
        if isinstance(error, ConfigurationError):
            return error
        if shard != failure.deciding and _is_of_the_work(error):
            return _named(error, shard)
        if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("40"):
            return _named(error, shard)
    shard, error = next(iter(failure.errors.items()))
    problem, advice = _explain(shard, error, is_deciding=shard == failure.deciding)
    if unconfirmed:
        advice += (
            f" (the shards {', '.join(map(repr, unconfirmed))} have not confirmed the rollback;"
            " cluster.recover() completes it)"
        )
    aborted = TransactionAborted(
        f"{problem}; the transaction was rolled back on every shard",
        advice,
        shard=shard,
        gid=failure.gid,
        shard_errors=failure.errors,
    )
    aborted.is_retryable = all(_may_pass(e) for e in failure.errors.values())
    return aborted


def _is_of_the_work(error: BaseException) -> bool:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and state[:2] not in _OF_THE_SERVER


def _named(error: BaseException, shard: str) -> BaseException:
    error.shard = shard  # type: ignore[attr-defined]
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"shard: {shard}; the transaction was rolled back on every shard")
    return error


def _may_pass(error: BaseException) -> bool:
    if not isinstance(error, psycopg.Error):
        return False
    return error.sqlstate is None or error.sqlstate[:2] in _RETRYABLE


def _explain(shard: str, error: BaseException, *, is_deciding: bool) -> tuple[str, str]:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if isinstance(error, RolledBackError) or state == "25P02":
        return (
            f"an earlier statement had failed on shard {shard!r} and its error was swallowed",
            "let the error through, or run such a statement inside a savepoint",
        )
    if state == "0A000":
        return (
            f"shard {shard!r} cannot prepare this transaction ({_first_line(error)})",
            "do that part in a transaction of its own, or write to this shard only",
        )
    if state == "55000":
        return (
            f"shard {shard!r} does not allow prepared transactions: its setting"
            " max_prepared_transactions is 0",
            "set it to at least the server's max_connections and restart the server",
        )
    if state == "53200":
        return (
            f"shard {shard!r} has no room for another prepared transaction or is out of memory"
            f" ({_first_line(error)})",
            "finish old ones with cluster.recover(), or raise max_prepared_transactions there",
        )
    if is_deciding:
        return _explain_decision(shard, error, state)
    return (
        f"shard {shard!r} could not commit ({_first_line(error)})",
        "see the errors in .shard_errors; nothing was committed, so it can be run again",
    )


def _explain_decision(shard: str, error: BaseException, state: str | None) -> tuple[str, str]:
    if state == _ROW_OF_ANOTHER:
        return (
            f"recovery aborted the transaction before it was decided on shard {shard!r}",
            "run it again; let recovery leave young ones alone with older_than=",
        )
    if state in ("42P01", "3F000", "42703"):
        return (
            f"shard {shard!r} has no schema 'shards', or a damaged one ({_first_line(error)})",
            "run cluster.bootstrap()",
        )
    if state == "42501":
        return (
            f"the role of the transaction may not write to 'shards.decisions' on shard {shard!r}",
            "grant it USAGE on the schema shards, SELECT on its table identity, and SELECT,"
            " INSERT, UPDATE and DELETE on its table decisions",
        )
    return (
        f"the decision could not be written on shard {shard!r} ({_first_line(error)})",
        "see the errors in .shard_errors; nothing was committed, so it can be run again",
    )


def _first_line(error: BaseException) -> str:
    # The lines after the first may quote values of a row.
    return str(error).partition("\n")[0] or type(error).__name__
