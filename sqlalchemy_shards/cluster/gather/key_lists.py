"""Decides in which rows of a gather keys of others choose, and how these keys come.

Keys of one shard come with what it ships, before the others ship. Keys of several shards are asked
for before anything is shipped (`shipping` performs both). Whether it is worth a round trip is found
out from the planners of the shards (`estimates`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy_shards.plan import KeyChoice, KeyList
from sqlalchemy_shards.planning.asked_keys import KEYS_MAX, Expected, askable, judged, source_of
from sqlalchemy_shards.planning.parts import Rows, Values
from sqlalchemy_shards.planning.stages import candidates_of, staged

from .estimates import is_known

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy_shards.cluster.dispatch.work import Surroundings, Work
    from sqlalchemy_shards.planning.asked_keys import Judged, Source
    from sqlalchemy_shards.planning.parts import Gathering, Question
    from sqlalchemy_shards.planning.stages import Shipment
    from sqlalchemy_shards.planning.ties import Ties

ROWS_WORTH_WAITING: Final = 1_000
"""Fewer rows of a part on a shard are not worth a second round trip."""


class Decided(NamedTuple):
    """What each shard ships.

    :param sources: the keys that are asked for first.
    :param key_lists: what is told of the choice.
    """

    shipments: list[Shipment]
    sources: tuple[Source, ...] = ()
    key_lists: tuple[KeyList, ...] = ()


def decide(
    gathering: Gathering,
    shards: Sequence[tuple[str, ...]],
    around: Surroundings,
    work_of: Callable[[Question, str], Work],
) -> Decided:
    """Decide what each shard ships, and by which keys.

    :param shards: of each part, where its rows are.
    :param work_of: makes the statement that a shard is asked about.
    """
    ties = gathering.ties
    if ties is None:
        return Decided(staged((), shards, {}))
    return _Decision(gathering, ties, shards, around, work_of).made()


class _Decision:
    def __init__(
        self,
        gathering: Gathering,
        ties: Ties,
        shards: Sequence[tuple[str, ...]],
        around: Surroundings,
        work_of: Callable[[Question, str], Work],
    ) -> None:
        self._gathering = gathering
        self._ties = ties
        self._shards = shards
        self._around = around
        self._work_of = work_of
        self._candidates = candidates_of(ties, shards)
        self._numbers = askable(ties, shards)

    def made(self) -> Decided:
        rows, least = self._rows(), self._around.rows_worth_waiting
        worthwhile = {part: count for part, count in rows.items() if count >= least}
        found = staged(self._candidates, self._shards, worthwhile)
        waited = {number for shipment in found for number in shipment.lists}
        told = list(self._told_of_waiting(found, rows))
        numbers = [n for n in self._numbers if self._ties.all[n].part in worthwhile]
        if not numbers:
            return Decided(found, (), tuple(told))
        expected = self._expected(numbers, rows)
        verdicts = judged(
            self._ties, numbers, expected, least, [self._ties.all[each] for each in waited]
        )
        for each in verdicts:
            told += self._told_of_asking(each, numbers, expected)
        chosen = [number for each in verdicts for number in each.numbers]
        sources = tuple(dict.fromkeys(source_of(self._ties.all[number]) for number in chosen))
        return Decided([self._with_asked(each, chosen) for each in found], sources, tuple(told))

    def _rows(self) -> dict[int, int]:
        """Of each part that keys could narrow, how many rows a shard would ship without them."""
        asked: dict[int, str] = {}
        for each in self._candidates:
            others = each.others - {each.shard}
            if each.tie.keys and others and each.tie.part not in asked:
                asked[each.tie.part] = self._one_of(others)
        for number in self._numbers:
            part = self._ties.all[number].part
            if part not in asked:
                asked[part] = self._one_of(self._shards[part])
        found = self._answers({Rows(part): shard for part, shard in asked.items()})
        return {part: found[Rows(part)] for part in asked}

    def _expected(self, numbers: Sequence[int], rows: Mapping[int, int]) -> Expected:
        """What else the planners expect, where keys of several shards could be given."""
        ties = [self._ties.all[number] for number in numbers]
        parts = {tie.part: self._ties.needs_all_rows(tie.part) for tie in ties}
        needs = [
            Rows(part, need)
            for part, needs in parts.items()
            for need, is_all in enumerate(needs)
            if len(needs) > 1 and not is_all
        ]
        values = [Values(number) for number in numbers]
        sources = list(dict.fromkeys(map(source_of, ties)))
        questions: dict[Question, str] = {
            need: self._one_of(self._shards[need.part]) for need in needs
        }
        for question, tie in zip(values, ties, strict=True):
            questions[question] = self._one_of(self._shards[tie.part])
        for source in sources:
            if not self._is_to_be_tried(source):
                questions[source] = self._one_of(self._shards[source.part])
        found = self._answers(questions)
        return Expected(
            {part: rows[part] for part in parts},
            {
                part: [found.get(Rows(part, need), rows[part]) for need in range(len(needs))]
                for part, needs in parts.items()
            },
            {source: found.get(source, 1) * len(self._shards[source.part]) for source in sources},
            {question.tie: found[question] for question in values},
        )

    def _is_to_be_tried(self, source: Source) -> bool:
        """Whether keys are asked for, for once, as no planner knows how many there are."""
        is_vague = self._gathering.parts[source.part].is_vague
        return is_vague and not is_known(self._gathering, source)

    def _answers(self, questions: Mapping[Question, str]) -> Mapping[Question, int]:
        return self._around.expected_rows(self._gathering, questions, self._work_of)

    def _one_of(self, shards: Collection[str]) -> str:
        """A shard that takes part in the transaction already, else the first one."""
        in_order = self._around.territory.in_order(shards)
        return next((name for name in in_order if name in self._around.enlisted), in_order[0])

    def _with_asked(self, shipment: Shipment, numbers: Sequence[int]) -> Shipment:
        own = [each for each in numbers if self._ties.all[each].part in shipment.indexes]
        return shipment._replace(asked=tuple(own))

    def _told_of_waiting(
        self, found: Sequence[Shipment], rows: Mapping[int, int]
    ) -> Iterator[KeyList]:
        for each in self._candidates:
            waiting = tuple(shipment.shard for shipment in found if each.number in shipment.lists)
            if waiting:
                part, other = each.tie.part, each.tie.other
                origins = self._origin(part), self._origin(other)
                yield KeyList(origins[0], waiting, origins[1], (each.shard,), rows[part])

    def _told_of_asking(
        self, verdict: Judged, numbers: Sequence[int], expected: Expected
    ) -> Iterator[KeyList]:
        """What became of the ties of a part; each pair of origins is told once."""
        told: dict[tuple[str, KeyChoice], KeyList] = {}
        for number in numbers:
            tie = self._ties.all[number]
            if tie.part != verdict.part or (verdict.numbers and number not in verdict.numbers):
                continue
            keys = expected.keys[source_of(tie)]
            choice = KeyChoice.TOO_MANY if keys > KEYS_MAX else KeyChoice.TOO_FEW_ROWS
            choice = KeyChoice.ASKED_FIRST if number in verdict.numbers else choice
            told[self._origin(tie.other), choice] = KeyList(
                self._origin(tie.part),
                self._in_order(tie.part),
                self._origin(tie.other),
                self._in_order(tie.other),
                expected.rows[tie.part],
                choice,
                keys,
                verdict.rows if verdict.numbers else None,
            )
        yield from told.values()

    def _origin(self, part: int) -> str:
        return self._gathering.parts[part].origin

    def _in_order(self, part: int) -> tuple[str, ...]:
        return self._around.territory.in_order(self._shards[part])
