from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards.errors import TransactionAborted
from sqlalchemy_shards.transactions.protocol.roles import (
    CommitPlan,
    Question,
    Standing,
    plan,
    questions,
)

names = st.sampled_from([f"s{number}" for number in range(6)])
standings = st.lists(
    st.builds(
        Standing,
        names,
        st.sampled_from([True, False, None]),
        cannot_prepare=st.booleans(),
        xid=st.sampled_from([None, 7]),
        is_unread=st.booleans(),
    ),
    unique_by=lambda standing: standing.shard,
    max_size=6,
)


def answer(
    given: list[Standing], writers: set[str], stubborn: set[str], *, with_markers: bool
) -> list[Standing]:
    """Answer the questions as servers would: an xid where one was assigned or is to be."""
    asked = {q.shard: q.assign for q in questions(given, with_markers=with_markers)}
    answered = []
    for standing in given:
        name = standing.shard
        if name in asked:
            has_xid = name in writers or standing.wrote is True or asked[name]
            cannot_prepare = standing.cannot_prepare or name in stubborn
            standing = Standing(name, has_xid, cannot_prepare, 7 if has_xid else None)
        answered.append(standing)
    return answered


@given(standings, st.sets(names), st.sets(names), st.booleans())
def test_what_is_asked_always_suffices_to_decide(
    given: list[Standing], writers: set[str], stubborn: set[str], with_markers: bool
) -> None:
    answered = answer(given, writers, stubborn, with_markers=with_markers)
    wrote = {s.shard for s in answered if s.wrote}
    unfit = {s.shard for s in answered if s.wrote and s.cannot_prepare}
    if len(unfit) > 1:
        with pytest.raises(TransactionAborted):
            plan(answered)
        return

    made = plan(answered)
    xids = {s.shard: s.xid for s in answered}

    assert set(made.participants) == wrote
    assert set(made.readers) == {s.shard for s in given} - wrote
    assert (made.decision is not None) == (len(wrote) > 1)
    if made.decision is not None:
        assert made.decision == min(unfit or wrote)
        assert made.decision_xid == 7
        assert not with_markers or {xids[name] for name in wrote} == {7}


def test_an_xid_is_not_believed_where_the_application_has_had_the_connection() -> None:
    asked = questions([Standing("s0", True, xid=7, is_unread=True), Standing("s1", True)])

    assert asked == (Question("s0", True),)


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
