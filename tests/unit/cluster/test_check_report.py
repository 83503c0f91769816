from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import psycopg
import pytest

from sqlalchemy_shards.catalog.identity import Identity
from sqlalchemy_shards.cluster.check import (
    Expectation,
    Finding,
    Prepared,
    Report,
    ShardFacts,
    Status,
    judge,
)
from sqlalchemy_shards.errors import ConfigurationError

FIT = ShardFacts(
    server_version=150004,
    is_standby=False,
    prepared_transactions_max=64,
    database=(datetime(2024, 1, 1, tzinfo=timezone.utc), 5),
    identity=Identity(UUID(int=1), "shop", UUID(int=2), "s0", 1),
    may_use_schema=True,
    prepared=(),
    missing_tables=(),
)
EXPECTED = Expectation("shop", commits_atomically=True, checks_tables=True)


def report_on(facts: ShardFacts | Exception, expectation: Expectation = EXPECTED) -> Report:
    return judge({"s0": facts}, {"s0": "postgresql+psycopg://app:***@db0/app"}, expectation)


def seen(**facts: Any) -> ShardFacts:
    return dataclasses.replace(FIT, **facts)


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
        "schema shards",
        "identity",
        "prepared transactions",
        "tables",
    ]


@pytest.mark.parametrize(
    ("facts", "subject", "found"),
    [
        ({"server_version": 120017}, "server", "PostgreSQL 12.17 is too old"),
        ({"is_standby": True}, "server", "a standby"),
        ({"prepared_transactions_max": 0}, "two-phase commit", "max_prepared_transactions is 0"),
        ({"identity": None, "may_use_schema": False}, "schema shards", "it is not there"),
        ({"may_use_schema": False}, "schema shards", "may not use it"),
        (
            {"prepared": (Prepared(True, 7200.0), Prepared(True, 61.0), Prepared(True, 1.0))},
            "prepared transactions",
            "2 left behind, the oldest for 2 h",
        ),
        ({"missing_tables": tuple("abcdefg")}, "tables", "7 missing: a, b, c, d, e and 2 more"),
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

    assert len(lines) == 7
    assert lines[1].startswith("s0: server: failed: PostgreSQL 15.4, but a standby")
