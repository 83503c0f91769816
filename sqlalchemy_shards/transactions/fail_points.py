"""Names of the places that committing and recovery pass, one at each arrow of the failure table.

Those that stand for one shard's arrow are reached as ``at(NAME, shard)``, so that a test can make
one shard fail.
"""

from __future__ import annotations

from typing import Final

BEFORE_ROUND_0: Final = "commit.before_round_0"
AFTER_ROUND_0: Final = "commit.after_round_0"
BEFORE_DECISION_ROW: Final = "commit.before_decision_row"
AFTER_DECISION_ROW: Final = "commit.after_decision_row"
BEFORE_PREPARE: Final = "commit.before_prepare"
AFTER_PREPARE: Final = "commit.after_prepare"
BEFORE_DECISION: Final = "commit.before_decision"
AFTER_DECISION: Final = "commit.after_decision"
BEFORE_COMMIT_PREPARED: Final = "commit.before_commit_prepared"
AFTER_COMMIT_PREPARED: Final = "commit.after_commit_prepared"
AFTER_ROUND_3: Final = "commit.after_round_3"
BEFORE_ROLLBACK: Final = "commit.before_rollback"
BEFORE_ABORT_ROW: Final = "settle.before_abort_row"
AFTER_ABORT_ROW: Final = "settle.after_abort_row"
BEFORE_FINISH: Final = "recover.before_finish"
AFTER_FINISH: Final = "recover.after_finish"
BEFORE_CLEAN_UP: Final = "recover.before_clean_up"
AFTER_CLEAN_UP: Final = "recover.after_clean_up"

OF_THE_COMMIT: Final = (BEFORE_ROUND_0, AFTER_ROUND_0, BEFORE_DECISION, AFTER_DECISION)
OF_THE_DECISION_SHARD: Final = (BEFORE_DECISION_ROW, AFTER_DECISION_ROW)
OF_A_PREPARED_SHARD: Final = (
    BEFORE_PREPARE,
    AFTER_PREPARE,
    BEFORE_COMMIT_PREPARED,
    AFTER_COMMIT_PREPARED,
)


def at(fail_point: str, shard: str) -> str:
    """Return the name of a fail-point on one shard's arrow."""
    return f"{fail_point}:{shard}"
