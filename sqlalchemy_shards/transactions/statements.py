"""What the rounds say to one server, as requests of an exchange, and how its rows are read.

- Names are qualified and values are text, so that nothing that the application has set on its
  connection changes them.
- A command's tag is checked, since a failed transaction answers PREPARE with ROLLBACK and raises
  nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus

from sqlalchemy_shards.catalog.identity import CONSISTENT_READS_VERSION
from sqlalchemy_shards.connections.exchange import Request
from sqlalchemy_shards.transactions.gid import FORMAT
from sqlalchemy_shards.transactions.markers import insert_text
from sqlalchemy_shards.transactions.protocol.replies import PREPARE, Reply, read_error, read_tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.catalog.identity import Identity
    from sqlalchemy_shards.transactions.gid import ParticipantGid, TransactionGid
    from sqlalchemy_shards.transactions.markers import Marker
    from sqlalchemy_shards.transactions.participants import Part

# Planning a look at `pg_locks` takes a server longer than all else here, so that only sessions that
# ever had temporary objects are asked further: a lock on one tells that this transaction touched
# it, and that PREPARE would be refused.
_ASK = "SELECT pg_catalog.{function}()::text, (pg_catalog.pg_my_temp_schema() <> 0)::text"
_ASK_ONLY = _ASK.format(function="pg_current_xact_id_if_assigned").encode()
_ASK_AND_ASSIGN = _ASK.format(function="pg_current_xact_id").encode()
_ASK_XID = b"SELECT pg_catalog.pg_current_xact_id()::text"
_HAS_TEMPORARY = b"""
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
    WHERE l.pid = pg_catalog.pg_backend_pid() AND c.relnamespace = pg_catalog.pg_my_temp_schema()
)::text
"""

# One round trip: no row where this is another database, or another transaction than was asked, or
# where markers are expected and not left. Half of what it takes the server is planning, so it is
# one relation, without parameters: what stands here are digits, hexadecimal digits and slashes.
_INSERT_DECISION = """\
INSERT INTO shards.decisions (gid, decision_xid, outcome, participants, format)
SELECT '{gid}', '{xid}'::pg_catalog.xid8, 'commit', '{{{participants}}}', {format}
FROM shards.identity i
WHERE i.shard_uuid = '{shard}'
    AND pg_catalog.pg_current_xact_id_if_assigned() = '{xid}'::pg_catalog.xid8
    AND CASE WHEN pg_catalog.current_setting('synchronous_commit')
            IN ('off', 'local', 'remote_write')
        THEN pg_catalog.set_config('synchronous_commit', 'on', true) = 'on' ELSE true END
    AND {condition}"""

_NO_MARKERS = "NOT i.consistent_reads"
# Older versions of the schema have no such column, and are upgraded while this process runs.
_NO_MARKERS_OF_ANY_VERSION = (
    "(pg_catalog.to_jsonb(i) ->> 'consistent_reads') IS DISTINCT FROM 'true'"
)

# Skips what recovery is just removing, and need not be on disk: a row that comes back is harmless.
_FORGET_DECISIONS = b"""
WITH quick AS MATERIALIZED (SELECT pg_catalog.set_config('synchronous_commit', 'off', true))
DELETE FROM shards.decisions WHERE gid IN (
    SELECT gid FROM shards.decisions
    WHERE gid = ANY(pg_catalog.string_to_array($1::text, ' ')) FOR UPDATE SKIP LOCKED
) AND (SELECT pg_catalog.count(*) FROM quick) = 1
"""


class RolledBackError(Exception):
    """A failed transaction was told to prepare or commit, and the server rolled it back."""


def ask(part: Part, *, assign: bool) -> Request:
    """Ask for the xid of the open transaction, and whether the session has temporary objects.

    :param assign: give it an xid if it has none.
    """
    return Request(part.name, part.driver, _ASK_AND_ASSIGN if assign else _ASK_ONLY)


def ask_xid(shard: str, driver: psycopg.Connection[Any]) -> Request:
    """Ask for the xid of the open transaction, and give it one if it has none."""
    return Request(shard, driver, _ASK_XID)


def xid_of(answer: Request) -> int | None:
    """Read what `ask_xid` was answered; None: there is no good answer."""
    return next((int(xid) for (xid,) in answer.rows() if xid is not None), None)


def standing_of(answer: Request) -> tuple[int | None, bool]:
    """Read what `ask` was answered: the xid, and whether `ask_temporary` must be asked too."""
    [(xid, has_temporary_schema)] = answer.rows()
    return None if xid is None else int(xid), has_temporary_schema == "true"


def ask_temporary(part: Part) -> Request:
    """Ask whether the open transaction has touched temporary objects."""
    return Request(part.name, part.driver, _HAS_TEMPORARY)


def cannot_prepare(answer: Request) -> bool:
    """Read what `ask_temporary` was answered."""
    return answer.rows() == [("true",)]


def insert_decision(
    part: Part, gid: TransactionGid, participants: Sequence[Identity], markers: Sequence[Marker]
) -> Request:
    """Put the decision row into the open transaction, and make its COMMIT wait for the disk.

    No row is answered where this is not the decision shard's database or transaction, or where it
    expects markers and there are none.

    :param participants: the decision shard first.
    """
    condition = _NO_MARKERS_OF_ANY_VERSION
    if markers:
        condition = "true"
    elif participants[0].version >= CONSISTENT_READS_VERSION:
        condition = _NO_MARKERS
    statement = _INSERT_DECISION.format(
        gid=gid,
        xid=gid.decision_xid,
        participants=",".join([each.shard_text for each in participants]),
        format=FORMAT,
        shard=participants[0].shard_text,
        condition=condition,
    ).encode("ascii")
    if markers:
        statement = b"WITH marked AS (%b) %b" % (insert_text(markers, gid), statement)
    return Request(part.name, part.driver, statement)


def prepare(part: Part, gid: ParticipantGid, markers: Sequence[Marker]) -> Request:
    """Prepare the open transaction; its markers are left in the same round trip."""
    if not markers:
        return two_phase(part, PREPARE, gid)
    both = insert_text(markers, gid.of) + b"; " + _two_phase(PREPARE, gid)
    return Request(part.name, part.driver, both, statements=2)


def two_phase(part: Part, verb: str, gid: ParticipantGid) -> Request:
    """Prepare the open transaction, or finish a prepared one over an idle connection."""
    return Request(part.name, part.driver, _two_phase(verb, gid))


def plain(part: Part, verb: str) -> Request:
    """Commit or roll back the open transaction."""
    return Request(part.name, part.driver, verb.encode())


def forget_decisions(part: Part, gids: Sequence[str]) -> Request:
    """Remove decision rows whose transactions are finished everywhere, over an idle connection."""
    return Request(part.name, part.driver, _FORGET_DECISIONS, (" ".join(gids).encode(),))


def command(driver: psycopg.Connection[Any], verb: str, gid: ParticipantGid) -> None:
    """Finish a prepared transaction over a connection in autocommit mode, and check the tag.

    :raises RolledBackError: an earlier statement had failed; it is rolled back.
    """
    # By libpq's own call: thousands may have to be finished, and a cursor takes twice as long.
    driver.pgconn.send_query(_two_phase(verb, gid))
    result = driver.wait(execute(driver.pgconn))[-1]
    if result.status != ExecStatus.COMMAND_OK:
        raise error_from_result(result, encoding=driver.info.encoding)
    error = misfit(verb, (result.command_status or b"").decode())
    if error is not None:
        raise error


def misfit(verb: str, tag: str | None) -> Exception | None:
    """Return what the tag of a command that raised no error has to be reported with, if anything.

    >>> misfit("COMMIT", "ROLLBACK")
    RolledBackError('COMMIT was answered ROLLBACK: an earlier statement had failed')
    """
    reply = read_tag(verb, tag)
    if reply is Reply.DONE:
        return None
    problem = f"{verb} was answered {tag}"
    if reply is Reply.ROLLED_BACK:
        return RolledBackError(f"{problem}: an earlier statement had failed")
    return psycopg.InternalError(problem)


def reply_of(error: BaseException, verb: str, *, is_lost: bool) -> Reply:
    """Return what an error says, be it the server's, the client's or a `misfit`.

    :param is_lost: the connection is of no use any more.
    """
    if isinstance(error, RolledBackError):
        return Reply.ROLLED_BACK
    # Not `sqlstate`, which an error that the client made may have too.
    sqlstate = error.diag.sqlstate if isinstance(error, psycopg.Error) else None
    return read_error(verb, sqlstate, is_lost=is_lost)


def _two_phase(verb: str, gid: ParticipantGid) -> bytes:
    # A gid consists of letters, digits and slashes, and these commands take no parameters.
    return f"{verb} '{gid}'".encode("ascii")
