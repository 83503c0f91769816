"""What a shard is told that joins a transaction late."""

from __future__ import annotations

import pytest

from sqlalchemy_shards.cluster.enlistment.transaction_log import TransactionLog


def told(log: TransactionLog) -> list[str]:
    return [each.savepoint or f"{each.sql!s}" for each in log]


def test_savepoints_and_settings_are_told_in_their_order() -> None:
    log = TransactionLog()
    log.setting("a", None)
    log.savepoint("one")
    log.setting("b", None)

    assert told(log) == ["a", "one", "b"]


def test_rolling_back_undoes_what_came_after_the_savepoint() -> None:
    log = TransactionLog()
    log.setting("a", None)
    log.savepoint("one")
    log.setting("b", None)
    log.savepoint("two")
    log.roll_back_to("one")

    assert told(log) == ["a", "one"]


def test_a_released_savepoint_leaves_what_was_set_within_it() -> None:
    log = TransactionLog()
    log.savepoint("one")
    log.setting("a", None)
    log.savepoint("two")
    log.setting("b", None)
    log.release("one")

    assert told(log) == ["a", "b"]


def test_the_innermost_savepoint_of_a_name_is_meant() -> None:
    log = TransactionLog()
    log.savepoint("one")
    log.setting("a", None)
    log.savepoint("one")
    log.setting("b", None)
    log.roll_back_to("one")

    assert told(log) == ["one", "a", "one"]


def test_a_repeated_setting_is_told_once_and_last() -> None:
    log = TransactionLog()
    for sql in ("a", "b", "a"):
        log.setting(sql, {"value": 1})
    log.setting("a", {"value": 2})

    assert [(each.sql, each.parameters) for each in log] == [
        ("b", {"value": 1}),
        ("a", {"value": 1}),
        ("a", {"value": 2}),
    ]


def test_a_setting_from_before_a_savepoint_is_kept_for_its_rollback() -> None:
    log = TransactionLog()
    log.setting("a", None)
    log.savepoint("one")
    log.setting("b", None)
    log.setting("a", None)
    log.roll_back_to("one")

    assert told(log) == ["a", "one"]


def test_many_savepoints_with_the_same_settings_do_not_add_up() -> None:
    log = TransactionLog()
    for _ in range(100):
        log.savepoint("one")
        log.setting("a", None)
        log.setting("b", None)
        log.release("one")

    assert told(log) == ["a", "b"]


def test_an_unknown_savepoint_is_an_error() -> None:
    with pytest.raises(ValueError, match="no savepoint"):
        TransactionLog().release("one")
