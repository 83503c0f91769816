"""Alembic's commands that change databases, as functions over many shards at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy_shards.errors import MigrationFailed
from sqlalchemy_shards.migrations.workers.addresses import addresses_of
from sqlalchemy_shards.migrations.workers.order import RunOptions, order_of
from sqlalchemy_shards.migrations.workers.runner import Runner
from sqlalchemy_shards.migrations.workers.targets import check_targets_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.workers.messages import Command
    from sqlalchemy_shards.migrations.workers.order import Order
    from sqlalchemy_shards.migrations.workers.report import MigrationReport
    from sqlalchemy_shards.migrations.workers.runner import Progress

SHOWN_MAX = 3
"""How many failures a message quotes."""


def upgrade(
    cluster: Cluster,
    revision: str = "heads",
    options: RunOptions | None = None,
    *,
    observe: Callable[[Progress], None] | None = None,
) -> MigrationReport:
    """Upgrade shards that are behind. A shard that is not is left alone.

    Worker processes load ``env.py``, whose cluster must be the same. Running it again goes on after
    any failure.

    :param revision: the target; not one that is relative to where a shard is.
    :param observe: is told what happens while it happens.
    :returns: what was done with each shard.
    :raises MigrationFailed: some shard is not there; tells all of them in its ``report``.
    :raises ConfigurationError: nothing was begun.
    :raises KeyboardInterrupt: somebody stopped it; what was not committed is rolled back.
    """
    order = _ordered(cluster, "upgrade", (revision,), options)
    return checked(run(order, observe))


def downgrade(
    cluster: Cluster,
    revision: str,
    options: RunOptions | None = None,
    *,
    observe: Callable[[Progress], None] | None = None,
) -> MigrationReport:
    """Take revisions back; see `upgrade`."""
    order = _ordered(cluster, "downgrade", (revision,), options)
    return checked(run(order, observe))


def stamp(
    cluster: Cluster,
    *revisions: str,
    options: RunOptions | None = None,
    purge: bool = False,
    observe: Callable[[Progress], None] | None = None,
) -> MigrationReport:
    """Write revisions into the version tables without running them; see `upgrade`.

    :param purge: empty the version tables first.
    """
    order = _ordered(cluster, "stamp", revisions, options, purge=purge)
    return checked(run(order, observe))


def run(order: Order, observe: Callable[[Progress], None] | None = None) -> MigrationReport:
    """Go through the shards, and report also what failed; for the command line."""
    return Runner(order, observe or _ignore).run()


def checked(report: MigrationReport) -> MigrationReport:
    """Return the report if every shard is where it should be.

    :raises MigrationFailed: one is not.
    :raises KeyboardInterrupt: somebody stopped it.
    """
    if report.is_complete:
        return report
    if report.is_interrupted:
        raise KeyboardInterrupt
    target = " ".join(report.revisions)
    left = sum(not shard.is_there for shard in report.shards)
    said = [f"shard {one.shard!r}: {one.error}" for one in report.failed[:SHOWN_MAX]]
    if report.error is not None:
        said.insert(0, report.error)
    if len(report.failed) > SHOWN_MAX:
        said.append(f"and {len(report.failed) - SHOWN_MAX} more")
    raise MigrationFailed(
        f"{left} of {len(report.shards)} shards could not be brought to {target!r}"
        f" ({'; '.join(said)})",
        "mend what the message says, and run the same again: it goes on where it ended",
        report=report,
    )


def _ordered(
    cluster: Cluster,
    command: Command,
    revisions: tuple[str, ...],
    options: RunOptions | None,
    *,
    purge: bool = False,
) -> Order:
    chosen = options or RunOptions()
    order = order_of(addresses_of(cluster), command, revisions, chosen, purge=purge)
    check_targets_of(chosen.alembic, revisions)
    return order


def _ignore(progress: Progress) -> None:
    del progress
