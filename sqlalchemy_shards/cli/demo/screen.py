"""What the demo shows: on a terminal with colours and progress bars, else as plain lines."""

from __future__ import annotations

from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from sqlalchemy_shards.cli.explain import tree_of
from sqlalchemy_shards.cli.output import bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import Console, RenderableType

    from sqlalchemy_shards.cli.demo.checks import Check
    from sqlalchemy_shards.cli.demo.steps import Step

_BAR_WIDTH: Final = 40
_VALUE_LENGTH_MAX: Final = 60


class Screen:
    """Shows the demo on one console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Print a line; it may have markup."""
        self._console.print(text)

    @contextmanager
    def doing(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show that something is being done, and at the end how long it took.

        Yields what is called as the work goes on, with how much more of ``total`` is done.
        """
        began = perf_counter()
        if self._console.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn(bar_width=None)]
            counted = [MofNCompleteColumn()] if total is not None else []
            with Progress(
                *columns, *counted, TimeElapsedColumn(), console=self._console, transient=True
            ) as progress:
                task = progress.add_task(what, total=total)
                yield lambda count: progress.advance(task, count)
        else:
            yield lambda count: None
        self.say(f"{what} [dim]{perf_counter() - began:.1f} s[/]")

    def step(self, step: Step) -> None:
        """Show what was done, its result, its time and its plan."""
        out = self._console
        out.print()
        out.rule(f"[bold]{escape(step.title)}[/]", align="left", style="cyan")
        code = Syntax(step.code, "python", theme="ansi_dark", background_color="default")
        self._indented(code)
        out.print()
        for line in step.lines:
            self._indented(Text(line))
        if isinstance(step.value, dict):
            self._bars(step.value)
        times = [f"{seconds * 1000:,.1f} ms" for seconds in step.seconds]
        again = f" the first time, {times[1]} the second" if len(times) > 1 else ""
        self._indented(Text(times[0] + again, "green"))
        out.print()
        for plan in step.plans:
            self._indented(tree_of(plan, width=out.width - 2, shorten=True))

    def checks(self, checks: Sequence[Check]) -> None:
        """Show what was compared with the source file."""
        out = self._console
        out.print()
        out.rule("[bold]Compared with the source file[/]", align="left", style="cyan")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=3, justify="right")
        table.add_column()
        table.add_column(overflow="fold")
        for check in checks:
            mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
            table.add_row(mark, escape(check.name), escape(_compared(check)))
        out.print(table)

    def _bars(self, counts: Mapping[str, int]) -> None:
        most = max(counts.values()) or 1
        width = min(_BAR_WIDTH, max(10, self._console.width - 24))
        for shard, count in counts.items():
            drawn = bar(count / most, width)
            text = Text.assemble(f"{shard:>4} ", (f"{drawn:<{width}}", "cyan"), f" {count:>8,}")
            self._indented(text)

    def _indented(self, what: RenderableType) -> None:
        self._console.print(Padding(what, (0, 0, 0, 2), expand=False))


def _compared(check: Check) -> str:
    if check.passed:
        return _shown(check.found)
    if isinstance(check.expected, dict):
        differing = [key for key, value in check.expected.items() if check.found.get(key) != value]
        expected = {key: check.expected[key] for key in differing}
        found = {key: check.found.get(key) for key in differing}
        return f"{_shown(found)}, but the file says {_shown(expected)}"
    return f"{_shown(check.found)}, but the file says {_shown(check.expected)}"


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict) and len(value) > 3:
        return f"{len(value):,}, which add up to {sum(value.values()):,}"
    if isinstance(value, (list, tuple)) and len(value) > 3:
        return f"{len(value):,}"
    text = str(value) if value else "none"
    return text if len(text) <= _VALUE_LENGTH_MAX else text[:_VALUE_LENGTH_MAX] + "…"
