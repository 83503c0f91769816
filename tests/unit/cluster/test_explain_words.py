"""An explanation in words: its tree, and what was measured."""

from __future__ import annotations

import pytest

from sqlalchemy_shards.cluster.explain.explanation import ExplainedBranch, Explanation, ShardStep
from sqlalchemy_shards.cluster.explain.measured import Measured, MeasuredStep
from sqlalchemy_shards.plan import Concatenate, Tier

WIDE = "SELECT a.one, a.two \nFROM a \nWHERE a.one > 1 UNION ALL SELECT b.one, b.two \nFROM b"


@pytest.mark.parametrize(
    ("rows", "size", "seconds", "words"),
    [
        (1, 1, 0.00042, "1 row, 1 byte, 0.42 ms"),
        (1200, 9_999, 1.5, "1,200 rows, 9,999 bytes, 1,500.00 ms"),
        (0, 123_456, 0.0, "0 rows, 123 kB, 0.00 ms"),
        (2, 12_345_678, 0.001, "2 rows, 12 MB, 1.00 ms"),
        (None, None, 0.001, "1.00 ms"),
    ],
)
def test_a_step_in_words(rows: int | None, size: int | None, seconds: float, words: str) -> None:
    assert str(MeasuredStep("run", "s0", rows, size, seconds)) == words


def test_a_short_statement_stands_beside_its_shards() -> None:
    assert ExplainedBranch("s0", "SELECT 1 \nFROM a", is_sql=True).lines() == [
        "s0: SELECT 1 FROM a"
    ]


def test_a_long_one_has_a_line_for_each_clause_and_member() -> None:
    assert ExplainedBranch("s0", WIDE, ("1 row",), is_sql=True).lines(40) == [
        "s0:",
        "  SELECT a.one, a.two",
        "  FROM a",
        "  WHERE a.one > 1",
        "  UNION ALL SELECT b.one, b.two",
        "  FROM b",
        "  · 1 row",
    ]


def test_no_line_of_a_clause_is_too_long() -> None:
    columns = ", ".join(f"a_table.column_{number}" for number in range(20))

    lines = ExplainedBranch("s0", f"SELECT {columns} \nFROM a_table", is_sql=True).lines(60)

    assert max(map(len, lines)) <= 60


def test_what_no_branch_was_planned_for_is_told_all_the_same() -> None:
    """Steps that a later tier adds, or of an attempt that was thrown away."""
    steps = (
        MeasuredStep("plan", None, None, None, 0.001),
        MeasuredStep("before", "s1", 3, 9, 0.002),
        MeasuredStep("run", "s0", 1, 1, 0.003),
        MeasuredStep("again", "s1", 0, None, 0.004),
    )
    explanation = Explanation(
        tier=Tier.SCATTER,
        shards=("s0",),
        reason="the shard key is not known",
        steps=(ShardStep("s0", "SELECT 1"),),
        merge=Concatenate(),
        measured=Measured(steps, 1, 0.01),
    )

    assert str(explanation).splitlines() == [
        "scatter and merge: s0, because the shard key is not known",
        "├─ plan: 1.00 ms",
        "├─ before: s1: 3 rows, 9 bytes, 2.00 ms",
        "├─ s0: SELECT 1",
        "│    · 1 row, 1 byte, 3.00 ms",
        "├─ merge: rows one after another",
        "├─ again: s1: 0 rows, 4.00 ms",
        "└─ in all: 1 row, 10.00 ms",
    ]
