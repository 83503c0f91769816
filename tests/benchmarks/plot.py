"""The committed ratios as a picture: a row for each, with its median, its least and its goal.

Plain SVG with classes of its own, which reads in light and dark pages.
"""

from __future__ import annotations

from html import escape
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .committed import Committed, Recording

PLOT: Final = Path(__file__).parents[2] / "docs" / "static" / "ratios.svg"

LEFT, RIGHT, WIDTH = 400, 60, 960
ROW, TOP, BOTTOM = 20, 44, 14

STYLE = """\
text { font: 12px sans-serif; fill: #666 }
.group { font-weight: bold }
.grid { stroke: #888; stroke-opacity: .25 }
.one { stroke: #888 }
.range { stroke-width: 3; stroke-opacity: .45 }
.median { stroke: none }
.met { stroke: #2a8f4f; fill: #2a8f4f }
.missed { stroke: #c8452f; fill: #c8452f }
.free { stroke: #4a78b5; fill: #4a78b5 }
.goal { stroke: #b8860b; stroke-width: 3 }"""


def plot(recordings: Mapping[str, Recording]) -> str:
    """The SVG. Its axis is logarithmic: twice as long is as far to the right as half is left."""
    figures = [figure for recording in recordings.values() for figure in recording.figures]
    height = TOP + BOTTOM + ROW * (len(figures) + len(recordings))
    ends = [each.ratio for each in figures] + [each.goal for each in figures if each.goal]
    axis = _Axis(min([0.5, *ends]), max([2.0, *ends]))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            "<title>What a cluster takes, as a multiple of what it is held against</title>",
            f"<style>{STYLE}</style>",
            *_legend(),
            *axis.drawn(height),
            *_rows(recordings, axis),
            "</svg>\n",
        ]
    )


class _Axis:
    def __init__(self, least: float, most: float) -> None:
        self._first, self._last = -ceil(-log2(least)), ceil(log2(most))

    def x(self, ratio: float) -> float:
        part = (log2(ratio) - self._first) / (self._last - self._first)
        return round(LEFT + min(1.0, max(0.0, part)) * (WIDTH - LEFT - RIGHT), 1)

    def drawn(self, height: int) -> Iterator[str]:
        for power in range(self._first, self._last + 1):
            x, kind = self.x(2.0**power), "one" if power == 0 else "grid"
            yield f'<line class="{kind}" x1="{x}" y1="{TOP - 8}" x2="{x}" y2="{height - BOTTOM}"/>'
            yield f'<text x="{x}" y="{TOP - 12}" text-anchor="middle">{2.0**power:g}x</text>'


def _legend() -> Iterator[str]:
    yield f'<text x="{LEFT}" y="14">ours to theirs, less is better: dot the median, bar to the '
    yield "least; upright mark: the goal</text>"


def _rows(recordings: Mapping[str, Recording], axis: _Axis) -> Iterator[str]:
    y = TOP
    for group, recording in recordings.items():
        y += ROW
        yield f'<text class="group" x="4" y="{y - 6}">{escape(group)}</text>'
        for figure in recording.figures:
            y += ROW
            yield from _row(figure, axis, y - 10)


def _row(figure: Committed, axis: _Axis, y: int) -> Iterator[str]:
    goal = figure.goal
    kind = "free" if goal is None else "met" if figure.ratio <= goal else "missed"
    x, least = axis.x(figure.ratio), axis.x(figure.least_ratio)
    name = escape(f"{figure.name} : {figure.against}")
    yield f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{name}</text>'
    yield f'<line class="range {kind}" x1="{least}" y1="{y}" x2="{x}" y2="{y}"/>'
    yield f'<circle class="median {kind}" cx="{x}" cy="{y}" r="5"/>'
    if goal is not None:
        mark = axis.x(goal)
        yield f'<line class="goal" x1="{mark}" y1="{y - 8}" x2="{mark}" y2="{y + 8}"/>'
    yield f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4}">{figure.ratio:.2f}</text>'
