"""Running an application's ``env.py`` to learn what it says, without running a migration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.turns.run import RUN_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from alembic.config import Config

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.turns.run import Task, Turn

T = TypeVar("T")


def ask_environment(config: Config, question: Callable[[Cluster, Task], T]) -> T:
    """Run ``env.py``, and return what ``question`` makes of its cluster and of what it says.

    :param config: Alembic's configuration.
    :raises ConfigurationError: ``env.py`` does not call ``run_migrations()``.
    """
    script = ScriptDirectory.from_config(config)
    asking = _Asking(question)
    attributes = config.attributes
    before = attributes.get(RUN_KEY)
    attributes[RUN_KEY] = asking
    try:
        with EnvironmentContext(config, script, fn=_nothing, dont_mutate=True):
            script.run_env()
    finally:
        attributes[RUN_KEY] = before
    if not asking.answers:
        raise ConfigurationError(
            "env.py did not call run_migrations()",
            "let it, as the guide's page about migrations shows",
        )
    return asking.answers[-1]


class _Asking(Generic[T]):
    """A run that gives no shard a turn: it takes the place of one to learn what ``env.py`` says."""

    def __init__(self, question: Callable[[Cluster, Task], T]) -> None:
        self._question = question
        self.answers: list[T] = []

    def turns(self, cluster: Cluster, task: Task) -> Iterator[AbstractContextManager[Turn]]:
        """Ask, while the cluster is open."""
        self.answers.append(self._question(cluster, task))
        yield from ()


def _nothing(revision: Any, context: Any) -> list[Any]:
    del revision, context
    return []
