"""In which of two stages each shard ships its parts, so that keys can be given to the second one.

Each shard runs one statement only, which is one snapshot: so a shard whose keys others need ships
in the first stage, and those that wait for keys in the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .ties import Tie, Ties


class Shipment(NamedTuple):
    """What one shard ships.

    :param indexes: its parts.
    :param beside: numbers of the ties to parts whose rows all lie on it.
    :param lists: numbers of the ties to parts whose keys it waits for; none: it waits for nothing.
    :param asked: numbers of the ties to parts whose keys are asked for before anything is shipped.
    """

    shard: str
    indexes: tuple[int, ...]
    beside: tuple[int, ...] = ()
    lists: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()


class Candidate(NamedTuple):
    """A tie to a part whose rows all lie on one shard.

    :param shard: that shard.
    :param others: the shards with rows that may be left where they are.
    """

    number: int
    tie: Tie
    shard: str
    others: frozenset[str]


def candidates_of(ties: Ties, shards: Sequence[Sequence[str]]) -> list[Candidate]:
    """The ties by which keys could be given.

    :param shards: of each part, where its rows are.
    """
    found = [
        Candidate(number, tie, shards[tie.other][0], frozenset(shards[tie.part]))
        for number, tie in enumerate(ties.all)
        if len(shards[tie.other]) == 1
    ]
    # A part is worth it only if what all occurrences of its table need is known.
    by_part = {
        part: [each.tie for each in found if each.tie.part == part and each.tie.keys]
        for part in {each.tie.part for each in found}
    }
    return [each for each in found if ties.is_narrowed(each.tie.part, by_part[each.tie.part])]


def staged(
    candidates: Sequence[Candidate], shards: Sequence[Sequence[str]], rows: Mapping[int, int]
) -> list[Shipment]:
    """Decide what each shard ships, and for which keys it waits.

    :param shards: of each part, where its rows are.
    :param rows: of parts that wait for keys if they can, how many rows a shard expects to ship.
    """
    sources, waiting = _sources_and_waiting(candidates, rows)
    return [
        Shipment(
            shard,
            tuple(index for index, each in enumerate(shards) if shard in each),
            tuple(each.number for each in candidates if _is_beside(each, shard)),
            tuple(
                each.number
                for each in candidates
                if shard in waiting
                and shard in each.others
                and each.shard in sources
                and each.tie.keys
                and each.tie.part in rows
            ),
        )
        for shard in dict.fromkeys(shard for each in shards for shard in each)
    ]


def _is_beside(candidate: Candidate, shard: str) -> bool:
    return candidate.shard == shard and shard in candidate.others


def _sources_and_waiting(
    candidates: Sequence[Candidate], rows: Mapping[int, int]
) -> tuple[set[str], set[str]]:
    """The shards whose keys are needed, and those that wait for them; none does both."""
    sources: set[str] = set()
    waiting: set[str] = set()
    for part in sorted(rows, key=lambda part: rows[part], reverse=True):
        own = [
            each
            for each in candidates
            if each.tie.part == part and each.tie.keys and each.shard not in waiting
        ]
        # Keys of all that have some, or of one if else no shard were left to wait.
        for chosen in (own, own[:1]):
            now = sources | {each.shard for each in chosen}
            others = {shard for each in chosen for shard in each.others} - now
            if others:
                sources, waiting = now, waiting | others
                break
    return sources, waiting
