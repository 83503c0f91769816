"""Two stages of a gather: keys that have arrived from one shard choose what others ship.

    shards whose keys are needed, and those that need none -> keys -> the other shards

Whether it is worth a second round trip is found out from the planner of a shard (`estimates`); how
many keys there are is known when they are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.plan import KeyList
from sqlalchemy_shards.planning.stages import Shipment, candidates_of, staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy_shards.execution.arrived import ArrivedRows
    from sqlalchemy_shards.planning.parts import Gathering
    from sqlalchemy_shards.planning.stages import Candidate
    from sqlalchemy_shards.planning.ties import Tie

    from .work import Surroundings, Work

ROWS_WORTH_WAITING: Final = 1_000
"""Fewer rows of a part on a shard are not worth a second round trip."""

KEYS_MAX: Final = 10_000
"""More keys than these are not given: then the rows are shipped without them."""


def shipments(
    gathering: Gathering,
    shards: Sequence[tuple[str, ...]],
    around: Surroundings,
    work_of: Callable[[Shipment], Work],
) -> tuple[list[Shipment], tuple[KeyList, ...]]:
    """Decide what each shard ships, and for which keys it waits.

    :param shards: of each part, where its rows are.
    :param work_of: makes the statement of a shipment.
    """
    candidates = candidates_of(gathering.ties, shards) if gathering.ties else []
    rows: dict[int, int] = {}
    for each in candidates:
        part, others = each.tie.part, each.others - {each.shard}
        if each.tie.keys and others and part not in rows:
            alone = Shipment(_one_of(others, around), (part,))
            rows[part] = around.expected_rows(gathering, part, lambda s=alone: work_of(s))  # type: ignore[misc]
    least = around.rows_worth_waiting
    worthwhile = {part: count for part, count in rows.items() if count >= least}
    found = staged(candidates, shards, worthwhile)
    return found, tuple(_told(gathering, candidates, found, rows))


def second_stage(
    gathering: Gathering,
    waiting: Mapping[str, Shipment],
    arrived: Sequence[ArrivedRows],
    encoding: str,
    render: Callable[[Shipment, Mapping[str, Any]], Work],
) -> list[Work]:
    """What the shards ship that have waited for keys.

    :param arrived: the rows of each part that have come so far, with all that the keys are of.
    :param encoding: in which they were sent.
    """
    numbers = {number for shipment in waiting.values() for number in shipment.lists}
    keys = {number: _keys(gathering.tie(number), arrived, encoding) for number in numbers}
    works = []
    for shipment in waiting.values():
        known = tuple(number for number in shipment.lists if keys[number] is not None)
        given: dict[str, Any] = {}
        for number in known:
            given.update(keys[number] or {})
        works.append(render(shipment._replace(lists=known), given))
    return works


def _keys(
    tie: Tie, arrived: Sequence[ArrivedRows], encoding: str
) -> Mapping[str, list[str]] | None:
    """The values of a tie's parameters; None: there are too many, or they have no form as text."""
    found: dict[str, list[str]] = {}
    for key in tie.keys:
        values = arrived[tie.other].distinct(key.place, KEYS_MAX)
        if values is None:
            return None
        try:
            found[key.parameter.key] = [value.decode(encoding) for value in values]
        except UnicodeDecodeError:
            return None
    return found


def _one_of(shards: frozenset[str], around: Surroundings) -> str:
    """A shard that takes part in the transaction already, else the first one."""
    in_order = around.territory.in_order(shards)
    return next((name for name in in_order if name in around.enlisted), in_order[0])


def _told(
    gathering: Gathering,
    candidates: Sequence[Candidate],
    found: Sequence[Shipment],
    rows: Mapping[int, int],
) -> Iterator[KeyList]:
    for each in candidates:
        waiting = tuple(shipment.shard for shipment in found if each.number in shipment.lists)
        if waiting:
            tie = each.tie
            parts: Any = gathering.parts
            yield KeyList(
                parts[tie.part].origin,
                waiting,
                parts[tie.other].origin,
                each.shard,
                rows[tie.part],
            )
