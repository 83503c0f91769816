"""A report of a check on a terminal: a line for each shard, then what is to be done.

The same thing on several shards is said once. What is well is only counted, unless asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from sqlalchemy_shards.cluster.readiness.report import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sqlalchemy_shards.cluster.readiness.report import Finding, Report

_MARKS: Final = {
    Status.OK: "[green]✓[/]",
    Status.WARNING: "[yellow]![/]",
    Status.FAILED: "[red]✗[/]",
    Status.SKIPPED: "[dim]-[/]",
}
_WORST_FIRST: Final = (Status.FAILED, Status.WARNING, Status.SKIPPED, Status.OK)


def print_report(report: Report, out: Console, *, is_verbose: bool = False) -> None:
    """Print a report.

    :param is_verbose: each finding of each shard, instead of those only that are not well.
    """
    sections = _sections(report)
    if is_verbose:
        for shard, findings in sections.items():
            out.print(f"[bold]{escape(shard or 'all together')}[/]")
            out.print(Padding(_every_finding(findings), (0, 0, 1, 2), expand=False))
    else:
        out.print(f"[bold]Cluster {escape(report.cluster)}[/]")
        out.print(Padding(_overview(sections), (0, 0, 1, 2), expand=False))
        for alike in _alike(report.findings):
            _print_problem(alike, out)
    out.print(_summary(report))


def _sections(report: Report) -> dict[str | None, list[Finding]]:
    """Shard -> its findings; None -> those of all together, which come last."""
    sections: dict[str | None, list[Finding]] = {}
    together: list[Finding] = []
    for each in report.findings:
        (together if each.shard is None else sections.setdefault(each.shard, [])).append(each)
    if together:
        sections[None] = together
    return sections


def _overview(sections: dict[str | None, list[Finding]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for shard, findings in sections.items():
        worst = min((each.status for each in findings), key=_WORST_FIRST.index)
        well = sum(each.status is Status.OK for each in findings)
        server = next((each.found for each in findings if each.subject == "server"), "")
        looked = f"[dim]{well} of {len(findings)} well[/]"
        table.add_row(_MARKS[worst], escape(shard or "all together"), looked, escape(server))
    return table


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """The findings that are not well, the worst first; equal ones of several shards together."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for each in sorted(findings, key=_urgency):
        # "First mend this" says nothing that the failure beside it does not.
        if each.status is not Status.OK and each.subject != "the rest":
            key = (each.status, each.subject, each.found, each.advice)
            groups.setdefault(key, []).append(each)
    return list(groups.values())


def _urgency(finding: Finding) -> tuple[int, bool]:
    return _WORST_FIRST.index(finding.status), finding.subject not in ("reachable", "identity")


def _print_problem(alike: list[Finding], out: Console) -> None:
    first = alike[0]
    where = ", ".join(each.shard or "all together" for each in alike)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    table.add_row(_MARKS[first.status], f"[bold]{escape(where)}: {first.subject}[/]")
    table.add_row("", escape(first.found))
    if first.advice is not None:
        table.add_row("", f"[bold]→[/] {escape(first.advice)}")
    out.print(Padding(table, (0, 0, 1, 0), expand=False))


def _every_finding(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in findings:
        text = escape(each.found)
        if each.advice is not None:
            text += f"\n[bold]→ {escape(each.advice)}[/]"
        table.add_row(_MARKS[each.status], each.subject, text)
    return table


def _summary(report: Report) -> str:
    failures, warnings = len(report.failures), len(report.warnings)
    warned = f"{warnings} {'warning' if warnings == 1 else 'warnings'}"
    if failures:
        what = f"{failures} {'thing has' if failures == 1 else 'things have'} to be done"
        return f"[red]{what}{f', and {warned}' if warnings else ''}.[/]"
    well = f"All is well with the cluster {report.cluster!r}"
    return f"[yellow]{well}, with {warned}.[/]" if warnings else f"[green]{well}.[/]"
