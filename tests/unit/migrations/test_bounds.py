"""How long migrations wait: what is said, what is refused, and what holds where nothing is said."""

from __future__ import annotations

import doctest

import pytest

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.turns import bounds
from sqlalchemy_shards.migrations.turns.bounds import Bounds, pause_seconds, read_bounds


def test_the_examples_are_true() -> None:
    assert doctest.testmod(bounds).failed == 0


@pytest.mark.parametrize(
    "argument", ["lock_timeout=soon", "lock_timeout=5", "statement_timeout", "lock_tries=-1"]
)
def test_what_cannot_be_read_is_refused_with_an_example(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read; give a (duration|number), as"):
        read_bounds([argument])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lock_timeout", -1),
        ("lock_timeout", "5s"),
        ("statement_timeout", float("nan")),
        ("runner_timeout", 3_000_000),
        ("lock_tries", 0),
        ("lock_tries", 2.5),
        ("lock_tries", True),
    ],
)
def test_what_is_no_bound_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}={value!r}"):
        Bounds(**{name: value})  # type: ignore[arg-type]


def test_no_bound_at_all_can_be_asked_for() -> None:
    assert read_bounds(["lock_timeout=0s"]).or_else(Bounds(lock_timeout=5)).lock_timeout == 0


def test_pauses_never_are_longer_than_ten_seconds_nor_than_half_of_that_shorter() -> None:
    pauses = [pause_seconds(attempt, chance) for attempt in (10, 1000) for chance in (0, 1)]

    assert pauses == [5, 10, 5, 10]
