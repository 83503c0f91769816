"""Names of the places that writing, committing and recovery pass: the failure table's arrows.

Those that stand for one shard's arrow are reached with its name, and armed as ``at(NAME, shard)``
(`events.at`), so that a test can make one shard fail.
"""

from __future__ import annotations

from typing import Final

BEFORE_STATEMENT: Final = "transaction.before_statement"
AFTER_STATEMENT: Final = "transaction.after_statement"
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
BEFORE_FORGET: Final = "commit.before_forget"
AFTER_FORGET: Final = "commit.after_forget"
BEFORE_ROLLBACK: Final = "commit.before_rollback"
BEFORE_ROLLBACK_PREPARED: Final = "commit.before_rollback_prepared"
AFTER_ROLLBACK_PREPARED: Final = "commit.after_rollback_prepared"
BEFORE_LOOK: Final = "settle.before_look"
AFTER_LOOK: Final = "settle.after_look"
BEFORE_ABORT_ROW: Final = "settle.before_abort_row"
AFTER_ABORT_ROW: Final = "settle.after_abort_row"
BEFORE_LIST: Final = "recover.before_list"
AFTER_LIST: Final = "recover.after_list"
BEFORE_FINISH: Final = "recover.before_finish"
AFTER_FINISH: Final = "recover.after_finish"
BEFORE_CLEAN_UP: Final = "recover.before_clean_up"
AFTER_CLEAN_UP: Final = "recover.after_clean_up"
BEFORE_SNAPSHOT: Final = "consistent.before_snapshot"
SNAPSHOTS_LAG: Final = "consistent.snapshots_lag"

OF_THE_DECISION_SHARD: Final = (
    BEFORE_DECISION_ROW,
    AFTER_DECISION_ROW,
    BEFORE_FORGET,
    AFTER_FORGET,
)
