from __future__ import annotations

from datetime import timedelta
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards.transactions.gid import TransactionGid
from sqlalchemy_shards.transactions.protocol.cleaning import DecisionRow, may_go
from sqlalchemy_shards.transactions.protocol.recovering import (
    Listed,
    finishing_verb,
    is_due,
    read_listing,
    recognise,
)
from sqlalchemy_shards.transactions.protocol.replies import (
    COMMIT,
    COMMIT_PREPARED,
    PREPARE,
    ROLLBACK_PREPARED,
    Reply,
    read_error,
    read_tag,
)
from sqlalchemy_shards.transactions.protocol.settling import (
    AbortRow,
    Outcome,
    Sight,
    conclude,
    conclude_again,
    conclude_insert,
)

CLUSTER, SHARD, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
GID = TransactionGid(CLUSTER, UUID(int=9), SHARD, 741)


@pytest.mark.parametrize("verb", [PREPARE, COMMIT, COMMIT_PREPARED, ROLLBACK_PREPARED])
def test_only_its_own_tag_says_that_a_command_was_carried_out(verb: str) -> None:
    assert read_tag(verb, verb) is Reply.DONE
    assert read_tag(verb, "ROLLBACK") is Reply.ROLLED_BACK
    assert read_tag(verb, "SELECT 1") is Reply.LOST
    assert read_tag(verb, None) is Reply.LOST


@given(st.sampled_from([PREPARE, COMMIT, COMMIT_PREPARED]), st.none() | st.text(min_size=5))
def test_an_error_on_a_lost_connection_or_of_the_client_is_no_answer(
    verb: str, sqlstate: str | None
) -> None:
    assert read_error(verb, sqlstate, is_lost=True) is Reply.LOST
    assert read_error(verb, None, is_lost=False) is Reply.LOST


def test_does_not_exist_is_an_answer_of_its_own_to_those_who_finish_only() -> None:
    replies = {v: read_error(v, "42704", is_lost=False) for v in (PREPARE, COMMIT, COMMIT_PREPARED)}

    assert replies == {
        PREPARE: Reply.REFUSED,
        COMMIT: Reply.REFUSED,
        COMMIT_PREPARED: Reply.NOT_THERE,
    }


def test_nothing_is_concluded_from_a_database_that_is_not_the_decision_shard() -> None:
    for outcome, is_over in product([None, Outcome.COMMITTED, Outcome.ABORTED], [True, False]):
        sight = Sight(outcome, is_over, is_verified=False)

        assert conclude(sight) is Outcome.UNKNOWN
        assert conclude_again(sight) is Outcome.UNKNOWN


def test_a_row_is_the_answer_and_no_row_is_one_when_the_transaction_is_over() -> None:
    assert conclude(Sight(Outcome.COMMITTED, False, True)) is Outcome.COMMITTED
    assert conclude(Sight(None, True, True)) is Outcome.ABORTED
    assert conclude(Sight(None, False, True)) is None


def test_what_stood_in_the_way_of_an_abort_row_and_is_gone_tells_nothing() -> None:
    assert conclude_insert(AbortRow.INSERTED) is Outcome.ABORTED
    assert conclude_insert(AbortRow.BUSY) is Outcome.UNKNOWN
    assert conclude_insert(AbortRow.IN_THE_WAY) is None
    assert conclude_again(Sight(None, True, True)) is Outcome.UNKNOWN


def test_only_a_part_of_this_shard_is_recognised() -> None:
    part = GID.part(SHARD)

    assert recognise(str(part), cluster=CLUSTER, shard=SHARD) == part
    assert recognise(str(part), cluster=CLUSTER, shard=OTHER) is Listed.NOT_UNDERSTOOD
    assert recognise(str(part), cluster=OTHER, shard=SHARD) is Listed.FOREIGN
    assert recognise(str(GID), cluster=CLUSTER, shard=SHARD) is Listed.NOT_UNDERSTOOD
    assert recognise("mine", cluster=CLUSTER, shard=SHARD) is Listed.FOREIGN


def test_what_is_unknown_or_young_stays_prepared() -> None:
    second = timedelta(seconds=1)

    assert finishing_verb(Outcome.UNKNOWN) is None
    assert finishing_verb(Outcome.COMMITTED) == COMMIT_PREPARED
    assert finishing_verb(Outcome.ABORTED) == ROLLBACK_PREPARED
    assert (is_due(second, None), is_due(second, second), is_due(second, 2 * second)) == (
        True,
        True,
        False,
    )


def test_another_database_cannot_say_that_a_part_is_not_there() -> None:
    assert read_listing(is_verified=False, is_listed=False) is Reply.LOST
    assert read_listing(is_verified=False, is_listed=True) is Reply.LOST
    assert read_listing(is_verified=True, is_listed=False) is Reply.NOT_THERE
    assert read_listing(is_verified=True, is_listed=True) is None


def test_a_commit_row_goes_when_it_is_old_and_all_who_took_part_hold_nothing() -> None:
    row = DecisionRow("g", Outcome.COMMITTED, frozenset({SHARD, OTHER}), True, True)
    young = DecisionRow("g", Outcome.COMMITTED, row.needs, False, True)
    both = {SHARD, OTHER}

    assert may_go(row, looked_at=both, held={"h"})
    assert not may_go(row, looked_at=both, held={"g"})
    assert not may_go(row, looked_at={SHARD}, held=set())
    assert not may_go(young, looked_at=both, held=set())


def test_an_abort_row_goes_when_what_it_forestalls_is_over() -> None:
    row = DecisionRow("g", Outcome.ABORTED, frozenset(), True, True)
    early = DecisionRow("g", Outcome.ABORTED, frozenset(), True, False)

    assert may_go(row, looked_at=set(), held={"g"})
    assert not may_go(early, looked_at={SHARD}, held=set())
