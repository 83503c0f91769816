"""One body, run in each world: what it returns, and what its statements were made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.plan import Gather

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from sqlalchemy_shards.plan import Merge
    from tests.shards.shop import World

    Body = Callable[[Session, Any], Any]


@dataclass(frozen=True)
class Step:
    """One statement of a session, as it was decided.

    :param sql: of the first shard.
    :param merge: name of the merge; "": one shard answered alone.
    """

    sql: str
    shards: tuple[str, ...]
    merge: str

    @property
    def is_gathered(self) -> bool:
        return self.merge == Gather.__name__


@dataclass
class Answer:
    """What a body returned, and the steps that four shards took for it."""

    value: Any
    steps: list[Step] = field(default_factory=list)

    @property
    def merges(self) -> list[str]:
        return [step.merge for step in self.steps]

    def shards_of(self, beginning: str) -> list[tuple[str, ...]]:
        """Where the statements ran that begin with a word."""
        return [step.shards for step in self.steps if step.sql.startswith(beginning)]


class Same:
    """Runs a body in each world, in a session that is rolled back."""

    def __init__(self, worlds: dict[str, World]) -> None:
        self._worlds = worlds

    def __call__(self, body: Body, *, gathered: int | None = None) -> Answer:
        """Return the answer of four shards, which is that of plain SQLAlchemy.

        :param gathered: how many of its statements the workspace answers; None: any number.
        """
        answers = {name: run(world, body) for name, world in self._worlds.items()}
        expected = answers["plain"].value
        for name, answer in answers.items():
            assert repr(answer.value) == repr(expected), name
            assert answer.value == expected, name
        found = answers["CTEs"]
        if gathered is not None:
            assert found.merges.count(Gather.__name__) == gathered, found.steps
        return found


def run(world: World, body: Body) -> Answer:
    """Run a body in one world."""
    answer = Answer(None)
    with world.session() as session:
        if world.is_spread:
            cluster_connection: Any = session.connection().connection.driver_connection
            cluster_connection.observer = _Notes(answer.steps)
        try:
            answer.value = body(session, world.models)
        finally:
            if world.is_spread:
                cluster_connection.observer = None
    return answer


class _Notes:
    """An observer of a connection, which takes note of what is decided."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps

    def on_dispatch(self, decided: Any) -> None:
        self._steps.append(_step(decided))

    def on_step(self, name: str, shard: str | None, seconds: float, answer: Any) -> None:
        pass


def _step(decided: Any) -> Step:
    works = decided.works
    merge: Merge | None = decided.merge
    return Step(
        str(works[0].sql) if works else "",
        tuple(work.shard for work in works),
        "" if merge is None else type(merge).__name__,
    )
