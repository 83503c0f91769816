"""``shards transactions``: what is in doubt, finishing it, and deciding it by hand."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sqlalchemy_shards.cli.failures import FAILED, readable_failures
from sqlalchemy_shards.cli.output import console, print_json
from sqlalchemy_shards.cli.transactions_screen import (
    is_young,
    print_assessment,
    print_recovery,
    print_survey,
    recovery_as_dict,
    short_of,
    survey_as_dict,
)
from sqlalchemy_shards.cluster.cluster import Cluster
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.durations import parse_duration
from sqlalchemy_shards.transactions.gid import parse, parse_transaction
from sqlalchemy_shards.transactions.protocol.settling import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.transactions.recovery import Recovery
    from sqlalchemy_shards.transactions.reports import RecoveryReport

PREFIX_MIN: Final = 6
"""How many characters of a transaction's name are enough, if no other begins so."""

_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@readable_failures()
def list_(context: typer.Context, as_json: _JSON = False) -> None:
    """List the distributed transactions that are prepared on some shard; changes nothing.

    A few that are milliseconds old are just being committed. Exits 1 if a shard does not answer.
    """
    with _cluster(context) as cluster:
        survey = cluster.recovery.survey()
        if as_json:
            print_json(survey_as_dict(survey))
        else:
            print_survey(survey, cluster.name, console())
    if survey.unreachable:
        raise typer.Exit(FAILED)


@readable_failures()
def recover(
    context: typer.Context,
    older_than: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Leave alone what was prepared more recently, as 30s or 5m. With 0s, commits that"
            " are under way may be aborted.",
        ),
    ] = "1m",
    gid: Annotated[
        str | None,
        typer.Option(
            metavar="GID",
            help="Finish only this transaction, whatever its age: its gid, or the beginning of its"
            " name in the list.",
        ),
    ] = None,
    as_json: _JSON = False,
) -> None:
    """Finish what crashes left prepared, as its decision shards have decided.

    May be run at any time, any number of times, beside running applications. Exits 1 if anything is
    left that should have been finished, or a shard does not answer.
    """
    age = parse_duration(older_than)
    if age is None:
        raise typer.BadParameter(f"{older_than!r} is no duration such as 30s, 5m or 0s")
    with _cluster(context) as cluster:
        if gid is not None:
            age = timedelta(0)
            gid = _full_gid(gid, cluster.recovery)
        report = cluster.recover(age, gid=gid)
    if as_json:
        print_json(recovery_as_dict(report, age))
    else:
        print_recovery(report, console(), older_than=age)
    if _is_left(report, age):
        raise typer.Exit(FAILED)


@readable_failures()
def resolve(
    context: typer.Context,
    gid: Annotated[
        str,
        typer.Option(
            metavar="GID",
            help="The transaction: its gid, or the beginning of its name in the list.",
            show_default=False,
        ),
    ],
    commit: Annotated[bool, typer.Option("--commit", help="Commit what is prepared.")] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Roll back what is prepared.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: _JSON = False,
) -> None:
    """Decide a transaction by hand: only where its decision shard is gone for good.

    Refused while that shard answers, and against what a shard that has committed shows. If the
    decision shard comes back with another outcome, the transaction is half committed.
    """
    if commit == rollback:
        raise typer.BadParameter("say either --commit or --rollback")
    outcome = Outcome.COMMITTED if commit else Outcome.ABORTED
    with _cluster(context) as cluster:
        recovery = cluster.recovery
        full = _full_gid(gid, recovery)
        assessment = recovery.assess(full)
        assessment.refuse_unless_lost(outcome)
        if not yes:
            print_assessment(assessment, commit=commit, out=console(stderr=True))
            _confirm(short_of(full))
        report = recovery.resolve(full, outcome)
    if as_json:
        print_json(recovery_as_dict(report))
    else:
        print_recovery(report, console())
    if report.failures:
        raise typer.Exit(FAILED)


@contextmanager
def _cluster(context: typer.Context) -> Iterator[Cluster]:
    cluster = Cluster.from_file(context.obj)
    try:
        yield cluster
    finally:
        cluster.dispose()


def _full_gid(text: str, recovery: Recovery) -> str:
    """Return the gid that a user means, by the whole of it or by the beginning of its name."""
    if parse(text) is not None or parse_transaction(text) is not None:
        return text
    if len(text) < PREFIX_MIN:
        raise typer.BadParameter(f"{text!r} is too short: give {PREFIX_MIN} characters or more")
    survey = recovery.survey()
    found = [one.gid for one in survey.in_doubt if short_of(one.gid).startswith(text.lower())]
    if not found:
        raise ConfigurationError(
            f"no transaction in doubt is called {text!r}", "see `shards transactions list`"
        )
    if len(found) > 1:
        raise ConfigurationError(
            f"{len(found)} transactions in doubt begin with {text!r}", "give more of the name"
        )
    return found[0]


def _confirm(name: str) -> None:
    typed = typer.prompt(
        "Type the transaction's whole name to go on", default="", show_default=False, err=True
    )
    if typed.strip() != name:
        typer.echo("That is not its whole name: nothing was done.", err=True)
        raise typer.Exit(FAILED)


def _is_left(report: RecoveryReport, older_than: timedelta) -> bool:
    old = not all(is_young(one, older_than) for one in report.in_doubt)
    return bool(old or report.failures or report.unreachable or report.not_understood)
