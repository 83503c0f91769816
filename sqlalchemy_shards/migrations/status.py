"""How far the migrations of every shard are, as data: for ``shards migrate status``.

Asks all shards at once, some at a time, over connections of their own. Changes nothing, waits for
no lock but for a moment, and never lets a shard that is down keep the others from being seen.
Where migrations are at work, tables are locked, and what is defined there cannot be read: only that
is left out then.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from sqlalchemy_shards.catalog.identity import read_identity
from sqlalchemy_shards.connections.fan_out import branch_for_each
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.differences.looking import Defined, Looker
from sqlalchemy_shards.migrations.differences.peers import unlike_peers
from sqlalchemy_shards.migrations.env.asking import ask_environment
from sqlalchemy_shards.migrations.membership import Newcomer, newcomers
from sqlalchemy_shards.migrations.standing import Distance, Revisions, Standing
from sqlalchemy_shards.migrations.turns.ledger import Run, last_run
from sqlalchemy_shards.migrations.turns.lock import Holder, holder_of
from sqlalchemy_shards.migrations.turns.version_table import revisions_in
from sqlalchemy_shards.migrations.workers.targets import read_scripts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from sqlalchemy_shards.catalog.identity import Identity
    from sqlalchemy_shards.cluster.cluster import Cluster

STATUS_SECONDS: Final = 10.0
"""How long the shards of one round are waited for."""

SHARDS_AT_ONCE: Final = 32
"""How many shards are asked in one round."""

_NOT_FOR_LONG: Final = "SET lock_timeout = '100ms'"


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """How far one shard is.

    :param revisions: what its version table tells.
    :param last: the last run that its ledger tells of.
    :param runner: who migrates it just now.
    :param drift: in how many things it differs from the shards at the same revisions; None: there
        are no such shards, or one cannot look: the role may not, a table is locked, or there was
        no time left.
    """

    shard: str
    revisions: tuple[str, ...]
    distance: Distance
    last: Run | None
    runner: Holder | None
    drift: int | None

    @property
    def was_killed(self) -> bool:
        """Whether the last run ended without a word: it is interrupted, and did not say so."""
        is_told = self.last is not None and self.last.finished_at is not None
        return self.last_outcome == "interrupted" and not is_told

    @property
    def last_outcome(self) -> str | None:
        """``"done"``, ``"failed"``, ``"running"`` or ``"interrupted"``; None: there was no run."""
        if self.last is None or self.last.outcome != "running":
            return None if self.last is None else self.last.outcome
        is_at_work = self.runner is not None and self.runner.pid == self.last.server_pid
        return "running" if is_at_work else "interrupted"


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """How far all shards are.

    :param heads: the heads of the scripts.
    :param shards: those that answered, in the cluster's order.
    :param unreachable: shard -> why it could not be asked.
    :param newcomers: shards that have not joined yet, or may have not.
    """

    cluster: str
    heads: tuple[str, ...]
    shards: tuple[ShardStatus, ...]
    unreachable: Mapping[str, Exception]
    newcomers: tuple[Newcomer, ...] = ()

    @property
    def is_at_head(self) -> bool:
        """Whether every shard answered, and has all revisions that the scripts have."""
        standings = {each.distance.standing for each in self.shards}
        return not self.unreachable and standings <= {Standing.AT_HEAD}


def status_of(config: Config, *, deadline_seconds: float = STATUS_SECONDS) -> ClusterStatus:
    """Tell how far the shards are of the cluster that ``env.py`` names.

    :param config: Alembic's configuration. Its ``env.py`` is run, and no migration.
    :param deadline_seconds: how long shards are waited for that are asked together.
    """
    return ask_environment(
        config,
        lambda cluster, task: ask_cluster(
            cluster, task.script, task.options, deadline_seconds=deadline_seconds
        ),
    )


def ask_cluster(
    cluster: Cluster,
    script: ScriptDirectory,
    options: Mapping[str, Any],
    *,
    deadline_seconds: float = STATUS_SECONDS,
) -> ClusterStatus:
    """Tell how far the shards of a cluster are.

    :param options: what ``env.py`` says to ``context.configure()``: they name the version table.
    :param deadline_seconds: how long shards are waited for that are asked together.
    :raises ConfigurationError: the scripts cannot be read.
    """
    cluster.check_open()
    read_scripts(script)
    survey = _Survey(cluster, options)
    unreachable = survey.run(deadline_seconds)
    found = {shard: survey.seen[shard] for shard in cluster.shards if shard in survey.seen}
    revisions = {shard: each.revisions for shard, each in found.items()}
    distances = Revisions.of(script).distances(revisions)
    drift = unlike_peers(survey.defined, revisions, cluster.global_shard)
    return ClusterStatus(
        cluster.name,
        tuple(script.get_heads()),
        tuple(
            ShardStatus(
                shard, each.revisions, distances[shard], each.run, each.holder, drift.get(shard)
            )
            for shard, each in found.items()
        ),
        unreachable,
        newcomers(
            survey.identities,
            tuple(cluster.shards),
            founders={next(iter(cluster.shards)), cluster.global_shard},
            holding={name for name in cluster.shards if cluster.shard_map.holds_anything(name)},
        ),
    )


class _Seen(NamedTuple):
    """What was seen of a shard."""

    revisions: tuple[str, ...]
    run: Run | None
    holder: Holder | None


class _Survey:
    """Looks at the shards, and keeps of each what was seen before something came between.

    :param defined: what is defined on the shards that let one look.
    :param identities: who those shards are that let one read it; None: nobody yet.
    """

    def __init__(self, cluster: Cluster, options: Mapping[str, Any]) -> None:
        self.seen: dict[str, _Seen] = {}
        self.defined: dict[str, Defined] = {}
        self.identities: dict[str, Identity | None] = {}
        self._cluster = cluster
        self._options = options
        self._looker = Looker()

    def run(self, deadline_seconds: float) -> dict[str, Exception]:
        """Look at all shards; return those of which nothing was seen, and why."""
        unreachable: dict[str, Exception] = {}
        for names in _rounds(tuple(self._cluster.shards)):
            branches = branch_for_each(names, self._look)
            for outcome in self._cluster.fan_out.run(branches, deadline_seconds=deadline_seconds):
                if outcome.error is not None and outcome.shard not in self.seen:
                    unreachable[outcome.shard] = outcome.error
        return unreachable

    def _look(self, shard: str) -> None:
        with self._cluster.connect(shard) as driver:
            with suppress(ConfigurationError):  # the role may read the ledger, and not this
                self.identities[shard] = read_identity(driver)
            run, holder = _run_and_holder(driver)
            revisions = revisions_in(driver, self._options)
            self.seen[shard] = _Seen(revisions, run, holder)
            with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable):
                driver.execute(_NOT_FOR_LONG)
                self.defined[shard] = self._looker.look(driver, revisions)


def _run_and_holder(driver: psycopg.Connection[Any]) -> tuple[Run | None, Holder | None]:
    """The last run and who is at work, seen so that no run looks dead that has just ended.

    A run ends in the ledger before it gives back its lock: one that does not hold the lock, and is
    still said to run after that was seen, was killed.
    """
    run, holder = last_run(driver), holder_of(driver)
    is_held = run is not None and holder is not None and holder.pid == run.server_pid
    if run is not None and run.outcome == "running" and not is_held:
        run = last_run(driver)
    return run, holder


def _rounds(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), SHARDS_AT_ONCE):
        yield names[start : start + SHARDS_AT_ONCE]
