from __future__ import annotations

from sqlalchemy_shards.transactions.acknowledged import GIDS_MAX, Acknowledged


def test_gids_are_handed_out_once_when_enough_have_gathered() -> None:
    acknowledged = Acknowledged(batch=2)

    acknowledged.add("s0", "a")
    early = acknowledged.due("s0")
    acknowledged.add("s0", "b")

    assert early == ()
    assert acknowledged.due("s0") == ("a", "b")
    assert acknowledged.due("s0") == ()


def test_all_that_wait_can_be_taken_shard_by_shard() -> None:
    acknowledged = Acknowledged()
    acknowledged.add("s0", "a")
    acknowledged.add("s1", "b")

    assert acknowledged.take("s0") == ("a",)
    assert acknowledged.take("s0") == ()
    assert acknowledged.take("s1") == ("b",)


def test_what_waits_is_bounded() -> None:
    acknowledged = Acknowledged()

    for number in range(GIDS_MAX + 5):
        acknowledged.add("s0", str(number))

    assert len(acknowledged.take("s0")) == GIDS_MAX
