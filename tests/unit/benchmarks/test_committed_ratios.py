"""When a benchmark counts as worse than committed, and what is committed of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.committed import (
    COMMITTED,
    Committed,
    Recording,
    compared_with,
    read_committed,
    recorded,
    to_measure_again,
    verdicts_table,
    write_committed,
)
from tests.benchmarks.plot import PLOT, plot
from tests.benchmarks.report import Figure

if TYPE_CHECKING:
    from pathlib import Path


def figure(ratio: float, least: float, name: str = "get()", *, is_ratio: bool = True) -> Figure:
    return Figure(name, "plain", 100, 100 * ratio, ratio, least, is_ratio=is_ratio)


def before(ratio: float, least: float, name: str = "get()") -> dict[str, Recording]:
    return {"single": Recording({}, (Committed(name, "plain", ratio, least, None),))}


class TestComparing:
    @pytest.mark.parametrize(
        ("ratio", "least", "is_worse"),
        [
            (1.00, 1.00, False),
            (1.10, 1.10, False),
            (1.12, 1.12, True),
            (0.50, 0.50, False),
            pytest.param(3.00, 1.05, False, id="noise in most rounds"),
            pytest.param(1.05, 3.00, False, id="noise in the base's best round"),
        ],
    )
    def test_both_readings_must_be_more_than_a_tenth_above(
        self, ratio: float, least: float, is_worse: bool
    ) -> None:
        verdicts = compared_with(before(1.0, 1.0), {"single": [[figure(ratio, least)]]})

        assert [each.is_worse for each in verdicts] == [is_worse]

    def test_the_best_attempt_counts(self) -> None:
        attempts = [[figure(1.5, 1.4)], [figure(1.05, 1.02)], [figure(1.6, 1.7)]]
        (verdict,) = compared_with(before(1.0, 1.0), {"single": attempts})

        assert not verdict.is_worse
        assert verdict.ratio == 1.05
        assert verdict.change == pytest.approx(0.02)

    def test_what_is_worse_in_every_attempt_is_worse(self) -> None:
        attempts = [[figure(1.5, 1.4)], [figure(1.3, 1.2)]]
        (verdict,) = compared_with(before(1.0, 1.0), {"single": attempts})

        assert verdict.is_worse
        assert "WORSE" in verdicts_table([verdict])
        assert "+20.0%" in verdicts_table([verdict])

    def test_a_figure_that_is_not_measured_any_more_fails(self) -> None:
        verdicts = compared_with(before(1.0, 1.0), {"single": [[figure(1.0, 1.0, "another")]]})

        assert [(each.name, each.is_worse) for each in verdicts] == [
            ("get()", True),
            ("another", False),
        ]
        assert "NOT MEASURED" in verdicts_table(verdicts)
        assert "not recorded" in verdicts_table(verdicts)

    def test_only_the_groups_that_seem_worse_are_measured_again(self) -> None:
        recordings = {
            **before(1.0, 1.0),
            "flush": Recording({}, (Committed("a", "b", 2.0, 2.0, None),)),
        }
        verdicts = compared_with(
            recordings,
            {"single": [[figure(1.0, 1.0)]], "flush": [[Figure("a", "b", 1, 3, 3.0, 3.0)]]},
        )

        assert to_measure_again(verdicts) == ["flush"]


class TestRecording:
    def test_the_median_of_the_runs_is_recorded(self) -> None:
        runs = [[figure(1.0, 1.1)], [figure(1.2, 9.0)], [figure(5.0, 1.2)]]

        assert recorded(runs) == (Committed("get()", "plain", 1.2, 1.2, None),)

    def test_times_without_a_base_are_no_ratios(self) -> None:
        time = figure(0.3, 0.3, "a route", is_ratio=False)

        assert recorded([[time]]) == ()
        assert compared_with({"single": Recording({}, ())}, {"single": [[time]]}) == []

    def test_what_is_written_is_read_again(self, tmp_path: Path) -> None:
        recordings = before(1.071, 1.066)
        write_committed(tmp_path / "committed.json", recordings)

        assert read_committed(tmp_path / "committed.json") == recordings
        assert read_committed(tmp_path / "nothing.json") == {}


def test_the_plot_in_the_documentation_shows_the_committed_ratios() -> None:
    assert PLOT.read_text(encoding="utf-8") == plot(read_committed(COMMITTED))


def test_a_plot_tells_what_misses_its_goal() -> None:
    figures = (
        Committed("met & well", "plain", 1.02, 1.01, 1.05),
        Committed("short", "plain", 1.2, 1.1, 1.05),
        Committed("free", "plain", 40.0, 30.0, None),
    )
    drawn = plot({"single": Recording({}, figures)})

    assert drawn.count('class="median met"') == 1
    assert drawn.count('class="median missed"') == 1
    assert drawn.count('class="goal"') == 2
    assert "met &amp; well : plain" in drawn
