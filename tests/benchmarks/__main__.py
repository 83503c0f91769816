"""`python -m tests.benchmarks [GROUP ...]`: run the measurements and print what came out.

`check [GROUP ...]` runs the short form and fails where a ratio is worse than the committed one;
`record [GROUP ...]` writes what is to be committed. Otherwise the exit code says whether the
measurements ran; goals that are missed are printed, and no failure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .committed import (
    COMMITTED,
    TOLERANCE,
    Recording,
    compared_with,
    read_committed,
    recorded,
    to_measure_again,
    verdicts_table,
    write_committed,
)
from .databases import start_servers
from .groups import GROUPS, Bench
from .plot import PLOT, plot
from .report import missed, surroundings, table, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .report import Figure

ATTEMPTS = 3
RUNS_OF_A_RECORDING = 3
QUICK = 0.2

VERBS = ("check", "record")
TO_BE_RECORDED = ("single", "async", "work", "throughput", "flush", "scatter", "commit")
"""What is quick enough to be checked."""

ON_DEMAND = ("copying-millions",)
"""What is measured only where it is named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit code."""
    options = _options(arguments)
    if options.verb == "check":
        return _check(options.backend, options.groups)
    if options.verb == "record":
        _record(options.backend, options.groups)
        return 0
    factor = QUICK if options.quick else 1.0
    around, measured = _measured(options.backend, options.groups, factor)
    figures = [figure for group in measured.values() for figure in group]
    print(", ".join(f"{name} {value}" for name, value in around.items()))
    print(table(figures))
    if short := missed(figures):
        print(f"\n{short}")
    if options.json is not None:
        write_json(options.json, around, figures)
    return 0


def _check(backend: str, groups: Sequence[str]) -> int:
    """Hold the ratios against the committed ones; what seems worse is measured again."""
    recordings = {name: each for name, each in read_committed(COMMITTED).items() if name in groups}
    attempts: dict[str, list[list[Figure]]] = {name: [] for name in recordings}
    doubtful = list(recordings)
    for number in range(1, ATTEMPTS + 1):
        _, measured = _measured(backend, doubtful, QUICK)
        for name, figures in measured.items():
            attempts[name].append(figures)
        verdicts = compared_with(recordings, attempts)
        doubtful = to_measure_again(verdicts)
        print(f"attempt {number} of {ATTEMPTS}\n{verdicts_table(verdicts)}", flush=True)
        if not doubtful:
            return 0
    print(f"WORSE by more than {TOLERANCE:.0%} in {ATTEMPTS} attempts: {', '.join(doubtful)}")
    return 1


def _record(backend: str, groups: Sequence[str]) -> None:
    """Write the ratios of these groups beside those of the others, and draw them all."""
    recordings = read_committed(COMMITTED)
    for name in groups:
        runs = [_measured(backend, [name], QUICK) for _ in range(RUNS_OF_A_RECORDING)]
        figures = recorded([measured[name] for _, measured in runs])
        recordings[name] = Recording(runs[0][0], figures)
    recordings = {name: recordings[name] for name in GROUPS if name in recordings}
    write_committed(COMMITTED, recordings)
    PLOT.write_text(plot(recordings), encoding="utf-8")


def _measured(
    backend: str, groups: Iterable[str], factor: float
) -> tuple[dict[str, Any], dict[str, list[Figure]]]:
    measured: dict[str, list[Figure]] = {}
    with start_servers(backend) as servers:
        around = surroundings(servers.version)
        for name in groups:
            measured[name] = []
            for figure in GROUPS[name](Bench(servers, backend, factor)):
                measured[name].append(figure)
                _tell(f"measured: {figure.name} against {figure.against}: {figure.ratio:.3f}x")
    around["load_average_at_end"] = surroundings(0)["load_average"]
    return around, measured


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    parser.add_argument("--backend", default="auto", choices=("auto", "system", "embedded"))
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    options = parser.parse_args(arguments)
    is_verb = bool(options.groups) and options.groups[0] in VERBS
    options.verb = options.groups.pop(0) if is_verb else None
    if options.verb == "check":
        known = tuple(read_committed(COMMITTED))
        options.groups = options.groups or list(known)
    else:
        known = tuple(GROUPS)
        options.groups = options.groups or list(
            TO_BE_RECORDED if options.verb else (each for each in GROUPS if each not in ON_DEMAND)
        )
    if unknown := set(options.groups) - set(known):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    return options


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
