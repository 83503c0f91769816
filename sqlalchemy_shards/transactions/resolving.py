"""Deciding a transaction in place of a decision shard that is gone for good.

- The last resort, and the only place where somebody else than the decision shard decides. It is
  refused wherever the protocol can still tell: while the decision shard answers, where its outcome
  is known, or against what a participant that has committed shows.
- If the decision shard comes back with another outcome, the transaction is half committed. Nothing
  here can see that; the person who calls it must know that the shard will not come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import tuple_row

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from sqlalchemy_shards.transactions.refusals import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity, IdentityRegistry
    from sqlalchemy_shards.transactions.gid import TransactionGid
    from sqlalchemy_shards.transactions.inventory import Listing, PreparedPart
    from sqlalchemy_shards.transactions.visits import Visits

_HAS_MARKERS: Final = 3
"""Since this version of the schema, participants may keep a marker of what they committed."""

_COMMITTED = """
SELECT EXISTS (
    SELECT FROM shards.markers
    WHERE peer = %s::text::uuid AND peer_xid = %s::text::xid8 AND gid = %s::text)
"""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What can be known of a transaction whose decision shard may be gone.

    :param outcome: what its decision shard says; UNKNOWN where it does not answer.
    :param decision_shard: its name, where a shard that answered once in this process has it.
    :param is_reachable: whether the decision shard answers.
    :param parts: what is prepared of it on the shards that answer.
    :param committed_on: shards that show that they have committed their part.
    :param unreachable: shards that do not answer: one of them is the decision shard, unless it is
        no shard of this configuration any more.
    """

    gid: TransactionGid
    outcome: Outcome
    decision_shard: str | None
    is_reachable: bool
    parts: tuple[PreparedPart, ...]
    committed_on: tuple[str, ...]
    unreachable: Mapping[str, BaseException]

    def refuse_unless_lost(self, wanted: Outcome) -> None:
        """Refuse to decide it where the protocol can, or where it would make halves.

        :raises ConfigurationError: says why.
        """
        if self.outcome is not Outcome.UNKNOWN:
            raise ConfigurationError(
                f"the decision shard answers: the transaction is {self.outcome.value}",
                "run `shards transactions recover`, which finishes it so",
            )
        if self.is_reachable:
            raise ConfigurationError(
                f"its decision shard {self.decision_shard!r} answers, and it is being decided",
                "run `shards transactions recover` in a moment",
                shard=self.decision_shard,
            )
        for shard, error in self._answering():
            raise ConfigurationError(
                f"shard {shard!r}, which may be the decision shard, is not lost: its server says"
                f" {first_line(error)!r}",
                "mend that, then run `shards transactions recover`",
                shard=shard,
            )
        if self.committed_on and wanted is Outcome.ABORTED:
            raise ConfigurationError(
                "the transaction was committed on "
                + ", ".join(map(repr, self.committed_on))
                + ", so that it must not be rolled back elsewhere",
                "resolve it with --commit",
            )
        if not self.parts:
            raise ConfigurationError(
                "nothing of the transaction is prepared on the shards that answer",
                "there is nothing to resolve",
            )

    def _answering(self) -> list[tuple[str, BaseException]]:
        """Shards that may be the decision shard, and whose servers have answered with an error."""
        return [
            (shard, error)
            for shard, error in self.unreachable.items()
            if self.decision_shard in (None, shard) and _is_answer(error)
        ]


def assess(
    gid: TransactionGid,
    visits: Visits,
    identities: IdentityRegistry,
    listings: Mapping[str, Listing],
    outcome: Outcome,
) -> Assessment:
    """Gather what can be known.

    :param listings: of all shards that answer.
    :param outcome: what settling it just said.
    """
    shows = visits.ask({name: partial(_has_committed, gid=gid) for name in listings})
    decision_shard = identities.name_of(gid.decision_shard)
    return Assessment(
        gid,
        outcome,
        decision_shard,
        is_reachable=decision_shard is not None and decision_shard not in visits.unreachable,
        parts=tuple(
            part for found in listings.values() for part in found.parts if part.gid.of == gid
        ),
        committed_on=tuple(name for name, committed in shows.items() if committed),
        unreachable=visits.unreachable,
    )


def _is_answer(error: BaseException) -> bool:
    """Return whether a server that lives made the error, as far as that can be told.

    Swapped URLs, a standby, a wrong password, a server that is starting or full: all that hides a
    decision shard whose data are there. A database that does not exist has none.
    """
    if isinstance(error, ConfigurationError):
        return True
    text = str(error)
    return "FATAL" in text and "does not exist" not in text


def _has_committed(
    connection: psycopg.Connection[Any], identity: Identity, *, gid: TransactionGid
) -> bool:
    if identity.version < _HAS_MARKERS:
        return False
    parameters = (str(gid.decision_shard), str(gid.decision_xid), str(gid))
    with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_COMMITTED, parameters).fetchone()
    return row is not None and bool(row[0])
