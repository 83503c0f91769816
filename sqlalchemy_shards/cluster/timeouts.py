"""How long a cluster waits, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy_shards.transactions.rounds import CommitTimeouts


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on waiting, in seconds.

    :param statement_seconds: a statement on several shards, all of them together; None: no bound
        but what the servers set (``statement_timeout``).
    :param round_seconds: finding out who takes part in a commit, and preparing, each.
    :param decision_seconds: waiting for the deciding COMMIT; then its outcome is asked for.
    :param settle_seconds: asking for the outcome.
    :param finish_seconds: finishing a decided commit; then recovery does it.
    :param rollback_seconds: rolling back what was prepared; then recovery does it.
    """

    statement_seconds: float | None = None
    round_seconds: float = 60.0
    decision_seconds: float = 300.0
    settle_seconds: float = 10.0
    finish_seconds: float = 5.0
    rollback_seconds: float = 5.0

    def of_commit(self) -> CommitTimeouts:
        """The part that the commit protocol uses."""
        return CommitTimeouts(
            round_seconds=self.round_seconds,
            decision_seconds=self.decision_seconds,
            settle_seconds=self.settle_seconds,
            finish_seconds=self.finish_seconds,
            rollback_seconds=self.rollback_seconds,
        )
