"""A run over shards, on a terminal or in a log: what happens, and what it came to.

A terminal shows the shards that are at work and counts the others; a log gets a line for each shard
that ends. What failed is printed at once in both.
"""

from __future__ import annotations

import shlex
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sqlalchemy_shards.cli.output import bar, counted, print_line
from sqlalchemy_shards.cluster.readiness.report import some
from sqlalchemy_shards.migrations.workers.messages import (
    Applied,
    Began,
    Done,
    Failed,
    Take,
    Waiting,
)
from sqlalchemy_shards.migrations.workers.report import Outcome
from sqlalchemy_shards.migrations.workers.runner import Output, Pausing, Stopping
from sqlalchemy_shards.topology.durations import shown_duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import Console, RenderableType

    from sqlalchemy_shards.migrations.workers.order import Order
    from sqlalchemy_shards.migrations.workers.report import MigrationReport, ShardMigration
    from sqlalchemy_shards.migrations.workers.runner import Progress

NAMES_SHOWN_MAX: Final = 12
"""How many shards to which the same happened are named."""

_WIDTH: Final = 24
_VERBS: Final = {"upgrade": "Upgrading", "downgrade": "Downgrading", "stamp": "Stamping"}
_MARKS: Final = {
    Outcome.MIGRATED: "[green]✓[/]",
    Outcome.UNCHANGED: "[dim]-[/]",
    Outcome.FAILED: "[red]✗[/]",
    Outcome.INTERRUPTED: "[yellow]![/]",
    Outcome.NOT_BEGUN: "[dim]·[/]",
}


class _AtWork:
    """A shard whose turn it is."""

    def __init__(self) -> None:
        self.started = monotonic()
        self.before: tuple[str, ...] = ()
        self.steps: tuple[str, ...] = ()
        self.applied = 0
        self.waits: str | None = None

    @property
    def seconds(self) -> float:
        return monotonic() - self.started


class Screen:
    """Shows a run while it goes on; to be used in ``with``.

    :param is_verbose: print what ``env.py`` and revisions print.
    """

    def __init__(self, order: Order, out: Console, *, is_verbose: bool = False) -> None:
        self._order = order
        self._out = out
        self._is_verbose = is_verbose
        self._started = monotonic()
        self._at_work: dict[str, _AtWork] = {}
        self._counts: Counter[Outcome] = Counter()
        self._note = ""
        self._live: Live | None = None
        if out.is_terminal:
            self._live = Live(
                get_renderable=self._picture, console=out, transient=True, refresh_per_second=8
            )

    def __enter__(self) -> Screen:
        self._out.print(_title(self._order), soft_wrap=True)
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show what has happened."""
        if isinstance(progress, Take):
            self._at_work[progress.shard] = _AtWork()
        elif isinstance(progress, Output):
            if self._is_verbose:
                shard = f"{progress.shard} | " if progress.shard else ""
                self._out.print(Text(f"{shard}{progress.line}", style="dim"), soft_wrap=True)
        elif isinstance(progress, Pausing):
            self._pause(progress)
        elif isinstance(progress, Stopping):
            self._note = "stopping"
            self._line("[yellow]![/]", "stopping: what is at work is rolled back")
        elif isinstance(progress, (Began, Applied, Waiting)):
            self._follow(progress)
        elif isinstance(progress, (Done, Failed)) and progress.shard in self._at_work:
            self._end(progress, self._at_work.pop(progress.shard))

    def _follow(self, progress: Began | Applied | Waiting) -> None:
        work = self._at_work[progress.shard]
        work.waits = None
        if isinstance(progress, Began):
            work.before, work.steps, work.applied = progress.before, progress.steps, 0
        elif isinstance(progress, Applied):
            work.applied += 1
        else:
            work.waits = progress.reason.removeprefix(f"shard {progress.shard}: ")
            if self._live is None:
                self._line("[yellow]…[/]", f"{progress.shard}: {work.waits}")

    def _end(self, end: Done | Failed, work: _AtWork) -> None:
        if isinstance(end, Done):
            outcome = Outcome.MIGRATED if work.steps else Outcome.UNCHANGED
            told = _way(work.before, end.after, work.applied) if work.steps else "already there"
            told = f"{told} in {_seconds(work.seconds)}" if work.steps else told
        else:
            outcome = Outcome.INTERRUPTED if end.is_interrupted else Outcome.FAILED
            told = _failure(end.error, end.revision)
        self._counts[outcome] += 1
        if self._live is None or not isinstance(end, Done):
            self._line(_MARKS[outcome], f"{end.shard}: {told}")

    def _pause(self, pausing: Pausing) -> None:
        when = "" if pausing.seconds is None else f" in {shown_duration(pausing.seconds)}"
        self._line("[green]✓[/]", f"{pausing.canary} is there; the rest follows{when}")
        if self._live is not None and pausing.seconds is None:
            # A question cannot be asked under a picture that is drawn anew.
            self._live.stop()
            self._live = None

    def _line(self, mark: str, text: str) -> None:
        self._out.print(f"{mark} {escape(text)}", soft_wrap=True)

    # -- the picture --

    def _picture(self) -> RenderableType:
        ended = sum(self._counts.values())
        share = ended / max(1, len(self._order.shards))
        overall = Text.assemble(
            (bar(share, _WIDTH).ljust(_WIDTH, "░"), "cyan"),
            f" {ended} of {len(self._order.shards)} shards",
            (f"  {_seconds(monotonic() - self._started)}", "dim"),
            *(self._told_of(outcome) for outcome in self._counts),
        )
        rows = Table.grid(padding=(0, 2, 0, 0))
        rows.add_column(width=1)
        rows.add_column(no_wrap=True)
        rows.add_column(no_wrap=True)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        rows.add_column(justify="right", no_wrap=True)
        for shard, work in tuple(self._at_work.items()):
            rows.add_row("", Text(shard, style="bold"), *_row(work))
        if not self._at_work and ended < len(self._order.shards):
            rows.add_row("", Text(self._note or "waiting for a worker to load env.py", style="dim"))
        return Group(overall, rows)

    def _told_of(self, outcome: Outcome) -> Text:
        return Text.from_markup(f"   {_MARKS[outcome]} {self._counts[outcome]} {outcome.value}")


def command_line(arguments: Sequence[str]) -> str:
    """The command that was given, to be given again."""
    return shlex.join(["shards", *arguments])


def print_migrations(report: MigrationReport, out: Console, *, again: str) -> None:
    """Print what a run came to, and how to go on.

    :param again: the command that goes on.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for alike in _alike(report.shards):
        first = alike[0]
        counted = f"{len(alike)} {first.outcome.value}"
        table.add_row(_MARKS[first.outcome], counted, escape(_what(alike)))
    out.print()
    out.print(table)
    out.print()
    if report.error is not None:
        print_line("[red]✗[/]", report.error, out)
    _print_summary(report, out)
    if not report.is_complete:
        failed = report.error or any(each.outcome is Outcome.FAILED for each in report.shards)
        mend = "mend what failed, and go on with:" if failed else "go on with:"
        print_line("[bold]→[/]", mend, out)
        out.print(f"  {escape(again)}", soft_wrap=True)


def _print_summary(report: MigrationReport, out: Console) -> None:
    there = sum(shard.is_there for shard in report.shards)
    target, count = " ".join(report.revisions), len(report.shards)
    took = f"after {_seconds(report.seconds)}"
    if report.is_complete:
        text = f"All {count} shards are at {target}" if count > 1 else f"The shard is at {target}"
        out.print(f"[green]{escape(text)}[/], {took}.")
        return
    stopped = "Interrupted: " if report.is_interrupted else ""
    verb = "is" if there == 1 else "are"
    out.print(f"[red]{stopped}{there} of {count} shards {verb} at {escape(target)}[/], {took}.")


def _alike(shards: Sequence[ShardMigration]) -> list[list[ShardMigration]]:
    """The shards to which the same happened, together; each that failed by itself."""
    groups: dict[object, list[ShardMigration]] = {}
    for each in sorted(shards, key=lambda shard: list(Outcome).index(shard.outcome)):
        key = (each.outcome, each.before, each.after, each.error, each.revision)
        groups.setdefault(key, []).append(each)
    return list(groups.values())


def _what(alike: Sequence[ShardMigration]) -> str:
    """What happened to some shards, which are named."""
    first = alike[0]
    names = some([shard.shard for shard in alike], shown_max=NAMES_SHOWN_MAX)
    if first.outcome is Outcome.NOT_BEGUN:
        return names
    if first.is_there:
        return f"{_way(first.before, first.after, first.applied)}: {names}"
    left = "where it is cannot be told" if first.after is None else f"at {_heads(first.after)}"
    return f"{names}, {left}: {_failure(first.error, first.revision)}"


def _way(before: Sequence[str] | None, after: Sequence[str] | None, applied: int) -> str:
    if tuple(before or ()) == tuple(after or ()):
        return _heads(after)
    return f"{_heads(before)} → {_heads(after)} ({counted(applied, 'revision')})"


def _heads(heads: Sequence[str] | None) -> str:
    return ", ".join(sorted(heads or ())) or "base"


def _failure(error: str | None, revision: str | None) -> str:
    return f"{error} (in revision {revision})" if revision else f"{error}"


def _row(work: _AtWork) -> tuple[Text, Text, str]:
    """How far a shard is: a bar, the revision that is being applied, the time."""
    if work.waits is not None:
        return Text(""), Text(work.waits, style="yellow"), _seconds(work.seconds)
    if not work.steps:
        return Text(""), Text("connecting", style="dim"), _seconds(work.seconds)
    done = bar(work.applied / len(work.steps), 8).ljust(8, "░")
    step = work.steps[min(work.applied, len(work.steps) - 1)]
    told = step if work.applied < len(work.steps) else "committing"
    counted = f"{done} {work.applied}/{len(work.steps)}"
    return Text(counted, style="cyan"), Text(told), _seconds(work.seconds)


def _title(order: Order) -> str:
    job, count = order.job, len(order.shards)
    workers = min(order.parallel, count)
    at_once = f", {workers} at once" if workers > 1 else ""
    canary = f", {order.canary} first" if order.canary else ""
    cluster, target = escape(order.addresses.cluster), escape(" ".join(job.revisions))
    shards = counted(count, "shard")
    return f"[bold]{_VERBS[job.command]} {cluster}[/] to {target}: {shards}{at_once}{canary}"


def _seconds(seconds: float) -> str:
    return shown_duration(seconds) if seconds >= 60 else f"{seconds:.1f} s"
