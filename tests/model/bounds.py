"""What a run of the checker starts with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """How many take part, and how much may go wrong in one run.

    :param participants: databases that were written to, the decision shard included.
    :param recoveries: how many may look for prepared parts, each once.
    :param cleaners: 1, if rows are removed; every commit row counts as expired.
    :param losses: connections of the coordinator that break, with a message still to be read or a
        reply on its way.
    :param crashes: of a server.
    :param deaths: 1, if the coordinator may die.
    :param stops: times that the coordinator is interrupted in a round.
    :param refusals: PREPARE or COMMIT refused by a deferred constraint.
    :param wrong_databases: connections that lead to another database than they should.
    :param servers: server of each database.
    :param failed: databases where a statement failed and the client does not know it.
    :param is_busy: an older transaction hides from the snapshot whether the deciding one is over.
    :param with_markers: every participant's xid is asked for.
    :param early_xid: that of the decision shard is known before the commit begins; None: it is not.
    """

    participants: int = 3
    recoveries: int = 0
    cleaners: int = 0
    losses: int = 0
    crashes: int = 0
    deaths: int = 0
    stops: int = 0
    refusals: int = 0
    wrong_databases: int = 0
    servers: tuple[int, ...] = (0, 1, 2)
    failed: frozenset[int] = frozenset()
    is_busy: bool = False
    with_markers: bool = False
    early_xid: int | None = None
