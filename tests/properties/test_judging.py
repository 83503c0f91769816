"""The judge of the free statements sees what differs, and what may; failures become simple."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sqlalchemy import select

from tests.properties.choices import Choices, shrink
from tests.properties.free_statements import FreeStatement
from tests.properties.judging import Answer, difference, normal

ANY = select()


def answer(*rows: object) -> Answer:
    return Answer([tuple(map(normal, row if isinstance(row, tuple) else (row,))) for row in rows])


@pytest.mark.parametrize(
    ("one", "cluster"),
    [
        (answer(1, 2), answer(1)),
        (answer(1), answer(True)),
        (answer(1), answer(Decimal(1))),
        (answer(Decimal("1.0")), answer(Decimal("1.00"))),
        (answer(1, 1, 2), answer(1, 2, 2)),
        (answer(None), answer()),
        (answer([1, 2]), answer([2, 1])),
    ],
)
def test_other_rows_and_other_types_differ(one: Answer, cluster: Answer) -> None:
    assert difference(FreeStatement(ANY), one, cluster, None)


def test_another_order_differs_where_it_is_determined() -> None:
    one, cluster = answer((1, "a"), (2, "b")), answer((2, "b"), (1, "a"))

    assert difference(FreeStatement(ANY, is_total=True), one, cluster, None)
    assert difference(FreeStatement(ANY, keys=(0,)), one, cluster, None)
    assert not difference(FreeStatement(ANY), one, cluster, None)


def test_ties_come_in_any_order() -> None:
    one, cluster = answer((1, "a"), (1, "b")), answer((1, "b"), (1, "a"))

    assert not difference(FreeStatement(ANY, keys=(0,)), one, cluster, None)


def test_numbers_that_are_equal_with_other_digits_are_ties() -> None:
    one, cluster = answer(Decimal("1.0"), Decimal(1)), answer(Decimal(1), Decimal("1.0"))
    other = answer(Decimal(1), Decimal(1))

    assert not difference(FreeStatement(ANY, keys=(0,)), one, cluster, None)
    assert difference(FreeStatement(ANY, keys=(0,)), one, other, None)


@pytest.mark.parametrize(
    ("first", "second"),
    [(Decimal("1.0"), Decimal(1)), (0.0, -0.0), ([Decimal("1.0")], [Decimal(1)])],
)
def test_a_total_order_leaves_equal_numbers_in_any_order_too(first: object, second: object) -> None:
    total = FreeStatement(ANY, is_total=True)
    one, cluster = answer((1, first), (1, second)), answer((1, second), (1, first))

    assert not difference(total, one, cluster, None)
    assert difference(total, one, answer((1, first), (1, first)), None)
    assert difference(total, answer((1, first), (2, second)), answer((2, first), (1, second)), None)


def test_any_rows_of_the_whole_may_be_picked_but_no_others() -> None:
    whole = answer((1, "a"), (1, "b"), (2, "c"))
    free = FreeStatement(ANY, keys=(0,), whole=ANY)

    assert not difference(free, answer((1, "a")), answer((1, "b")), whole)
    assert difference(free, answer((1, "a")), answer((2, "c")), whole)
    assert difference(free, answer((1, "a")), answer((1, "d")), whole)


def test_rows_in_place_of_an_error_differ() -> None:
    assert difference(FreeStatement(ANY), Answer(error=ValueError()), answer(1), None)
    assert difference(FreeStatement(ANY), answer(1), Answer(error=ValueError()), None)


def test_recorded_choices_are_made_again() -> None:
    first = Choices("seed")
    made = [first.below(10) for _ in range(20)]

    again = Choices(recorded=first.made)

    assert [again.below(10) for _ in range(25)] == [*made, 0, 0, 0, 0, 0]


def test_what_fails_becomes_as_simple_as_it_can() -> None:
    def fails(made: list[int]) -> bool:
        choices = Choices(recorded=made)
        return sum(choices.below(100) for _ in range(choices.below(30))) >= 50

    found = shrink([20, *range(40, 60)], fails)

    assert fails(found)
    assert len(found) < 4
