"""A small model of PostgreSQL databases, of one coordinator, and of those who clean up after it.

One distributed transaction writes to the databases 0 (the decision shard), 1 and 2. What matters of
them is kept: transactions with their rows, prepared parts, the table of decisions with its unique
index, sessions that outlive their client with a message still to be read. What does not matter for
one transaction's fate is left out. Everything is a tuple of small values, so that a state can be
compared and counted.

``fate`` is what nobody in the model can see: what became of the work on a database for good.
"""

from __future__ import annotations

from typing import NamedTuple

# States of the application's transaction on a database.
ENDED, OPEN, FAILED = range(3)
# What became of the work of a database.
PENDING, COMMITTED, ABORTED = range(3)
FATES = ("pending", "committed", "aborted")
# The server's side of the coordinator's connection; a stale one lives on without its client.
GONE, LIVE, STALE = range(3)
# Steps of one who settles and finishes.
IDLE, LISTED, INSERTING, INSERTED, LOOKING_AGAIN, FINISHING, DONE = range(7)

NOBODY = -1
COORDINATOR = 9


class Db(NamedTuple):
    """One database, and the coordinator's connection to it.

    :param has_row: the open transaction holds the decision row.
    :param unread: command in the socket of a stale session, or None: it may still be carried out.
    :param strays: commands that were sent over other connections and lost; likewise.
    :param link: the connection's state as the client knows it.
    :param asked: command that the coordinator wants performed here, or None.
    """

    tx: int
    has_row: bool
    is_prepared: bool
    fate: int
    session: int
    unread: object
    strays: frozenset
    link: object
    asked: object


class Decisions(NamedTuple):
    """The rows of one gid in `shards.decisions`.

    :param outcome: of the committed row: 1 commit, 2 abort, 0 none.
    :param is_flushed: it would survive a crash.
    :param inserting: whose uncommitted row is in the unique index.
    :param is_busy: an older transaction is still open, so that the snapshot's xmin tells nothing.
    """

    outcome: int
    is_flushed: bool
    inserting: int
    is_busy: bool


class Actor(NamedTuple):
    """One who settles: a recovery that found ``parts`` on databases, or the coordinator itself."""

    step: int
    parts: frozenset
    outcome: object


class Cleaner(NamedTuple):
    """One who removes rows: what it saw, and which databases it has listed since."""

    seen: object
    listed: frozenset
    holds: bool
    is_done: bool


class Budget(NamedTuple):
    """How much may still go wrong."""

    losses: int
    crashes: int
    deaths: int
    stops: int
    refusals: int
    wrong_databases: int


class World(NamedTuple):
    """Everything there is.

    :param machine: number of the coordinator's protocol state, or NOBODY where it died.
    :param reported: what the coordinator told its caller, or None.
    :param is_confirmed: it told, too, that nothing is left prepared.
    :param told: outcomes that settling gave to anybody.
    """

    dbs: tuple
    decisions: Decisions
    machine: int
    actors: tuple
    cleaner: Cleaner
    reported: object
    is_confirmed: bool
    told: frozenset
    budget: Budget
