from __future__ import annotations

from itertools import combinations

import pytest

from sqlalchemy_shards.transactions.consistency import (
    HELP_SECONDS,
    ONLY_LAGGING_ATTEMPTS,
    PAUSE_SECONDS_MAX,
    QUICK_ATTEMPTS,
    Lag,
    Watch,
    comparisons,
    pause_seconds,
    to_take_anew,
)

SHARDS = ("a", "b", "c", "d")


class TestComparing:
    def test_the_first_time_every_pair_is_compared_in_both_directions(self) -> None:
        made = comparisons(SHARDS, SHARDS)

        assert made == {each: tuple(o for o in SHARDS if o != each) for each in SHARDS}

    @pytest.mark.parametrize(
        "anew", [set(some) for number in range(5) for some in combinations(SHARDS, number)]
    )
    def test_later_every_pair_with_a_new_snapshot_and_no_other(self, anew: set[str]) -> None:
        made = comparisons(SHARDS, anew)

        pairs = {(shard, peer) for shard, peers in made.items() for peer in peers}
        assert pairs == {
            (one, two) for one in SHARDS for two in SHARDS if one != two and {one, two} & anew
        }


class TestTakingAnew:
    def test_at_first_only_what_lags(self) -> None:
        lags = [Lag("c", "g"), Lag("a", None), Lag("c", "h")]

        assert to_take_anew(SHARDS, lags, ONLY_LAGGING_ATTEMPTS) == ("a", "c")

    def test_then_all(self) -> None:
        assert to_take_anew(SHARDS, [Lag("c", "g")], ONLY_LAGGING_ATTEMPTS + 1) == SHARDS


class TestWaiting:
    def test_not_at_first_then_longer_and_longer_up_to_a_bound(self) -> None:
        pauses = [pause_seconds(attempt) for attempt in range(1, 10_000, 3)]

        assert pauses[0] == pause_seconds(QUICK_ATTEMPTS) == 0
        assert pauses == sorted(pauses)
        assert pauses[-1] == PAUSE_SECONDS_MAX

    def test_a_transaction_that_lags_for_long_is_helped_once(self) -> None:
        watch, lags = Watch(), [Lag("a", "g"), Lag("b", "g"), Lag("a", None)]

        helped = [
            watch.overdue(lags, now)
            for now in (0.0, HELP_SECONDS / 2, HELP_SECONDS, 3 * HELP_SECONDS)
        ]

        assert helped == [[], [], ["g"], []]

    def test_one_that_was_gone_in_between_is_waited_for_anew(self) -> None:
        watch, lags = Watch(), [Lag("a", "g")]
        watch.overdue(lags, 0.0)
        watch.overdue([], HELP_SECONDS / 2)

        assert watch.overdue(lags, HELP_SECONDS) == []
