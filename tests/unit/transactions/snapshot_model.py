"""Snapshots, markers and horizons in a few lines: what the SQL of `transactions` must come to.

`explore` runs a distributed transaction, two processes that remove markers and a reader in every
order, on two shards. One transaction is enough, as each is looked for by itself; and two shards, as
they are compared in pairs. A snapshot is what PostgreSQL makes of it: the first xid that had not
begun, and those before it that were running.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class Seen(NamedTuple):
    """A snapshot as its text has it."""

    xmax: int
    running: frozenset[int]

    def shows(self, xid: int) -> bool:
        return xid < self.xmax and xid not in self.running

    def covers(self, other: Seen) -> bool:
        """Whether it shows all that the other shows (snapshots of one shard, one the older)."""
        return other.xmax <= self.xmax and not any(other.shows(xid) for xid in self.running)

    def __str__(self) -> str:
        xmin = min(self.running, default=self.xmax)
        return f"{xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"


class View(NamedTuple):
    """What a reader's snapshot of a shard holds.

    :param marker: xid of the peer's part, as the marker has it that the snapshot shows.
    """

    seen: Seen
    is_shown: bool
    marker: int | None
    horizon: Seen | None


def lags(view: View, peer: Seen, faults: Collection[str] = ()) -> bool:
    """Whether the peer's snapshot lags behind this view: what `snapshots.compare` must find."""
    if view.horizon is not None and not peer.covers(view.horizon) and "no horizon" not in faults:
        return True
    if view.marker is None:
        return False
    is_new = view.marker >= peer.xmax and "not of new ones" not in faults
    return is_new or (view.marker in peer.running and "not of running ones" not in faults)


class Shard(NamedTuple):
    """One shard: the part of the transaction, and what is kept of markers."""

    xid: int | None = None
    is_committed: bool = False
    is_removed: bool = False
    horizon: Seen | None = None
    next_horizon: Seen | None = None

    def seen(self) -> Seen:
        if self.xid is None:
            return Seen(1, frozenset())
        return Seen(self.xid + 1, frozenset() if self.is_committed else frozenset({self.xid}))

    def view(self, peer: Shard) -> View:
        marker = peer.xid if self.is_committed and not self.is_removed else None
        return View(self.seen(), self.is_committed, marker, self.horizon)


class Cleaner(NamedTuple):
    """A process that removes markers from the first shard.

    :param steps: what it has yet to do.
    :param held: what it saw of the second shard, maybe long ago.
    """

    steps: tuple[str, ...]
    held: Seen | None = None


class World(NamedTuple):
    """A state of everything."""

    shards: tuple[Shard, Shard]
    cleaners: tuple[Cleaner, ...]
    views: tuple[View | None, View | None] = (None, None)

    def on(self, place: int, shard: Shard) -> World:
        return self._replace(shards=_with(self.shards, place, shard))


LOOK, ADVANCE, REMOVE = "look", "advance", "remove"
CLEANERS = (
    Cleaner((LOOK, ADVANCE, LOOK, ADVANCE, REMOVE, LOOK, ADVANCE)),
    Cleaner((LOOK, ADVANCE)),
)


def explore(deciding: int, faults: Collection[str] = ()) -> tuple[set[World], World | None]:
    """Return the states that can come about, and one in which the reader is deceived, if any.

    :param deciding: the shard on which the transaction is committed first.
    """
    first = World((Shard(), Shard()), CLEANERS)
    known, waiting = {first}, [first]
    while waiting:
        world = waiting.pop()
        if is_deceived(world, faults):
            return known, world
        for after in () if None not in world.views else steps(world, deciding, faults):
            if after not in known:
                known.add(after)
                waiting.append(after)
    return known, None


def is_deceived(world: World, faults: Collection[str]) -> bool:
    one, two = world.views
    if one is None or two is None or one.is_shown == two.is_shown:
        return False
    return not (lags(one, two.seen, faults) or lags(two, one.seen, faults))


def steps(world: World, deciding: int, faults: Collection[str]) -> Iterator[World]:
    yield from _of_transaction(world, deciding)
    for number, cleaner in enumerate(world.cleaners):
        if cleaner.steps:
            yield _of_cleaner(world, number, cleaner, faults)
    for place in (0, 1):
        if world.views[place] is None:
            view = world.shards[place].view(world.shards[1 - place])
            yield world._replace(views=_with(world.views, place, view))


def _of_transaction(world: World, deciding: int) -> Iterator[World]:
    """Begin on each shard in any order; then commit on one after the other."""
    for place, shard in enumerate(world.shards):
        if shard.xid is None:
            yield world.on(place, shard._replace(xid=1))
    if all(shard.xid is not None for shard in world.shards):
        place = 1 - deciding if world.shards[deciding].is_committed else deciding
        shard = world.shards[place]
        if not shard.is_committed:
            yield world.on(place, shard._replace(is_committed=True))


def _of_cleaner(world: World, number: int, cleaner: Cleaner, faults: Collection[str]) -> World:
    step, *later = cleaner.steps
    shard, peer = world.shards
    held = cleaner.held
    if step == LOOK:
        held = peer.seen()
    elif step == ADVANCE:
        shard = _advanced(shard, held, faults)
    else:
        shard = _removed(shard, peer, faults)
    cleaners = _with(world.cleaners, number, Cleaner(tuple(later), held))
    return world.on(0, shard)._replace(cleaners=cleaners)


def _advanced(shard: Shard, held: Seen | None, faults: Collection[str]) -> Shard:
    before = shard.next_horizon
    if before is None or held is None:
        return shard._replace(next_horizon=held)
    if not held.covers(before) and "horizon goes back" not in faults:
        return shard
    if "not written down" in faults:
        return shard._replace(next_horizon=held)
    return shard._replace(horizon=before, next_horizon=held)


def _removed(shard: Shard, peer: Shard, faults: Collection[str]) -> Shard:
    horizon = shard.horizon
    if "not written down" in faults:
        horizon = shard.next_horizon
    if "what is finished now" in faults:
        horizon = peer.seen()
    is_finished = horizon is not None and peer.xid is not None and horizon.shows(peer.xid)
    if shard.is_committed and (is_finished or "whatever there is" in faults):
        return shard._replace(is_removed=True)
    return shard


def _with(items: Any, place: int, item: object) -> Any:
    return (*items[:place], item, *items[place + 1 :])
