"""Every order of steps within bounds, breadth first, and what must hold in each world.

Two worlds are one if they differ only in the order of the databases that are not the decision
shard, or of the recoveries. The first broken promise ends the search with the shortest way to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.transactions.protocol.replies import COMMIT_PREPARED
from sqlalchemy_shards.transactions.protocol.settling import AbortRow, Outcome, Sight
from tests.model.databases import ROW_OUTCOMES
from tests.model.rules import Rules
from tests.model.steps import Steps
from tests.model.world import (
    ABORTED,
    COMMITTED,
    COORDINATOR,
    DONE,
    ENDED,
    FATES,
    IDLE,
    NOBODY,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from tests.model.bounds import Bounds

Promise = Callable[[Steps, World], "str | None"]


@dataclass(frozen=True)
class Exploration:
    """What a search found.

    :param states: different worlds.
    :param steps: steps between them.
    :param is_whole: there is nothing else within the bounds.
    :param broken: the promise that was broken, or None.
    :param trace: how, step by step.
    """

    states: int
    steps: int
    is_whole: bool = False
    broken: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The way to the broken promise, one step a line."""
        if self.broken is None:
            return f"{self.states} states, {self.steps} steps: nothing broken"
        lines = [f"{number:3}. {step}" for number, step in enumerate(self.trace, 1)]
        return "\n".join([f"broken after {len(lines)} steps: {self.broken}", *lines])


def explore(
    bounds: Bounds,
    rules: Rules | None = None,
    *,
    promise: Promise | None = None,
    steps_max: int | None = None,
) -> Exploration:
    """Look at every world that can be reached; stop at the first broken promise.

    :param promise: what must hold in each world, if not all of it.
    :param steps_max: stop when so many steps were taken.
    """
    steps = Steps(rules or Rules(), bounds)
    is_broken = promise or broken_promise
    keys = _Keys(steps)
    world = steps.first()
    came_by: dict[Hashable, tuple[Hashable, str]] = {keys.of(world): (None, "")}
    waiting = deque([(keys.of(world), world)])
    taken = 0
    while waiting:
        key, world = waiting.popleft()
        for label, following in steps.after(world):
            taken += 1
            next_key = keys.of(following)
            if next_key in came_by:
                continue
            came_by[next_key] = (key, label)
            broken = is_broken(steps, following)
            if broken is not None:
                trace = _trace(came_by, next_key)
                return Exploration(len(came_by), taken, broken=broken, trace=trace)
            waiting.append((next_key, following))
        if steps_max is not None and taken >= steps_max:
            return Exploration(len(came_by), taken)
    return Exploration(len(came_by), taken, is_whole=True)


def half_a_commit(steps: Steps, world: World) -> str | None:
    """Return what is wrong if the work was committed on one database and lost on another."""
    fates = [db.fate for db in world.dbs]
    if COMMITTED not in fates or ABORTED not in fates:
        return None
    told = ", ".join(f"{n}: {FATES[f]}" for n, f in zip(steps.names, fates, strict=True))
    return f"never two outcomes ({told})"


def broken_promise(steps: Steps, world: World) -> str | None:
    """Return the promise that a world breaks, or None."""
    half = half_a_commit(steps, world)
    if half is not None:
        return half
    fates = [db.fate for db in world.dbs]
    if world.reported is Outcome.COMMITTED and fates[0] != COMMITTED:
        return "a reported success is durable"
    if world.reported is Outcome.ABORTED and COMMITTED in fates:
        return "a reported abort is nowhere"
    if len(world.told) == 2:
        return "settling never gives two answers"
    if Outcome.COMMITTED in world.told and fates[0] != COMMITTED:
        return "what settling says stays true (it said committed)"
    if Outcome.ABORTED in world.told and COMMITTED in fates:
        return "what settling says stays true (it said aborted)"
    is_prepared = any(db.is_prepared for db in world.dbs)
    if is_prepared and fates[0] == COMMITTED and world.decisions.outcome != 1:
        return "a decision is on record as long as a part is prepared"
    if is_prepared and world.is_confirmed:
        return "what the coordinator reports as finished is not prepared"
    if _is_quiet(world):
        return _broken_in_the_end(steps, world)
    return None


def _is_quiet(world: World) -> bool:
    return (world.machine == NOBODY or world.reported is not None) and all(
        actor.step in (IDLE, DONE) for actor in world.actors
    )


def _broken_in_the_end(steps: Steps, world: World) -> str | None:
    """Let everything that still runs end, recover twice, and look at what is left."""
    outcome = world.decisions.outcome
    fates = [ABORTED if db.tx != ENDED else db.fate for db in world.dbs]
    prepared = [number for number, db in enumerate(world.dbs) if db.is_prepared]
    if prepared:
        sight = Sight(ROW_OUTCOMES[outcome], is_over=True, is_verified=True)
        settled = steps.rules.conclude(sight)
        if settled is None:
            settled = steps.rules.conclude_insert(AbortRow.INSERTED)
        verb = None if settled is None else steps.rules.finishing_verb(settled)
        if verb is None:
            return "recovery finishes everything"
        for number in prepared:
            fates[number] = COMMITTED if verb == COMMIT_PREPARED else ABORTED
    if len(set(fates)) > 1:
        return "after recovery all have one outcome"
    if world.reported is Outcome.COMMITTED and fates[0] != COMMITTED:
        return "after recovery a reported success is everywhere"
    if world.reported is Outcome.ABORTED and fates[0] == COMMITTED:
        return "after recovery a reported abort is nowhere"
    return None


class _Keys:
    """Names for worlds, the same for those that differ only in who is called what."""

    def __init__(self, steps: Steps) -> None:
        self._machines = steps.machines
        count = len(steps.names)
        servers = steps.bounds.servers
        self._swaps = (count == 3 and servers[1] == servers[2]) or len(set(servers)) == 3
        self._swaps = self._swaps and count == 3
        failed = steps.bounds.failed
        self._swaps = self._swaps and (1 in failed) == (2 in failed)

    def of(self, world: World) -> Hashable:
        machine = world.machine
        facets = (NOBODY,) * 4 if machine == NOBODY else self._machines.facets(machine)
        dbs = [
            (*db[:7], db.link, None if db.asked is None else db.asked[::2], facets[number + 1])
            for number, db in enumerate(world.dbs)
        ]
        rest = (facets[0], *world[5:])
        straight = _key(world, dbs, rest, (0, 1, 2))
        if not self._swaps:
            return straight
        swapped = _key(world, [dbs[0], dbs[2], dbs[1]], rest, (0, 2, 1))
        return min(straight, swapped, key=hash)


def _key(world: World, dbs: list[Any], rest: Any, names: tuple[int, ...]) -> Hashable:
    inserting = world.decisions.inserting
    actors = [
        (step, frozenset(names[one] for one in parts), outcome, inserting == number)
        for number, (step, parts, outcome) in enumerate(world.actors)
    ]
    own = actors.pop()
    actors.sort(key=hash)
    cleaner = world.cleaner
    listed = frozenset(names[number] for number in cleaner.listed)
    return (
        tuple(dbs),
        world.decisions[:2],
        world.decisions.is_busy,
        inserting == COORDINATOR,
        tuple(actors),
        own,
        (cleaner.seen, listed, cleaner.holds, cleaner.is_done),
        rest,
    )


def _trace(came_by: dict[Any, tuple[Any, str]], key: Any) -> tuple[str, ...]:
    labels = []
    while key is not None:
        key, label = came_by[key]
        if label:
            labels.append(label)
    return tuple(reversed(labels))
