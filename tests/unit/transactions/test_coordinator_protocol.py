"""What the model in `tests/model` leaves out: readers, a single participant, what cannot begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from sqlalchemy_shards.errors import TransactionAborted
from sqlalchemy_shards.transactions.protocol.coordinator import (
    Command,
    Commit,
    Heard,
    RoundOver,
    Stage,
    Verb,
)
from sqlalchemy_shards.transactions.protocol.replies import Link, Reply
from sqlalchemy_shards.transactions.protocol.roles import Standing
from sqlalchemy_shards.transactions.protocol.settling import Outcome

Answers = Callable[[Command], Heard]


def done(command: Command) -> Heard:
    return Heard(command, Reply.DONE)


def run(
    commit: Commit,
    commands: Sequence[Command],
    links: Mapping[str, Link],
    answers: Answers = done,
) -> list[list[str]]:
    """Perform everything; return what was commanded, round by round."""
    rounds = []
    while commands:
        rounds.append([f"{c.verb.name} {c.shard}" for c in commands])
        for command in commands:
            commit.handle(answers(command))
        commands = commit.handle(RoundOver(links))
    return rounds


def opened(*names: str) -> dict[str, Link]:
    return dict.fromkeys(names, Link.OPEN)


def test_one_participant_is_committed_before_the_readers_without_two_phases() -> None:
    commit = Commit([Standing("a", False), Standing("b", True), Standing("c", False)])
    links = opened("a", "b", "c")

    rounds = run(commit, commit.begin(links), links)

    assert rounds == [["COMMIT b"], ["COMMIT a", "COMMIT c"]]
    assert commit.outcome is Outcome.COMMITTED
    assert commit.stage is Stage.OVER


def test_readers_are_committed_after_the_decision() -> None:
    commit = Commit([Standing("a", False), Standing("b", True), Standing("c", True)])
    links = opened("a", "b", "c")

    rounds = run(commit, commit.begin(links), links, lambda c: Heard(c, Reply.DONE, 7))

    assert rounds == [
        ["ASK_AND_ASSIGN b"],
        ["INSERT_DECISION b", "PREPARE c"],
        ["DECIDE b"],
        ["COMMIT_PREPARED c", "COMMIT a"],
    ]


def test_rows_of_older_transactions_go_beside_round_3_on_the_idle_decision_shard() -> None:
    commit = Commit([Standing("b", True), Standing("c", True)])
    commands = commit.begin(opened("b", "c"))
    idle = {"b": Link.IDLE, "c": Link.IDLE}

    rounds = run(commit, commands, idle, lambda c: Heard(c, Reply.DONE, 7))

    assert rounds[-1] == ["COMMIT_PREPARED c", "FORGET b"]
    assert commit.is_acknowledged


def test_who_is_not_known_to_have_written_is_asked_and_then_reads_or_takes_part() -> None:
    commit = Commit([Standing("a", None), Standing("b", None), Standing("c", None)])
    links = opened("a", "b", "c")
    xids = {"a": None, "b": 5, "c": 6}

    rounds = run(commit, commit.begin(links), links, lambda c: Heard(c, Reply.DONE, xids[c.shard]))

    assert rounds[0] == ["ASK a", "ASK b", "ASK c"]
    assert commit.plan.decision == "b"
    assert commit.plan.decision_xid == 5
    assert commit.plan.readers == ("a",)


def test_a_shard_where_nothing_ran_only_reads() -> None:
    commit = Commit([Standing("a", None), Standing("b", True)])

    commands = commit.begin({"a": Link.IDLE, "b": Link.OPEN})

    assert commands == [Command(Verb.COMMIT, "b")]


@pytest.mark.parametrize("link", [Link.LOST, Link.FAILED, Link.BUSY, Link.IDLE])
def test_a_transaction_that_cannot_go_on_undoes_the_others(link: Link) -> None:
    commit = Commit([Standing("a", True), Standing("b", True)])
    links = {"a": link, "b": Link.OPEN}

    rounds = run(commit, commit.begin(links), links)

    assert commit.unfit(links) == {"a": link}
    assert commit.outcome is Outcome.ABORTED
    assert [command for each in rounds for command in each if command.endswith(" b")] == [
        "ROLLBACK b"
    ]


def test_a_reader_that_is_lost_undoes_all_before_the_decision() -> None:
    commit = Commit([Standing("a", False), Standing("b", True)])

    commands = commit.begin({"a": Link.LOST, "b": Link.OPEN})

    assert commands == [Command(Verb.ROLLBACK, "b")]


def test_a_reader_that_is_lost_after_the_decision_changes_nothing() -> None:
    commit = Commit([Standing("a", False), Standing("b", True)])
    links = opened("a", "b")

    def answer(command: Command) -> Heard:
        return Heard(command, Reply.LOST if command.shard == "a" else Reply.DONE)

    run(commit, commit.begin(links), links, answer)

    assert commit.outcome is Outcome.COMMITTED
    assert commit.left == []


def test_a_decision_that_was_never_sent_is_an_abort_that_nobody_need_be_asked_about() -> None:
    commit = Commit([Standing("a", True), Standing("b", True)])
    links = opened("a", "b")

    def answer(command: Command) -> Heard:
        if command.verb is Verb.DECIDE:
            links["a"], links["b"] = Link.LOST, Link.IDLE
            return Heard(command, Reply.UNSENT)
        return Heard(command, Reply.DONE, 7 if command.verb is Verb.ASK_AND_ASSIGN else None)

    rounds = run(commit, commit.begin(links), links, answer)

    assert commit.outcome is Outcome.ABORTED
    assert commit.left == []
    assert rounds[2:] == [["DECIDE a"], ["ROLLBACK_PREPARED b"]]


@pytest.mark.parametrize(
    ("reply", "link", "outcome"),
    [
        (Reply.REFUSED, Link.IDLE, Outcome.ABORTED),
        (Reply.LOST, Link.LOST, Outcome.UNKNOWN),
        (Reply.LOST, Link.OPEN, Outcome.ABORTED),
    ],
)
def test_one_participant_that_is_not_committed_is_as_unknown_as_its_connection_says(
    reply: Reply, link: Link, outcome: Outcome
) -> None:
    commit = Commit([Standing("a", False), Standing("b", True)])
    commands = commit.begin(opened("a", "b"))
    links = {"a": Link.OPEN, "b": link}

    rounds = run(
        commit, commands, links, lambda c: Heard(c, reply if c.shard == "b" else Reply.DONE)
    )

    assert commit.outcome is outcome
    assert "ROLLBACK a" in rounds[1]


def test_two_that_cannot_be_prepared_are_undone() -> None:
    commit = Commit([Standing("a", True, cannot_prepare=True), Standing("b", None)])
    links = opened("a", "b")
    for command in commit.begin(links):
        commit.handle(Heard(command, Reply.DONE, 7, cannot_prepare=True))

    with pytest.raises(TransactionAborted, match="cannot be prepared"):
        commit.handle(RoundOver(links))
    rounds = run(commit, commit.handle(RoundOver(links, is_stopped=True)), links)

    assert rounds == [["ROLLBACK a", "ROLLBACK b"]]
    assert commit.outcome is Outcome.ABORTED
