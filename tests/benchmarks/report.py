"""Figures, their goals, and how both are shown."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .timing import Times

PACKAGES = ("SQLAlchemy", "psycopg", "greenlet", "mmh3")


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, beside what it is held against.

    :param base_us: microseconds of the base: SQLAlchemy without a cluster, the slowest shard.
    :param own_us: microseconds of the cluster.
    :param ratio: the median, over the rounds, of own to base.
    :param least_ratio: least round to least round.
    :param goal: the limit in words.
    :param goal_ratio: the limit of the ratio; None: there is none, or it is one of time.
    :param is_ratio: whether a base was measured beside it; else the base is a number of the goal.
    """

    name: str
    against: str
    base_us: float
    own_us: float
    ratio: float
    least_ratio: float
    goal: str = ""
    is_met: bool | None = None
    details: dict[str, float] = field(default_factory=dict)
    goal_ratio: float | None = None
    is_ratio: bool = True


def compared(
    name: str, own: Times, base: Times, *, against: str, ratio_max: float | None = None
) -> Figure:
    """Compare two contenders of the same rounds.

    :param ratio_max: the goal, held against the median of the rounds' ratios; None: none.
    """
    ratio = median(own.ratios_to(base))
    return Figure(
        name,
        against,
        base.typical * 1e6,
        own.typical * 1e6,
        ratio,
        own.least / base.least,
        "" if ratio_max is None else f"<= {ratio_max:.2f}x",
        None if ratio_max is None else round(ratio, 3) <= ratio_max,
        goal_ratio=ratio_max,
    )


def surroundings(server_version: int) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "postgresql": server_version,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **{name: version(name) for name in PACKAGES},
    }


def table(figures: Iterable[Figure]) -> str:
    """The figures as plain text."""
    titles = ("what", "against", "base us", "ours us", "ratio", "least", "goal", "")
    return columns([titles, *(_cells(figure) for figure in figures)], right=range(2, 6))


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> str:
    """Rows of plain text, the first of which has the titles.

    :param right: the columns of numbers.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(row, widths, right) for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def missed(figures: Sequence[Figure]) -> str:
    """What falls short, said loudly; empty where nothing does."""
    short = [figure for figure in figures if figure.is_met is False]
    if not short:
        return ""
    names = "\n".join(
        f"  {figure.name} against {figure.against}: {figure.ratio:.3f}x, goal {figure.goal}"
        for figure in short
    )
    return f"GOALS MISSED: {len(short)}\n{names}"


def write_json(path: Path, around: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Write everything that was measured."""
    content = {"surroundings": around, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cells(figure: Figure) -> tuple[str, ...]:
    met = {True: "met", False: "MISSED", None: ""}[figure.is_met]
    return (
        figure.name,
        figure.against,
        f"{figure.base_us:,.1f}",
        f"{figure.own_us:,.1f}",
        f"{figure.ratio:.3f}",
        f"{figure.least_ratio:.3f}",
        figure.goal,
        met,
    )


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column in right else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
