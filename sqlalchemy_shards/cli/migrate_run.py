"""``shards migrate upgrade``, ``downgrade`` and ``stamp``: Alembic's commands over many shards."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from alembic import command as alembic_commands

from sqlalchemy_shards.cli.alembic_config import (
    AlembicConfigOption,
    SectionOption,
    find_alembic_settings,
    readable_alembic,
)
from sqlalchemy_shards.cli.failures import (
    FAILED,
    INTERRUPTED,
    readable_failures,
    refused_as_wrong_usage,
)
from sqlalchemy_shards.cli.migrate_screen import Screen, command_line, print_migrations
from sqlalchemy_shards.cli.migrate_targets import question, targets_of
from sqlalchemy_shards.cli.migrate_together import check_options, go_through_together
from sqlalchemy_shards.cli.output import console, print_json
from sqlalchemy_shards.cluster.cluster import Cluster
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.env.asking import ask_environment
from sqlalchemy_shards.migrations.turns.bounds import Bounds
from sqlalchemy_shards.migrations.workers.addresses import addresses_of, difference
from sqlalchemy_shards.migrations.workers.commands import run
from sqlalchemy_shards.migrations.workers.order import (
    RunOptions,
    order_of,
    refuse_own_arguments,
)
from sqlalchemy_shards.migrations.workers.targets import check_targets_of
from sqlalchemy_shards.topology.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.migrations.workers.addresses import Addresses
    from sqlalchemy_shards.migrations.workers.alembic_settings import AlembicSettings
    from sqlalchemy_shards.migrations.workers.messages import Command
    from sqlalchemy_shards.migrations.workers.order import Order

_Shards: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--shard", metavar="NAME", help="Only this shard; may be repeated."),
]
_Parallel: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="How many shards at once, each by a process of its own. By default as many as there"
        " are, but at most 8.",
        show_default=False,
    ),
]
_Canary: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="SHARD", help="This one first; the rest only if it succeeds."),
]
_Pause: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION|ask", help="Between the canary and the rest: as 30s or 5m, or ask."
    ),
]
_OnFailure: TypeAlias = Annotated[
    str,
    typer.Option(metavar="stop|continue", help="Whether other shards still begin after a failure."),
]
_Atomic: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--atomic", help="All shards or none: nothing is committed before all are migrated."
    ),
]
_Timeout: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Bound of each statement, as 30s or 1h; 0s: none."),
]
_LockTimeout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="How long a statement waits for one lock, as 500ms or 5s; then the shard's migrations"
        " are rolled back and begun again. By default 5s.",
    ),
]
_LockTries: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="How often they are begun. By default 20."),
]
_RunnerTimeout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION", help="How long another migration of a shard is waited for. 60s."
    ),
]
_X: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("-x", metavar="NAME=VALUE", help="For env.py, as with Alembic's own command."),
]
_Tag: TypeAlias = Annotated[str | None, typer.Option(help="For env.py, as with Alembic's own.")]
_Sql: TypeAlias = Annotated[
    bool, typer.Option("--sql", help="Print the SQL of each shard, and run nothing.")
]
_Verbose: TypeAlias = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print what env.py and revisions print and log.")
]
_Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON at the end.")]

RUN_SETTINGS = {"ignore_unknown_options": True}
"""For click: -1 is a target, and no option that is not known."""


@readable_failures()
def upgrade(
    context: typer.Context,
    revision: Annotated[
        str, typer.Argument(help="The target: a revision, head, heads, or +1.")
    ] = "heads",
    shard: _Shards = None,
    parallel: _Parallel = None,
    canary: _Canary = None,
    pause: _Pause = None,
    on_failure: _OnFailure = "stop",
    atomic: _Atomic = False,
    timeout: _Timeout = None,
    lock_timeout: _LockTimeout = None,
    lock_tries: _LockTries = None,
    runner_timeout: _RunnerTimeout = None,
    alembic_config: AlembicConfigOption = None,
    name: SectionOption = "alembic",
    x: _X = None,
    tag: _Tag = None,
    sql: _Sql = False,
    verbose: _Verbose = False,
    as_json: _Json = False,
) -> None:
    """Upgrade the shards that are behind.

    Several at once, each of them by Alembic with the revisions and the env.py of the application.
    Safe to run again after any failure: a shard that is there is left alone. Exits 1 if a shard is
    not there in the end, and 130 if it was interrupted.
    """
    _migrate(context, "upgrade", (revision,))


@readable_failures()
def downgrade(
    context: typer.Context,
    revision: Annotated[
        str, typer.Argument(help="The target: a revision, base, or -1.", show_default=False)
    ],
    shard: _Shards = None,
    parallel: _Parallel = None,
    canary: _Canary = None,
    pause: _Pause = None,
    on_failure: _OnFailure = "stop",
    atomic: _Atomic = False,
    timeout: _Timeout = None,
    lock_timeout: _LockTimeout = None,
    lock_tries: _LockTries = None,
    runner_timeout: _RunnerTimeout = None,
    alembic_config: AlembicConfigOption = None,
    name: SectionOption = "alembic",
    x: _X = None,
    tag: _Tag = None,
    sql: _Sql = False,
    verbose: _Verbose = False,
    as_json: _Json = False,
) -> None:
    """Take revisions back, on the shards that have them; otherwise as upgrade."""
    _migrate(context, "downgrade", (revision,))


@readable_failures()
def stamp(
    context: typer.Context,
    revisions: Annotated[list[str], typer.Argument(help="The targets.", show_default=False)],
    purge: Annotated[
        bool, typer.Option("--purge", help="Empty the version tables before.")
    ] = False,
    shard: _Shards = None,
    parallel: _Parallel = None,
    canary: _Canary = None,
    pause: _Pause = None,
    on_failure: _OnFailure = "stop",
    atomic: _Atomic = False,
    timeout: _Timeout = None,
    lock_timeout: _LockTimeout = None,
    lock_tries: _LockTries = None,
    runner_timeout: _RunnerTimeout = None,
    alembic_config: AlembicConfigOption = None,
    name: SectionOption = "alembic",
    x: _X = None,
    tag: _Tag = None,
    sql: _Sql = False,
    verbose: _Verbose = False,
    as_json: _Json = False,
) -> None:
    """Write revisions into the version tables, without running them; otherwise as upgrade."""
    _migrate(context, "stamp", tuple(revisions), purge=purge)


def _migrate(
    context: typer.Context, command: Command, revisions: tuple[str, ...], *, purge: bool = False
) -> None:
    """Do what the options of a command say, all of which are in its context."""
    given = context.params
    if given["atomic"]:
        check_options(given)
    settings = find_alembic_settings(
        given["alembic_config"], given["name"], x=given["x"], tag=given["tag"]
    )
    if given["sql"]:
        with readable_alembic():
            _print_sql(command, revisions, settings, given["shard"])
        return
    with refused_as_wrong_usage():
        refuse_own_arguments(settings)
        options = _options(given, settings)
    with readable_alembic(), redirect_stdout(sys.stderr):  # whatever env.py prints
        asked = ask_environment(settings.config(), question(revisions, given["shard"]))
    _refuse_another_cluster(context, asked.addresses)
    targets = targets_of(asked, command, revisions)
    with refused_as_wrong_usage():
        order = order_of(asked.addresses, command, targets, options, purge=purge)
    again = _again(dict(zip(revisions, targets, strict=True)))
    if given["atomic"]:
        go_through_together(order, again=again, as_json=given["as_json"])
    else:
        _go_through(order, again=again, is_verbose=given["verbose"], as_json=given["as_json"])


def _go_through(order: Order, *, again: str, is_verbose: bool, as_json: bool) -> None:
    screen = Screen(order, console(stderr=as_json), is_verbose=is_verbose)
    with screen:
        report = run(order, screen.show)
    if as_json:
        print_json(report.as_dict())
    else:
        print_migrations(report, console(), again=again)
    if report.is_interrupted:
        raise typer.Exit(INTERRUPTED)
    if not report.is_complete:
        raise typer.Exit(FAILED)


def _again(settled_as: dict[str, str]) -> str:
    """The command that goes on: a target that was relative would be another one by now."""
    return command_line([settled_as.get(each, each) for each in sys.argv[1:]])


def _options(given: dict[str, Any], settings: AlembicSettings) -> RunOptions:
    if given["on_failure"] not in ("stop", "continue"):
        raise typer.BadParameter("--on-failure takes stop or continue")
    return RunOptions(
        shards=given["shard"] or None,
        parallel=given["parallel"],
        canary=given["canary"],
        pause=_pause(given["pause"], given["canary"]),
        on_failure=given["on_failure"],
        bounds=Bounds(
            lock_timeout=_seconds("--lock-timeout", given["lock_timeout"]),
            lock_tries=given["lock_tries"],
            statement_timeout=_seconds("--timeout", given["timeout"]),
            runner_timeout=_seconds("--runner-timeout", given["runner_timeout"]),
        ),
        alembic=settings,
    )


def _seconds(option: str, text: str | None) -> float | None:
    duration = None if text is None else parse_duration(text)
    if text is not None and duration is None:
        raise typer.BadParameter(f"{option} {text} is no duration such as 30s or 5m")
    return None if duration is None else duration.total_seconds()


def _pause(text: str | None, canary: str | None) -> float | Callable[[], bool] | None:
    if text is None:
        return None
    if canary is None:
        raise typer.BadParameter("--pause is for after --canary")
    if text == "ask":
        return _ask
    return _seconds("--pause", text)


def _ask() -> bool:
    try:
        return typer.confirm("Go on with the rest?", err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None


def _refuse_another_cluster(context: typer.Context, found: Addresses) -> None:
    """Where a configuration is named on the command line, it must be that of ``env.py``."""
    source = context.find_root().get_parameter_source("config")
    if source is None or source.name != "COMMANDLINE":
        return
    cluster = Cluster.from_file(context.obj)
    try:
        differs = difference(addresses_of(cluster), found)
    finally:
        cluster.dispose()
    if differs is not None:
        raise ConfigurationError(differs, "let env.py read the same configuration")


def _print_sql(
    command: Command,
    revisions: tuple[str, ...],
    settings: AlembicSettings,
    shards: list[str] | None,
) -> None:
    with refused_as_wrong_usage():
        names = [name for revision in revisions for name in revision.split(":") if name]
        check_targets_of(settings, names)
    named = (f"shards={','.join(shards)}",) if shards else ()
    config = settings.with_x(*named).config()
    if command == "upgrade":
        alembic_commands.upgrade(config, revisions[0], sql=True, tag=settings.tag)
    elif command == "downgrade":
        alembic_commands.downgrade(config, revisions[0], sql=True, tag=settings.tag)
    else:
        alembic_commands.stamp(config, list(revisions), sql=True, tag=settings.tag)
