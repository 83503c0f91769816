"""Brings the rows of a gather here: in one round, or by keys that came in a round before.

    keys that are asked for -> shards that need no others -> their keys -> the shards that waited

Keys that were asked for are of another moment than the rows. So it is looked at whether the rows
that came have a key that nobody was given, as one that was written meanwhile: then everything is
shipped once more, by one statement for each shard again. All rows of an answer that come from one
shard are of one snapshot, whichever round it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.cluster.enlistment.moments import tell_time
from sqlalchemy_shards.cluster.enlistment.on_shards import failing_alike
from sqlalchemy_shards.cluster.explain.observing import KEYS, SHIP, SHIP_AGAIN
from sqlalchemy_shards.cluster.limits import GatherLimit
from sqlalchemy_shards.planning.asked_keys import KEYS_MAX, source_of

from .agreement import settings_of
from .arrival import Arrival
from .estimates import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.dispatch.work import Work
    from sqlalchemy_shards.execution.arrived import ArrivedRows
    from sqlalchemy_shards.planning.asked_keys import Source
    from sqlalchemy_shards.planning.stages import Shipment
    from sqlalchemy_shards.planning.ties import Tie

    from .gather import GatherStep

    Known = dict[Source, list[set[bytes]]]

KEY_BYTES_MAX: Final = 4 * 1024 * 1024
"""More bytes of keys than these are not asked for: each shard is sent all of them."""

RUNS_BY_KEYS_MAX: Final = 3
"""If a key was missing each time, everything is shipped without those that are asked for."""


def shipped(connection: ClusterConnection, step: GatherStep, works: Sequence[Work]) -> Arrival:
    """Bring the rows of all parts together.

    :param works: what each shard ships, where no keys are asked for first.
    :raises GatherLimitExceeded: they are too many.
    """
    tell_time(connection, works)
    return _Shipping(connection, step, works).done()


class _Shipping:
    def __init__(
        self, connection: ClusterConnection, step: GatherStep, works: Sequence[Work]
    ) -> None:
        self._connection = connection
        self._step = step
        self._works = works
        self._gathering = step.gathering

    def done(self) -> Arrival:
        """Ship until no key was missing."""
        known = self._asked() if self._step.asking else {}
        for run in range(RUNS_BY_KEYS_MAX):
            arrival = self._run(known, SHIP_AGAIN if run else SHIP)
            if not self._misses(known, arrival.parts):
                return arrival
        return self._run({}, SHIP_AGAIN)

    def _asked(self) -> Known:
        """The keys that are asked for; a source with too many is left out."""
        step, asking = self._step, self._step.asking
        arrival = Arrival(
            [str(source) for source in step.sources],
            [len(source.places) for source in step.sources],
            GatherLimit(
                rows=len(step.sources) * len(asking) * (KEYS_MAX + 1),
                bytes=min(KEY_BYTES_MAX, step.limit.bytes),
            ),
        )
        tell_time(self._connection, asking)
        is_whole = arrival.fits(self._connection, asking, KEYS)
        known = {}
        for source, rows in zip(step.sources, arrival.parts, strict=True):
            keys = _distinct(rows, range(len(source.places))) if is_whole else None
            if keys is None:
                # Not to be asked for again soon, whatever the planner thinks.
                note(self._gathering, source, KEYS_MAX + 1)
            else:
                known[source] = keys
                if self._gathering.parts[source.part].is_vague:
                    # So many on each shard; they were asked for without knowing it.
                    note(self._gathering, source, -(-max(map(len, keys)) // len(asking)))
        return known

    def _misses(self, known: Known, arrived: Sequence[ArrivedRows]) -> bool:
        """Whether a row came with a key that nobody was given; next time it is given."""
        is_missing = False
        for source, keys in list(known.items()):
            now = _distinct(arrived[source.part], source.places)
            if now is None:
                del known[source]
                is_missing = True
                continue
            is_missing |= any(new - old for new, old in zip(now, keys, strict=True))
            known[source] = [new | old for new, old in zip(now, keys, strict=True)]
        return is_missing

    def _run(self, known: Known, name: str) -> Arrival:
        """Ship everything once."""
        parts, limit = self._gathering.parts, self._step.limit
        arrival = Arrival([part.origin for part in parts], [len(p.columns) for p in parts], limit)
        first = [each for each in self._step.shipments if not each.lists]
        waiting = [each for each in self._step.shipments if each.lists]
        works = self._rendered(first, known, self._step.asking)
        arrival.ship(self._connection, works, name)
        if waiting:
            sources = {source_of(self._gathering.tie(n)) for each in waiting for n in each.lists}
            here = {each: _distinct(arrival.parts[each.part], each.places) for each in sources}
            came = {source: keys for source, keys in here.items() if keys is not None}
            works = self._rendered(waiting, {**known, **came}, works)
            arrival.ship(self._connection, works, name)
        return arrival

    def _rendered(
        self, shipments: Sequence[Shipment], known: Known, came_from: Sequence[Work]
    ) -> Sequence[Work]:
        """What shards ship by the keys that are known.

        :param came_from: these shards have told keys.
        """
        if not came_from:
            shards = {each.shard for each in shipments}
            return [work for work in self._works if work.shard in shards]
        connection = self._connection
        with failing_alike(connection, came_from[0].shard):
            settings_of(connection, came_from)
            encoding = connection.enlisted[came_from[0].shard].driver.info.encoding
            numbers = {number for each in shipments for number in (*each.lists, *each.asked)}
            given = {
                number: values
                for number in numbers
                if (values := _values(self._gathering.tie(number), known, encoding)) is not None
            }
            works = [self._work(each, given) for each in shipments]
            tell_time(connection, works)
        return works

    def _work(self, shipment: Shipment, given: Mapping[int, Mapping[str, Any]]) -> Work:
        lists = tuple(number for number in shipment.lists if number in given)
        asked = tuple(number for number in shipment.asked if number in given)
        values: dict[str, Any] = {}
        for number in (*lists, *asked):
            values.update(given[number])
        return self._step.render(shipment._replace(lists=lists, asked=asked), values)


def _distinct(rows: ArrivedRows, places: Iterable[int]) -> list[set[bytes]] | None:
    """The values of each of some columns, but NULL; None: they are too many to be given."""
    found = []
    for place in places:
        values = rows.distinct(place, KEYS_MAX)
        if values is None:
            return None
        found.append(values)
    return found


def _values(tie: Tie, known: Known, encoding: str) -> Mapping[str, list[str]] | None:
    """The values of a tie's parameters; None: not known, or they have no form as text."""
    keys = known.get(source_of(tie))
    if keys is None:
        return None
    try:
        return {
            key.parameter.key: [value.decode(encoding) for value in values]
            for key, values in zip(tie.keys, keys, strict=True)
        }
    except UnicodeDecodeError:
        return None
