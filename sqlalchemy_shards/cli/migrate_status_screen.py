"""How far the shards' migrations are, on a terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from sqlalchemy_shards.cli.output import print_line
from sqlalchemy_shards.cluster.readiness.report import some
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.standing import Standing
from sqlalchemy_shards.topology.durations import shown_duration
from sqlalchemy_shards.transactions.refusals import first_line

if TYPE_CHECKING:
    from rich.console import Console

    from sqlalchemy_shards.migrations.status import ClusterStatus, ShardStatus
    from sqlalchemy_shards.migrations.turns.ledger import Run

_MARKS = {"done": "[green]✓[/]", "failed": "[red]✗[/]", "interrupted": "[yellow]![/]"}
_COMMANDS = ("upgrade", "downgrade", "stamp")
_COLOURS = {
    Standing.AT_HEAD: "green",
    Standing.BEHIND: "yellow",
    Standing.AHEAD: "red",
    Standing.OTHER_BRANCH: "red",
}


def print_status(status: ClusterStatus, out: Console) -> None:
    """Print a table of the shards, why some of them are not well, and what to do."""
    heads = ", ".join(status.heads) or "no revision yet"
    out.print(
        f"Cluster [bold]{escape(status.cluster)}[/]: {escape(_summary(status))}; "
        f"head of the scripts: {escape(heads)}"
    )
    if status.shards:
        out.print(_table(status))
    for shard in status.shards:
        _print_notes(shard, out)
    for name, error in status.unreachable.items():
        if isinstance(error, ConfigurationError):
            told = f"cannot be used: {' '.join(str(error).split())}"
        else:
            told = f"does not answer: {first_line(error)}"
        print_line("[red]✗[/]", f"{name} {told}", out)
    for newcomer in status.newcomers:
        mark = "[yellow]![/]" if newcomer.is_certain else "[dim]·[/]"
        print_line(mark, newcomer.sentence(), out)
    for command in _ways_on(status):
        print_line("[bold]→[/]", command, out)
    if any(each.drift for each in status.shards):
        print_line("[bold]→[/]", "shards migrate check tells in what they differ", out)


def status_as_dict(status: ClusterStatus) -> dict[str, Any]:
    """The status for JSON."""
    return {
        "cluster": status.cluster,
        "heads": list(status.heads),
        "is_at_head": status.is_at_head,
        "shards": [_shard_as_dict(shard) for shard in status.shards],
        "unreachable": {shard: first_line(e) for shard, e in status.unreachable.items()},
        "newcomers": [{**asdict(each), "advice": each.sentence()} for each in status.newcomers],
    }


def _summary(status: ClusterStatus) -> str:
    counts = Counter(each.distance.standing for each in status.shards)
    told = [f"{counts[each]} {each.value}" for each in Standing if counts[each]]
    if status.unreachable:
        told.append(f"{len(status.unreachable)} without an answer")
    out = [each.shard for each in status.newcomers if each.is_certain and each.is_configured]
    return f"{', '.join(told)}{f'; not joined: {some(out)}' if out else ''}"


def _ways_on(status: ClusterStatus) -> list[str]:
    """What brings shards to where they should be: what was broken off goes on as it was asked for.

    A shard that joins gets its revisions while it does.
    """
    joining = {each.shard for each in status.newcomers if each.is_certain}
    behind = [each for each in status.shards if each.distance.standing is Standing.BEHIND]
    behind = [each for each in behind if each.shard not in joining]
    broken_off = [each.last for each in status.shards if each.last_outcome == "interrupted"]
    asked = {_asked(run) for run in broken_off if run is not None and run.command in _COMMANDS}
    ways = [
        f"go on with shards migrate {command}, and the options that it had"
        for command in sorted(asked)
    ]
    if behind and not asked & {"upgrade head", "upgrade heads"}:
        ways.append("shards migrate upgrade brings those that are behind to head")
    return ways


def _asked(run: Run) -> str:
    return f"{run.command} {run.target or ''}".strip()


def _table(status: ClusterStatus) -> Padding:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("shard", no_wrap=True)
    table.add_column("revision", overflow="fold")
    table.add_column("standing", no_wrap=True)
    table.add_column("drift", no_wrap=True)
    table.add_column("last run", overflow="fold")
    for shard in status.shards:
        distance = shard.distance
        table.add_row(
            escape(shard.shard),
            escape(", ".join(shard.revisions) or "-"),
            f"[{_COLOURS[distance.standing]}]{escape(_standing(shard))}[/]",
            _drift(shard),
            _last(shard),
        )
    return Padding(table, (0, 0, 1, 2), expand=False)


def _standing(shard: ShardStatus) -> str:
    distance = shard.distance
    by = f" ({distance.behind} behind)" if distance.standing is Standing.OTHER_BRANCH else ""
    if distance.standing is Standing.BEHIND:
        by = f" by {distance.behind}"
    return f"{distance.standing.value}{by}"


def _drift(shard: ShardStatus) -> str:
    if shard.drift is None:
        return "[dim]-[/]"
    return f"[red]{shard.drift}[/]" if shard.drift else "none"


def _last(shard: ShardStatus) -> str:
    run, outcome = shard.last, shard.last_outcome
    if run is None or outcome is None:
        return "[dim]-[/]"
    what = _asked(run)
    ago = _ago(run.finished_at or run.started_at)
    return f"{_MARKS.get(outcome, '[cyan]…[/]')} {escape(f'{what}: {outcome} {ago}')}"


def _print_notes(shard: ShardStatus, out: Console) -> None:
    distance, run, outcome = shard.distance, shard.last, shard.last_outcome
    if distance.standing is Standing.AHEAD:
        revisions = ", ".join(distance.unknown)
        note = f"{shard.shard} has {revisions}, which these scripts do not know: use newer ones"
        print_line("[red]✗[/]", note, out)
    if distance.standing is Standing.OTHER_BRANCH:
        note = f"{shard.shard} has revisions of another branch than most shards"
        print_line("[red]✗[/]", note, out)
    if shard.runner is not None:
        print_line("[cyan]…[/]", f"{shard.shard} is being migrated by {shard.runner}", out)
    if run is not None and outcome == "failed":
        print_line("[red]✗[/]", f"{shard.shard} failed: {run.error}", out)
    if run is not None and outcome == "interrupted":
        how = "was interrupted (Ctrl-C, or a signal)"
        if shard.was_killed:
            how = f"ended without a word: its process ({run.client}) was killed, or lost the shard"
        note = f"{shard.shard}: {_asked(run)} {how}; what was not committed is undone"
        print_line("[yellow]![/]", note, out)


def _ago(when: datetime) -> str:
    seconds = (datetime.now(timezone.utc) - when).total_seconds()
    return f"{shown_duration(max(seconds, 0))} ago"


def _shard_as_dict(shard: ShardStatus) -> dict[str, Any]:
    distance, runner = shard.distance, shard.runner
    return {
        "shard": shard.shard,
        "revisions": list(shard.revisions),
        "standing": distance.standing.name.lower(),
        "behind": distance.behind,
        "unknown": list(distance.unknown),
        "drift": shard.drift,
        "last_outcome": shard.last_outcome,
        "last_run": None if shard.last is None else _run_as_dict(shard.last),
        "runner": None
        if runner is None
        else {"pid": runner.pid, "application": runner.application, "role": runner.role},
    }


def _run_as_dict(run: Run) -> dict[str, Any]:
    return {
        "run": str(run.run),
        "command": run.command,
        "target": run.target,
        "before": list(run.before),
        "after": None if run.after is None else list(run.after),
        "error": run.error,
        "started_at": run.started_at.isoformat(),
        "finished_at": None if run.finished_at is None else run.finished_at.isoformat(),
        "role": run.role,
        "client": run.client,
    }
