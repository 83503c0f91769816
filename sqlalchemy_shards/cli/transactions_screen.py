"""Transactions in doubt, and what became of them, on a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from sqlalchemy_shards.cli.output import counted, print_line
from sqlalchemy_shards.topology.durations import shown_duration
from sqlalchemy_shards.transactions.gid import parse_transaction
from sqlalchemy_shards.transactions.refusals import first_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

    from rich.console import Console

    from sqlalchemy_shards.transactions.reports import InDoubtTransaction, RecoveryReport, Survey
    from sqlalchemy_shards.transactions.resolving import Assessment

SHOWN_MAX: Final = 50
"""How many transactions a table shows; JSON has them all."""


def short_of(gid: str) -> str:
    """The part of a gid that tells transactions apart."""
    transaction = parse_transaction(gid)
    return gid if transaction is None else transaction.transaction.hex


def print_survey(survey: Survey, cluster: str, out: Console) -> None:
    """Print what is prepared, what somebody else prepared, and which shards were not seen."""
    what = counted(len(survey.in_doubt), "transaction")
    out.print(f"Cluster [bold]{escape(cluster)}[/]: {what} in doubt")
    if survey.in_doubt:
        out.print(_table(survey.in_doubt, survey.unreachable))
    _print_not_understood(survey.not_understood, out)
    for shard, foreign in survey.foreign:
        age = shown_duration(foreign.age.total_seconds())
        print_line(
            "[dim]-[/]",
            f"{shard}: {foreign.gid!r}, prepared {age} ago by"
            f" {foreign.owner or 'a dropped role'}, is somebody else's: it is left alone, and holds"
            " its locks",
            out,
        )
    _print_unreachable(survey.unreachable, out)
    if survey.in_doubt:
        print_line("[bold]→[/]", "shards transactions recover finishes what can be settled", out)


def print_recovery(
    report: RecoveryReport, out: Console, *, older_than: timedelta | None = None
) -> None:
    """Print what a recovery did, what it left, and what to do about it."""
    for outcome in ("committed", "aborted"):
        parts = [part for part in report.finished if part.outcome == outcome]
        if parts:
            transactions = len({part.gid for part in parts})
            where = ", ".join(sorted({part.shard for part in parts}))
            verb = "committed" if outcome == "committed" else "rolled back"
            print_line(
                "[green]✓[/]",
                f"{verb} {counted(transactions, 'transaction')}"
                f" ({counted(len(parts), 'part')} on {where})",
                out,
            )
    young = [one for one in report.in_doubt if is_young(one, older_than)]
    old = [one for one in report.in_doubt if one not in young]
    if young:
        age = shown_duration((older_than or young[0].age).total_seconds())
        print_line(
            "[dim]-[/]",
            f"left alone: {counted(len(young), 'transaction')} younger than {age}",
            out,
        )
    if old:
        print_line("[yellow]![/]", f"{counted(len(old), 'transaction')} in doubt still:", out)
        out.print(_table(old, report.unreachable))
    for error, number in _alike(report.failures).items():
        print_line("[red]✗[/]", f"{counted(number, 'part')} not finished on {error}", out)
    _print_not_understood(report.not_understood, out)
    _print_unreachable(report.unreachable, out)
    if old and report.unreachable:
        print_line(
            "[bold]→[/]",
            "bring the shards back that do not answer, and run this again; where one is lost for"
            " good, see shards transactions resolve --help",
            out,
        )
    if report.decisions_removed:
        removed = counted(report.decisions_removed, "old decision row")
        print_line("[dim]-[/]", f"removed {removed}", out)
    if report.is_clean and not report.finished:
        print_line("[green]✓[/]", "nothing is in doubt", out)


def print_assessment(assessment: Assessment, *, commit: bool, out: Console) -> None:
    """Print what is about to be done by hand, and what it risks."""
    verb = "commit" if commit else "roll back"
    decides = _deciding(assessment.decision_shard, assessment.unreachable)
    out.print(
        f"[bold]About to {verb} by hand[/] transaction {assessment.gid.transaction.hex}"
        f"\n  on {escape(', '.join(part.shard for part in assessment.parts))}"
        f"; its decision shard is {escape(decides)}"
    )
    _print_unreachable(assessment.unreachable, out)
    if not assessment.unreachable:
        out.print("  No shard of this configuration is that shard.")
    if assessment.committed_on:
        out.print(f"  It was committed on {escape(', '.join(assessment.committed_on))}.")
    out.print(
        "\n[red bold]This decides in place of the decision shard.[/] If that shard comes back and"
        " says otherwise, the transaction is half committed, for ever. Do this only if its data are"
        " lost for good, and not while it is merely down, restarting, or out of this machine's"
        " reach.\n"
    )


def _table(
    transactions: Sequence[InDoubtTransaction], unreachable: Mapping[str, BaseException]
) -> Padding:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("decided by", no_wrap=True)
    table.add_column("prepared on", overflow="fold")
    table.add_column("transaction", no_wrap=True)
    for one in transactions[:SHOWN_MAX]:
        table.add_row(
            shown_duration(one.age.total_seconds()),
            escape(_deciding(one.decision_shard, unreachable)),
            escape(", ".join(one.prepared)),
            short_of(one.gid),
        )
    more = len(transactions) - SHOWN_MAX
    if more > 0:
        table.add_row("…", f"{more} more", "", "")
    return Padding(table, (0, 0, 1, 2), expand=False)


def _deciding(name: str | None, unreachable: Mapping[str, BaseException]) -> str:
    """The shard that decides, as far as it is known: one that never answered has not said it."""
    if name is not None:
        return f"{name} (no answer)" if name in unreachable else name
    if len(unreachable) == 1:
        return f"{next(iter(unreachable))}? (no answer)"
    return "one that does not answer" if unreachable else "no shard of this cluster"


def _print_not_understood(found: Iterable[tuple[str, str]], out: Console) -> None:
    for shard, gid in found:
        print_line(
            "[yellow]![/]",
            f"{shard}: {gid} is of this cluster, but of a later release or of another shard; it is"
            " left alone",
            out,
        )


def _print_unreachable(unreachable: Mapping[str, BaseException], out: Console) -> None:
    for shard, error in unreachable.items():
        print_line("[red]✗[/]", f"{shard} does not answer: {first_line(error)}", out)


def _alike(failures: Mapping[tuple[str, str], BaseException]) -> Counter[str]:
    """Shard and error -> how many parts could not be finished."""
    return Counter(f"{shard}: {first_line(error)}" for (_, shard), error in failures.items())


def _in_doubt_as_dict(transaction: InDoubtTransaction) -> dict[str, Any]:
    """A transaction for JSON."""
    return {
        "gid": transaction.gid,
        "transaction": short_of(transaction.gid),
        "decision_shard": transaction.decision_shard,
        "prepared": list(transaction.prepared),
        "prepared_at": transaction.prepared_at.isoformat(),
        "age_seconds": round(transaction.age.total_seconds(), 3),
    }


def survey_as_dict(survey: Survey) -> dict[str, Any]:
    """A survey for JSON."""
    return {
        "in_doubt": [_in_doubt_as_dict(one) for one in survey.in_doubt],
        "not_understood": [{"shard": s, "gid": gid} for s, gid in survey.not_understood],
        "foreign": [
            {
                "shard": shard,
                "gid": one.gid,
                "owner": one.owner,
                "age_seconds": round(one.age.total_seconds(), 3),
            }
            for shard, one in survey.foreign
        ],
        "unreachable": {shard: first_line(e) for shard, e in survey.unreachable.items()},
    }


def is_young(transaction: InDoubtTransaction, older_than: timedelta | None) -> bool:
    """Whether a recovery left a transaction alone because of its age."""
    return older_than is not None and transaction.age < older_than


def recovery_as_dict(report: RecoveryReport, older_than: timedelta | None = None) -> dict[str, Any]:
    """A recovery's report for JSON; ``is_young`` are those that were left alone for their age."""
    return {
        "finished": [
            {"gid": part.gid, "shard": part.shard, "outcome": part.outcome}
            for part in report.finished
        ],
        "in_doubt": [
            {**_in_doubt_as_dict(one), "is_young": is_young(one, older_than)}
            for one in report.in_doubt
        ],
        "failures": [
            {"gid": gid, "shard": shard, "error": first_line(error)}
            for (gid, shard), error in report.failures.items()
        ],
        "not_understood": [{"shard": s, "gid": gid} for s, gid in report.not_understood],
        "unreachable": {shard: first_line(e) for shard, e in report.unreachable.items()},
        "decisions_removed": report.decisions_removed,
    }
