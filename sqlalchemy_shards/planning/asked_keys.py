"""Which keys of a part that lies on several shards are asked for before anything is shipped.

Every shard is asked for the keys alone, then each ships all of its parts by one statement, which is
its snapshot. The rows that the keys are of come with it: whoever performs it sees whether a key is
among them that nobody was given.

Invariant: no part is narrowed by its own keys, by way of others neither. Rows are left one part
after the other, each by rows of parts that are settled by then; in a circle each side could miss
the row that the other one left for want of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Integer, collate, literal_column, null, select, union_all

from sqlalchemy_shards import _compat
from sqlalchemy_shards.routing.roots import reachable

from .wire import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .parts import Part
    from .ties import Tie, Ties

KEYS_MAX: Final = 10_000
"""More keys than these are not given: then the rows are shipped without them."""


class Source(NamedTuple):
    """Columns of a part whose values are keys.

    :param places: which columns.
    """

    part: int
    places: tuple[int, ...]


class Expected(NamedTuple):
    """What planners of shards expect.

    :param rows: part -> how many rows of it one shard ships without keys.
    :param rows_of_need: part -> how many of them one shard ships for each occurrence of its table.
    :param keys: source -> how many keys it has on all shards.
    :param values: number of a tie -> how many values there are where the keys are looked for.
    """

    rows: Mapping[int, int]
    rows_of_need: Mapping[int, Sequence[int]]
    keys: Mapping[Source, int]
    values: Mapping[int, int]


class Judged(NamedTuple):
    """A part that keys could narrow.

    :param numbers: the ties by which they do; none: it is not worth it.
    :param rows: how many rows of it one shard is expected to ship with them.
    """

    part: int
    numbers: tuple[int, ...]
    rows: int


def source_of(tie: Tie) -> Source:
    """Where the keys of a tie are from."""
    return Source(tie.other, tuple(key.place for key in tie.keys))


def askable(ties: Ties, shards: Sequence[Sequence[str]]) -> list[int]:
    """The numbers of the ties to parts on several shards, where these may narrow a part.

    :param shards: of each part, where its rows are.
    """
    found = [
        (number, tie)
        for number, tie in enumerate(ties.all)
        if tie.keys and tie.part != tie.other and shards[tie.part] and len(shards[tie.other]) > 1
    ]
    return [
        number
        for number, tie in found
        if ties.is_narrowed(tie.part, [each for _, each in found if each.part == tie.part])
    ]


def judged(
    ties: Ties, numbers: Sequence[int], expected: Expected, least: int, waiting: Sequence[Tie]
) -> list[Judged]:
    """Decide which parts are narrowed by keys that are asked for first, those with most rows first.

    Keys are worth it if a shard need not ship at least so many rows more than it is given keys.

    :param least: these rows.
    :param waiting: ties by which shards wait for keys already.
    """
    edges = {(tie.part, tie.other) for tie in waiting}
    found = []
    for part in sorted(expected.rows, key=lambda part: expected.rows[part], reverse=True):
        own = [number for number in numbers if ties.all[number].part == part]
        own = [each for each in own if part not in reachable(ties.all[each].other, edges)]
        if not own:
            continue
        picked, rows = _picked(ties, part, own, expected, least)
        keys = sum(expected.keys[each] for each in {source_of(ties.all[n]) for n in picked})
        is_worth_it = bool(picked) and expected.rows[part] - rows - keys >= least
        found.append(Judged(part, tuple(picked) if is_worth_it else (), rows))
        if is_worth_it:
            edges |= {(part, ties.all[number].other) for number in picked}
    return found


def _picked(
    ties: Ties, part: int, own: Sequence[int], expected: Expected, least: int
) -> tuple[list[int], int]:
    """The ties that narrow a part well, and how many rows a shard ships by them; none: none do."""
    picked: list[int] = []
    rows = 0.0
    needs = zip(ties.needs_all_rows(part), expected.rows_of_need[part], strict=True)
    for need, (is_needed, before) in enumerate(needs):
        left: float = before
        of_need = [number for number in own if ties.all[number].need == need]
        for number in sorted(of_need, key=lambda each: _share(ties.all[each], each, expected)):
            keys = expected.keys[source_of(ties.all[number])]
            after = left * _share(ties.all[number], number, expected)
            if keys <= KEYS_MAX and (is_needed or left - after - keys >= least):
                picked.append(number)
                left, is_needed = after, False
        if is_needed:
            return [], expected.rows[part]
        rows += left
    return picked, min(round(rows), expected.rows[part])


def _share(tie: Tie, number: int, expected: Expected) -> float:
    """How much of the rows has one of the keys, as far as is known: each value as often."""
    return min(1.0, expected.keys[source_of(tie)] / max(1, expected.values[number]))


def asking(parts: Sequence[Part], sources: Sequence[tuple[int, Source]]) -> Any:
    """One SELECT over the keys of some sources: number of the source, then its keys as text.

    Some more keys are asked for than can be given, so that it shows.
    """
    width = max(len(places) for _, (_, places) in sources)
    selects = []
    for number, (index, places) in sources:
        part = parts[index]
        columns = _compat.column_list(part.rows)
        # Equal are only keys of the same characters, as it is looked at when their rows come.
        keys = [
            collate(as_text(columns[place], part.types[place]), "C").label(f"k{at}")
            for at, place in enumerate(places)
        ]
        distinct = (
            _compat.with_columns(part.rows, keys)
            .distinct()
            .limit(literal_column(str(KEYS_MAX + 1)))
            .subquery(f"shards_asked_{number}")
        )
        shown: list[Any] = [literal_column(str(number), Integer).label("part"), *distinct.c]
        shown += [null().label(f"k{at}") for at in range(len(places), width)]
        selects.append(select(*shown))
    return selects[0] if len(selects) == 1 else union_all(*selects)
