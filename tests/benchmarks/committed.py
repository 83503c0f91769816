"""The committed ratios, and whether what is measured now is worse than they were.

Deciding only: what was committed and what was measured go in, verdicts come out. A machine is
never quiet, so a ratio counts as worse where both of its readings are, the median of the rounds
and the least of them, in every attempt: noise seldom hits both, and a slower program always does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from .report import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .report import Figure

COMMITTED: Final = Path(__file__).with_name("committed.json")

TOLERANCE: Final = 0.10
"""How much worse than committed a ratio may be."""


@dataclass(frozen=True, slots=True)
class Committed:
    """One ratio, as it was when it was recorded: less is better.

    :param goal: what the ratio must not exceed; None: it is for information.
    """

    name: str
    against: str
    ratio: float
    least_ratio: float
    goal: float | None


@dataclass(frozen=True, slots=True)
class Recording:
    """The ratios of one group, and what they depend on."""

    surroundings: Mapping[str, Any]
    figures: tuple[Committed, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One ratio, then and now.

    :param before: None: it was not recorded.
    :param ratio: of the attempt that was best; None: it was not measured.
    :param change: by which part that attempt is above what was recorded, below it if negative.
    """

    group: str
    name: str
    against: str
    before: Committed | None
    ratio: float | None
    least_ratio: float | None
    change: float | None

    @property
    def is_worse(self) -> bool:
        """Whether the check fails: it became worse, or nobody knows any more."""
        if self.before is None:
            return False
        return self.change is None or self.change > TOLERANCE

    @property
    def says(self) -> str:
        """The verdict in words."""
        if self.before is None:
            return "not recorded"
        if self.change is None:
            return "NOT MEASURED"
        return "WORSE" if self.is_worse else ""


def recorded(runs: Sequence[Sequence[Figure]]) -> tuple[Committed, ...]:
    """What is committed of several runs of a group: the median of each reading.

    A figure without a base to be measured beside is no ratio, and is left out.
    """
    return tuple(
        Committed(
            first.name,
            first.against,
            round(median(each.ratio for each in figures), 3),
            round(median(each.least_ratio for each in figures), 3),
            None if first.goal_ratio is None else round(first.goal_ratio, 3),
        )
        for figures in zip(*runs, strict=True)
        if (first := figures[0]).is_ratio
    )


def compared_with(
    recordings: Mapping[str, Recording], attempts: Mapping[str, Sequence[Sequence[Figure]]]
) -> list[Verdict]:
    """Hold what was measured against what was recorded.

    :param attempts: for each group its runs, each with all figures of the group.
    """
    verdicts = []
    for group, recording in recordings.items():
        before = {(each.name, each.against): each for each in recording.figures}
        now: dict[tuple[str, str], list[Figure]] = {key: [] for key in before}
        for figure in (figure for run in attempts.get(group, ()) for figure in run):
            if figure.is_ratio:
                now.setdefault((figure.name, figure.against), []).append(figure)
        verdicts += [_verdict(group, key, before.get(key), runs) for key, runs in now.items()]
    return verdicts


def _verdict(
    group: str, key: tuple[str, str], before: Committed | None, runs: Sequence[Figure]
) -> Verdict:
    if not runs:
        return Verdict(group, *key, before, None, None, None)
    if before is None:
        return Verdict(group, *key, None, runs[-1].ratio, runs[-1].least_ratio, None)
    best = min(runs, key=lambda figure: _change(before, figure))
    return Verdict(group, *key, before, best.ratio, best.least_ratio, _change(before, best))


def _change(before: Committed, now: Figure) -> float:
    change = min(now.ratio / before.ratio, now.least_ratio / before.least_ratio) - 1
    return round(change, 4)


def to_measure_again(verdicts: Iterable[Verdict]) -> list[str]:
    """The groups with a ratio that seems worse."""
    return list(dict.fromkeys(verdict.group for verdict in verdicts if verdict.is_worse))


def verdicts_table(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as plain text."""
    titles = ("group", "what", "against", "ratio", "then", "least", "then", "change", "")
    return columns([titles, *(_cells(verdict) for verdict in verdicts)], right=range(3, 8))


def _cells(verdict: Verdict) -> tuple[str, ...]:
    before = verdict.before
    return (
        verdict.group,
        verdict.name,
        verdict.against,
        _shown(verdict.ratio),
        _shown(before and before.ratio),
        _shown(verdict.least_ratio),
        _shown(before and before.least_ratio),
        "" if verdict.change is None else f"{verdict.change:+.1%}",
        verdict.says,
    )


def _shown(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def read_committed(path: Path) -> dict[str, Recording]:
    """The recordings of a file, by group; none where there is no file yet."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        group: Recording(
            recording["surroundings"], tuple(Committed(**each) for each in recording["figures"])
        )
        for group, recording in content.items()
    }


def write_committed(path: Path, recordings: Mapping[str, Recording]) -> None:
    """Write all recordings."""
    content = {group: asdict(recording) for group, recording in recordings.items()}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
