"""Which error a transaction that was rolled back everywhere is reported with.

- What the transaction's own work did wrong (a constraint, a serialization failure, a trigger's
  exception) is the driver's own error, as one PostgreSQL would have raised it from COMMIT.
- What kept the protocol from being carried out is `TransactionAborted`, with what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from sqlalchemy_shards.errors import ConfigurationError, TransactionAborted
from sqlalchemy_shards.transactions.protocol.replies import Link
from sqlalchemy_shards.transactions.statements import RolledBackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OF_THE_SERVER = frozenset({"08", "0A", "25", "53", "55", "57", "58", "XX"})
_RETRYABLE = frozenset({"08", "53", "57"})
_ROW_OF_ANOTHER = "23505"
_NAME_IN_USE = "42710"


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


def unfit(links: Mapping[str, Link]) -> RoundError:
    """Return why transactions that cannot go on keep all from being committed.

    :param links: theirs; an idle one wrote something.
    """
    errors: dict[str, BaseException] = {}
    for shard, link in links.items():
        if link is Link.LOST:
            errors[shard] = psycopg.OperationalError("the connection is lost")
        elif link is Link.FAILED:
            errors[shard] = psycopg.errors.InFailedSqlTransaction("an earlier statement failed")
        elif link is Link.BUSY:
            errors[shard] = psycopg.OperationalError("a statement is still running")
        elif link is Link.IDLE:
            errors[shard] = psycopg.errors.NoActiveSqlTransaction(
                "it was ended beside commit() and rollback()"
            )
    return RoundError(errors)


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
    for shard, error in failure.errors.items():
        if isinstance(error, psycopg.errors.NoActiveSqlTransaction):
            return _ended_alone(shard, failure)
    shard, error = next(iter(failure.errors.items()))
    problem, advice = _explain(shard, error, is_deciding=shard == failure.deciding)
    if unconfirmed:
        names = ", ".join(map(repr, unconfirmed))
        who = f"shard {names} has" if len(unconfirmed) == 1 else f"shards {names} have"
        advice += f" (the {who} not confirmed the rollback; cluster.recover() completes it)"
    aborted = TransactionAborted(
        f"{problem}; the transaction was rolled back on every shard",
        advice,
        shard=shard,
        gid=failure.gid,
        shard_errors=failure.errors,
    )
    aborted.is_retryable = all(
        _may_pass(error, is_deciding=shard == failure.deciding)
        for shard, error in failure.errors.items()
    )
    return aborted


def _ended_alone(shard: str, failure: RoundError) -> TransactionAborted:
    return TransactionAborted(
        f"the transaction on shard {shard!r} was ended beside commit() and rollback() of the"
        " session; it was rolled back on the others, and what it did there is what its end says",
        "leave commit() and rollback() of a shard's driver connection alone",
        shard=shard,
        shard_errors=failure.errors,
    )


def _is_of_the_work(error: BaseException) -> bool:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and state != _NAME_IN_USE and state[:2] not in _OF_THE_SERVER


def _named(error: BaseException, shard: str) -> BaseException:
    error.shard = shard  # type: ignore[attr-defined]
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"shard: {shard}; the transaction was rolled back on every shard")
    return error


def _may_pass(error: BaseException, *, is_deciding: bool) -> bool:
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state == (_ROW_OF_ANOTHER if is_deciding else _NAME_IN_USE):
        return True  # the next attempt has another name
    return state is None or state[:2] in _RETRYABLE


def _explain(shard: str, error: BaseException, *, is_deciding: bool) -> tuple[str, str]:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if isinstance(error, RolledBackError) or state == "25P02":
        return (
            f"an earlier statement had failed on shard {shard!r} and its error was swallowed",
            "let the error through, or run such a statement inside a savepoint",
        )
    if state == "0A000":
        return (
            f"shard {shard!r} cannot prepare this transaction ({first_line(error)})",
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
            f" ({first_line(error)})",
            "finish old ones with cluster.recover(), or raise max_prepared_transactions there",
        )
    if is_deciding:
        return _explain_decision(shard, error, state)
    if state == _NAME_IN_USE:
        return (
            f"shard {shard!r} has a prepared transaction of the same name, which somebody made by"
            " hand",
            "run it again, under a name of its own; look into pg_prepared_xacts there",
        )
    return (
        f"shard {shard!r} could not commit ({first_line(error)})",
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
            f"shard {shard!r} has no schema 'shards', or a damaged one ({first_line(error)})",
            "run cluster.bootstrap()",
        )
    if state == "42501":
        return (
            "the role of the transaction may not write to 'shards.decisions', or not leave markers,"
            f" on shard {shard!r}",
            "grant it USAGE on the schema shards, SELECT on its table identity, and SELECT,"
            " INSERT, UPDATE and DELETE on its other tables",
        )
    return (
        f"the decision could not be written on shard {shard!r} ({first_line(error)})",
        "see the errors in .shard_errors; nothing was committed, so it can be run again",
    )


def first_line(error: BaseException) -> str:
    """Return what an error says, without the further lines, which may quote values of a row."""
    return str(error).partition("\n")[0] or type(error).__name__
