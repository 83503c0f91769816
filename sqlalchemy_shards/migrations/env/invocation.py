"""One call of ``run_migrations``: what it was given, and how Alembic is configured for a shard."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from alembic.util import to_tuple

from sqlalchemy_shards._compat.alembic import command_of, target_of
from sqlalchemy_shards.migrations.env.naming import naming
from sqlalchemy_shards.migrations.plugin import NAME as PLUGIN
from sqlalchemy_shards.migrations.plugin import ensure_plugin
from sqlalchemy_shards.migrations.turns.place import PLACE_KEY, Place
from sqlalchemy_shards.migrations.turns.run import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from alembic.runtime.environment import EnvironmentContext
    from sqlalchemy import MetaData

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.turns.bounds import Bounds
    from sqlalchemy_shards.migrations.turns.run import Run, Turn


@dataclass(frozen=True, slots=True)
class Invocation:
    """What ``env.py`` handed over.

    :param options: of Alembic's ``context.configure()``.
    :param bounds: how long migrations wait.
    """

    environment: EnvironmentContext
    cluster: Cluster
    metadata: MetaData | Sequence[MetaData] | None
    options: Mapping[str, Any]
    bounds: Bounds

    def configure(self, shard: str, **further: Any) -> None:
        """Make Alembic's context one of this shard.

        :param further: arguments of ``context.configure()`` that win over those of ``env.py``; who
            is told of each step is told beside, and before, whom ``env.py`` names.
        """
        ensure_plugin()
        told = "on_version_apply"
        arguments: dict[str, Any] = {
            "target_metadata": self.metadata,
            **self.options,
            **further,
            told: (*to_tuple(further.get(told), ()), *to_tuple(self.options.get(told), ())),
            "autogenerate_plugins": self._plugins(),
            PLACE_KEY: Place(self.cluster, shard),
        }
        self.environment.configure(**arguments)

    def visit(self, run: Run, work: Callable[[Turn], None]) -> None:
        """Do something at each turn of a run, where Alembic's context is configured for it."""
        turns = cast(
            "Generator[AbstractContextManager[Turn]]", run.turns(self.cluster, self._task())
        )
        with closing(turns):
            for turn in turns:
                # Outside of the turn, which swallows what it lets be tried again.
                with naming(self.cluster) as begin, turn as current:
                    begin(current.shard)
                    self.configure(current.shard, connection=current.connection, **current.options)
                    work(current)

    def run(self, turn: Turn | None = None) -> None:
        """Run the command at hand where Alembic's context is configured for."""
        with self.environment.begin_transaction():
            if turn is None or turn.is_due(self.environment.get_context()):
                self.environment.run_migrations()

    def _plugins(self) -> list[str]:
        """What compares: Alembic's own or what ``env.py`` names, and ours."""
        named: Sequence[str] = self.options.get("autogenerate_plugins", ["alembic.autogenerate.*"])
        return list(dict.fromkeys([*named, PLUGIN]))

    def _task(self) -> Task:
        environment = self.environment
        return Task(
            command_of(environment),
            target_of(environment),
            self.options,
            environment.script,
            self.metadata,
            self.bounds,
        )
