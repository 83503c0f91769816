from __future__ import annotations

import pytest

from tests.unit.transactions.snapshot_model import Seen, explore


@pytest.mark.parametrize("deciding", [0, 1])
def test_a_reader_is_never_deceived_whatever_happens_in_which_order(deciding: int) -> None:
    states, deceived = explore(deciding)

    assert deceived is None
    assert len(states) > 1_000


@pytest.mark.parametrize(
    ("fault", "deciding"),
    [
        ("no horizon", 0),
        ("not of new ones", 0),
        ("not of running ones", 0),
        ("not of running ones", 1),
        ("horizon goes back", 0),
        ("not written down", 0),
        ("what is finished now", 0),
        ("whatever there is", 0),
    ],
)
def test_a_planted_mistake_is_found(fault: str, deciding: int) -> None:
    _, deceived = explore(deciding, [fault])

    assert deceived is not None


def test_a_snapshot_shows_what_had_ended() -> None:
    seen = Seen(10, frozenset({3, 7}))

    shown = [xid for xid in range(1, 13) if seen.shows(xid)]

    assert shown == [1, 2, 4, 5, 6, 8, 9]
    assert str(seen) == "3:10:3,7"
