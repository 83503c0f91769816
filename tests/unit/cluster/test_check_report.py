from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import psycopg
import pytest

from sqlalchemy_shards.catalog.identity import SCHEMA_VERSION, Identity
from sqlalchemy_shards.cluster.readiness.judging import judge
from sqlalchemy_shards.cluster.readiness.report import Finding, Report, Status
from sqlalchemy_shards.cluster.readiness.seen import (
    ColumnExpected,
    ColumnSeen,
    DatabaseSeen,
    Expectation,
    Prepared,
    ServerSeen,
    ShardFacts,
    TableExpected,
    TableSeen,
    TablesSeen,
)
from sqlalchemy_shards.errors import ConfigurationError

STARTED = 1_700_000_000_000_000
USERS = TableExpected(None, "users", {"id": ColumnExpected("BIGINT", is_nullable=False)})
FIT = ShardFacts(
    server=ServerSeen(
        version=150004,
        started_at=STARTED,
        prepared_transactions_max=64,
        settings={"TimeZone": "UTC"},
    ),
    database=DatabaseSeen(5, {"encoding": "UTF8", "collation": "C"}),
    identity=Identity(UUID(int=1), "shop", UUID(int=2), "s0", SCHEMA_VERSION),
    may_use_schema=True,
    tables=TablesSeen(
        {"users": TableSeen({"id": ColumnSeen("bigint", is_nullable=False)})},
        {"BIGINT": "bigint"},
    ),
)
EXPECTED = Expectation(
    "shop", commits_atomically=True, pools={"s0": 15, "s1": 15}, tables={"users": USERS}
)


BIGINT = ColumnSeen("bigint", is_nullable=False)


def report_on(facts: ShardFacts | Exception, expectation: Expectation = EXPECTED) -> Report:
    return judge({"s0": facts}, {"s0": "postgresql+psycopg://app:***@db0/app"}, expectation)


def seen(**facts: Any) -> ShardFacts:
    """A fit shard but for these facts; those of its server and database are given by name."""
    parts = {}
    for part in ("server", "database"):
        kind = getattr(FIT, part)
        names = {each.name for each in dataclasses.fields(kind)} & facts.keys()
        parts[part] = dataclasses.replace(kind, **{name: facts.pop(name) for name in names})
    return dataclasses.replace(FIT, **parts, **facts)


def users(column: ColumnSeen | None, **more: Any) -> TablesSeen:
    columns = {} if column is None else {"id": column}
    return TablesSeen({"users": TableSeen(columns, **more)}, {"BIGINT": "bigint"})


def report_on_two(**facts: Any) -> Report:
    """Of two shards on servers of their own, of which the second has these facts."""
    other = seen(**{"started_at": STARTED + 1, **facts})
    return judge({"s0": FIT, "s1": other}, {"s0": "a", "s1": "b"}, EXPECTED)


def of_cluster(report: Report, subject: str) -> Finding:
    (found,) = [each for each in report.findings if (each.shard, each.subject) == (None, subject)]
    return found


def only_failure(report: Report) -> Finding:
    (failure,) = report.failures
    return failure


def test_a_fit_shard_has_only_findings_that_are_ok() -> None:
    report = report_on(FIT)

    assert report.is_healthy
    assert {each.status for each in report.findings} == {Status.OK}
    assert [each.subject for each in report.findings] == [
        "reachable",
        "server",
        "two-phase commit",
        "connections",
        "write-ahead log",
        "schema shards",
        "identity",
        "prepared transactions",
        "tables",
        "privileges",
    ]


@pytest.mark.parametrize(
    ("facts", "subject", "found"),
    [
        ({"version": 120017}, "server", "PostgreSQL 12.17 is too old"),
        ({"is_standby": True}, "server", "a standby"),
        ({"prepared_transactions_max": 0}, "two-phase commit", "max_prepared_transactions is 0"),
        ({"identity": None, "may_use_schema": False}, "schema shards", "it is not there"),
        ({"may_use_schema": False}, "schema shards", "may not use it"),
        (
            {"prepared": (Prepared(True, 7200.0), Prepared(True, 61.0), Prepared(True, 1.0))},
            "prepared transactions",
            "2 left behind, the oldest for 2 h",
        ),
        ({"is_read_only": True}, "server", "its transactions are read-only"),
        (
            {"prepared": (Prepared(True, 90.0, may_finish=False, owner="batch"),)},
            "prepared transactions",
            "may not finish those of batch",
        ),
        ({"connections_max": 14}, "connections", "may open 15, the server takes 14"),
        (
            {"tables": TablesSeen(dict.fromkeys("abcdefg"))},
            "tables",
            "7 missing: a, b, c, d, e and 2 more",
        ),
        ({"tables": users(None)}, "columns", "users.id is missing"),
        (
            {"tables": users(ColumnSeen("integer", is_nullable=True))},
            "columns",
            "users.id is integer, not bigint; users.id may be NULL",
        ),
        (
            {"tables": users(ColumnSeen("bigint", is_nullable=False), lacking=("INSERT",))},
            "privileges",
            "lacks INSERT on users",
        ),
    ],
)
def test_what_is_not_fit_fails_with_advice(facts: Any, subject: str, found: str) -> None:
    failure = only_failure(report_on(seen(**facts)))

    assert failure.subject == subject
    assert found in failure.found
    assert failure.advice


@pytest.mark.parametrize("expectation", [dataclasses.replace(EXPECTED, commits_atomically=False)])
def test_two_phase_commit_is_not_asked_of_a_cluster_that_never_does_it(
    expectation: Expectation,
) -> None:
    assert report_on(seen(prepared_transactions_max=0), expectation).is_healthy


@pytest.mark.parametrize(
    ("facts", "subject", "found"),
    [
        ({"wal_level": "replica"}, "write-ahead log", "wal_level is replica: no data can be moved"),
        ({"prepared_transactions_max": 14}, "two-phase commit", "may have 15 transactions there"),
        (
            {"collation_version": "2.31", "library_version": "2.36"},
            "collation version",
            "ordered by version 2.31 of its collations, and the server has 2.36",
        ),
        (
            {"identity": Identity(UUID(int=1), "shop", UUID(int=2), "s0", SCHEMA_VERSION - 1)},
            "schema shards",
            f"this release makes version {SCHEMA_VERSION}",
        ),
        (
            {"tables": dataclasses.replace(FIT.tables or TablesSeen({}), others=("junk", "old"))},
            "other tables",
            "2 that the models do not place here: junk, old",
        ),
    ],
)
def test_what_may_become_a_fault_is_a_warning(facts: Any, subject: str, found: str) -> None:
    report = report_on(seen(**facts))

    (warning,) = report.warnings
    assert report.is_healthy
    assert warning.subject == subject
    assert found in warning.found
    assert warning.advice


def test_pools_without_a_bound_are_a_warning() -> None:
    report = report_on(FIT, dataclasses.replace(EXPECTED, pools={"s0": None}))

    assert [each.subject for each in report.warnings] == ["connections"]


def test_pools_of_shards_on_one_server_are_added_up() -> None:
    two = {"s0": seen(connections_max=29), "s1": seen(connections_max=29, oid=6)}

    report = judge(two, {"s0": "a", "s1": "b"}, EXPECTED)

    assert [(each.shard, each.found) for each in report.failures] == [
        (shard, "this process's pools may open 30 for s0 and s1, the server takes 29")
        for shard in ("s0", "s1")
    ]


@pytest.mark.parametrize(
    ("facts", "subject", "found"),
    [
        (
            {"text": {"encoding": "LATIN1", "collation": "C"}},
            "text",
            "encoding: UTF8 on s0, LATIN1 on s1",
        ),
        ({"text": {"encoding": "UTF8"}}, "text", "collation: C on s0, none on s1"),
        (
            {"settings": {"TimeZone": "Asia/Kolkata"}},
            "settings",
            "TimeZone: UTC on s0, Asia/Kolkata on s1",
        ),
        (
            {
                "tables": users(
                    ColumnSeen("bigint", is_nullable=False), rules=frozenset({"index x"})
                )
            },
            "tables alike",
            "users has no index x on s0",
        ),
        (
            {"tables": users(ColumnSeen("bigint", is_nullable=False, collation="C"))},
            "tables alike",
            "users.id is bigint NOT NULL on s0, bigint C NOT NULL on s1",
        ),
    ],
)
def test_shards_that_answer_differently_fail(facts: Any, subject: str, found: str) -> None:
    report = report_on_two(**facts)

    assert found in of_cluster(report, subject).found
    assert [each.subject for each in report.failures] == [subject]


@pytest.mark.parametrize(
    ("facts", "subject", "found"),
    [
        ({"version": 160001}, "versions", "PostgreSQL 15 on s0, PostgreSQL 16 on s1"),
        ({"seconds_ahead": -7200.0}, "clocks", "s1 is 2 h behind this machine"),
        ({"seconds_ahead": 5.0, "seconds_unsure": 3.0}, "clocks", "s1 is 5 s ahead of"),
        ({"library_version": "153.14"}, "collation versions", "none on s0, 153.14 on s1"),
    ],
)
def test_shards_that_may_come_to_differ_are_a_warning(facts: Any, subject: str, found: str) -> None:
    report = report_on_two(**facts)

    assert report.is_healthy
    assert found in of_cluster(report, subject).found
    assert [each.subject for each in report.warnings] == [subject]


def test_a_clock_is_not_blamed_for_an_answer_that_took_long() -> None:
    report = report_on_two(seconds_ahead=5.0, seconds_unsure=4.5)

    assert of_cluster(report, "clocks").status is Status.OK


def test_shards_that_are_alike_are_said_to_be() -> None:
    report = report_on_two()

    assert report.is_healthy
    assert [each.subject for each in report.findings if each.shard is None] == [
        "versions",
        "text",
        "settings",
        "clocks",
        "tables alike",
    ]
    assert not report.warnings


def test_tables_that_say_nothing_are_told() -> None:
    report = report_on(FIT, dataclasses.replace(EXPECTED, undeclared=("a", "b")))

    assert of_cluster(report, "declarations").found.startswith("2 of the models' tables")


def test_a_check_without_models_says_that_tables_were_not_looked_at() -> None:
    report = report_on(seen(tables=None), dataclasses.replace(EXPECTED, tables=None))

    assert report.is_healthy
    assert of_cluster(report, "tables").status is Status.SKIPPED


def test_a_transaction_that_is_just_being_committed_is_not_left_behind() -> None:
    assert report_on(seen(prepared=(Prepared(True, 0.1),))).is_healthy


def test_a_prepared_transaction_of_somebody_else_is_a_warning() -> None:
    report = report_on(seen(prepared=(Prepared(False, 90.0),)))

    warnings = [each for each in report.findings if each.status is Status.WARNING]
    assert report.is_healthy
    assert [each.found for each in warnings] == [
        "1 that this cluster did not prepare, the oldest for 2 min"
    ]


def test_a_shard_that_does_not_answer_is_a_finding_of_one_line() -> None:
    report = report_on(psycopg.OperationalError("connection failed:\n\tno route"))

    assert only_failure(report).subject == "reachable"
    assert (
        "***@db0/app cannot be looked at: connection failed: no route" in report.failures[0].found
    )
    assert report.findings[-1].status is Status.SKIPPED


def test_a_database_that_is_another_shard_is_reachable_with_a_wrong_identity() -> None:
    report = report_on(ConfigurationError("it is shard 's1'", "check the URL"))

    failure = only_failure(report)
    assert (failure.subject, failure.found, failure.advice) == (
        "identity",
        "it is shard 's1'",
        "check the URL",
    )


def test_two_shards_that_are_one_database_are_told_before_there_are_identities() -> None:
    bare = seen(identity=None)

    report = judge({"s0": bare, "s1": bare}, {"s0": "a", "s1": "b"}, EXPECTED)

    assert "it is the same database as shard 's0'" in [each.found for each in report.failures]


def test_as_a_dictionary_it_has_plain_values() -> None:
    report = report_on(seen(is_standby=True)).as_dict()

    assert (report["cluster"], report["is_healthy"]) == ("shop", False)
    assert report["findings"][1] == {
        "shard": "s0",
        "subject": "server",
        "status": "failed",
        "found": "PostgreSQL 15.4, but a standby, which takes no writes",
        "advice": "let the URL lead to the primary",
    }


def test_as_text_it_has_a_line_for_each_finding() -> None:
    lines = str(report_on(seen(is_standby=True))).splitlines()

    assert len(lines) == 10
    assert lines[1].startswith("s0: server: failed: PostgreSQL 15.4, but a standby")
