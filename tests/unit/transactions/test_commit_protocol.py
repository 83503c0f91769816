from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards.errors import TransactionAborted
from sqlalchemy_shards.transactions.protocol import (
    CommitPlan,
    Question,
    Standing,
    plan,
    questions,
)

standings = st.lists(
    st.builds(
        Standing,
        st.sampled_from([f"s{number}" for number in range(6)]),
        st.sampled_from([True, False, None]),
        st.just(False),
    ),
    unique_by=lambda standing: standing.shard,
    max_size=6,
)


def answer(given: list[Standing], writers: set[str]) -> list[Standing]:
    """Answer the questions as servers would: an xid where one was assigned or is to be."""
    asked = {question.shard: question.assign for question in questions(given)}
    answered = []
    for standing in given:
        has_xid = standing.shard in writers or asked.get(standing.shard, False)
        if standing.shard in asked:
            standing = Standing(standing.shard, has_xid, False, 7 if has_xid else None)
        answered.append(standing)
    return answered


@given(standings, st.sets(st.sampled_from([f"s{number}" for number in range(6)])))
def test_what_is_asked_always_suffices_to_decide(given: list[Standing], writers: set[str]) -> None:
    answered = answer(given, writers)

    made = plan(answered)

    wrote = {s.shard for s in answered if s.wrote}
    assert set(made.participants) == wrote
    assert set(made.readers) == {s.shard for s in given} - wrote
    assert (made.decision is not None) == (len(wrote) > 1)
    if made.decision is not None:
        assert made.decision == min(wrote)
        assert made.decision_xid == 7


def test_one_known_writer_is_asked_nothing() -> None:
    assert questions([Standing("s1", True), Standing("s0", False)]) == ()


def test_one_shard_that_may_have_written_is_asked_without_giving_it_an_xid() -> None:
    assert questions([Standing("s1", None), Standing("s0", False)]) == (Question("s1", False),)


def test_the_smallest_known_writer_is_asked_for_its_xid() -> None:
    asked = questions([Standing("s2", True), Standing("s1", True), Standing("s0", None)])

    assert set(asked) == {Question("s1", True), Question("s0", False)}


def test_a_shard_that_cannot_be_prepared_decides() -> None:
    made = plan([Standing("s0", True), Standing("s1", True, cannot_prepare=True, xid=9)])

    assert made == CommitPlan((), decision="s1", decision_xid=9, prepared=("s0",))
    assert made.participants == ("s1", "s0")


def test_two_shards_that_cannot_be_prepared_are_refused() -> None:
    with pytest.raises(TransactionAborted, match="'s0', 's1' cannot be prepared"):
        plan(
            [
                Standing("s0", True, cannot_prepare=True, xid=8),
                Standing("s1", True, cannot_prepare=True, xid=9),
            ]
        )


def test_a_reader_that_cannot_be_prepared_does_not_decide() -> None:
    made = plan(
        [
            Standing("s0", True, xid=8),
            Standing("s1", False, cannot_prepare=True),
            Standing("s2", True),
        ]
    )

    assert made.decision == "s0"
    assert made.readers == ("s1",)
