"""`Cluster.check()` on real servers, fit and unfit."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text

from sqlalchemy_shards import Cluster, create_cluster, global_table, reference_table, shard_table
from sqlalchemy_shards.cluster.readiness.report import Finding, Report, Status
from sqlalchemy_shards.testing.servers import PostgresServers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def cluster_of(urls: Mapping[str, str], **arguments: object) -> Iterator[Cluster]:
    cluster = create_cluster(urls, name="shop", **arguments)  # type: ignore[arg-type]
    try:
        yield cluster
    finally:
        cluster.dispose()


def failures_of(report: Report, shard: str) -> list[tuple[str, str]]:
    return [(each.subject, each.found) for each in report.failures if each.shard == shard]


def finding(report: Report, shard: str, subject: str) -> Finding:
    (found,) = [e for e in report.findings if (e.shard, e.subject) == (shard, subject)]
    return found


def test_shards_that_were_set_up_are_healthy(clean_shards: dict[str, str]) -> None:
    with cluster_of(clean_shards) as cluster:
        cluster.bootstrap()

        report = cluster.check()

    assert report.is_healthy, str(report)
    assert {each.shard for each in report.findings} == {None, *clean_shards}
    statuses = {each.status for each in report.findings if each.subject != "tables"}
    assert statuses == {Status.OK}


def test_a_check_changes_nothing(clean_shards: dict[str, str]) -> None:
    with cluster_of(clean_shards) as cluster:
        first = cluster.check()
        second = cluster.check()

    assert first == second
    assert finding(second, "s0", "schema shards").found == "it is not there"


def test_a_stopped_shard_fails_and_the_others_are_still_looked_at(
    clean_shards: dict[str, str], servers: PostgresServers
) -> None:
    with cluster_of(clean_shards) as cluster:
        cluster.bootstrap()
        servers.stop(1)

        report = cluster.check()

    assert [each.shard for each in report.failures] == ["s1"]
    assert report.failures[0].subject == "reachable"
    assert finding(report, "s2", "identity").status is Status.OK


def test_a_shard_that_came_back_is_healthy_again(
    clean_shards: dict[str, str], servers: PostgresServers
) -> None:
    with cluster_of(clean_shards) as cluster:
        cluster.bootstrap()
        servers.stop(1)
        assert not cluster.check().is_healthy
        servers.start(1)

        report = cluster.check()

    assert report.is_healthy, str(report)


def test_a_server_that_never_answers_is_given_up_at_the_deadline(
    clean_shards: dict[str, str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        urls = clean_shards | {"s3": f"postgresql+psycopg://app:secret@127.0.0.1:{port}/app"}
        with cluster_of(urls) as cluster:
            report = cluster.check(deadline_seconds=1.0)

    assert "deadline" in dict(failures_of(report, "s3"))["reachable"]
    assert finding(report, "s0", "reachable").status is Status.OK
    assert "secret" not in str(report)


def test_swapped_urls_are_told_on_both_shards(clean_shards: dict[str, str]) -> None:
    with cluster_of(clean_shards) as cluster:
        cluster.bootstrap()
    swapped = clean_shards | {"s0": clean_shards["s1"], "s1": clean_shards["s0"]}
    with cluster_of(swapped) as cluster:
        report = cluster.check()

    assert [(each.shard, each.subject) for each in report.failures] == [
        ("s0", "identity"),
        ("s1", "identity"),
    ]
    assert "swapped" in report.failures[0].found


@pytest.mark.parametrize("is_set_up", [True, False])
def test_two_shards_that_are_one_database_are_told(
    clean_shards: dict[str, str], is_set_up: bool
) -> None:
    if is_set_up:
        with cluster_of({"s0": clean_shards["s0"]}) as cluster:
            cluster.bootstrap()
    # Another spelling of the same database.
    twice = {"s0": clean_shards["s0"], "s1": clean_shards["s0"] + "&application_name=again"}
    with cluster_of(twice) as cluster:
        report = cluster.check()

    assert "one database" in str(report) or "the same database as shard 's0'" in str(report)
    # Both are looked at together: the one that answers second is told.
    assert "identity" in {*dict(failures_of(report, "s0")), *dict(failures_of(report, "s1"))}


def test_databases_of_one_server_are_not_taken_for_one(one_server_urls: dict[str, str]) -> None:
    with cluster_of(one_server_urls) as cluster:
        cluster.bootstrap()

        report = cluster.check()

    assert report.is_healthy, str(report)


def test_servers_without_prepared_transactions_fail_unless_they_are_not_needed() -> None:
    with PostgresServers(1, settings={"max_prepared_transactions": 0}) as servers:
        with psycopg.connect(servers.url(0, driver="postgresql"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE other")
        urls = {"s0": servers.url(0), "s1": servers.url(0, "other")}
        with cluster_of(urls) as atomic, cluster_of(urls, multi_shard_writes="refuse") as single:
            atomic.bootstrap()

            needed, not_needed = atomic.check(), single.check()

    assert [each.subject for each in needed.failures] == ["two-phase commit"] * 2
    assert "restart" in str(needed.failures[0].advice)
    assert not_needed.is_healthy, str(not_needed)


def test_a_prepared_transaction_of_somebody_else_is_a_warning(clean_shards: dict[str, str]) -> None:
    with cluster_of(clean_shards) as cluster:
        cluster.bootstrap()
        url = clean_shards["s2"].replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id int)")
            connection.execute("BEGIN")
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("PREPARE TRANSACTION 'theirs'")

        report = cluster.check()

    warnings = [each for each in report.findings if each.status is Status.WARNING]
    assert report.is_healthy
    assert [(each.shard, each.subject) for each in warnings] == [("s2", "prepared transactions")]


class TestTables:
    @pytest.fixture
    def metadata(self) -> MetaData:
        metadata = MetaData()
        shard_table(
            Table("users", metadata, Column("id", Integer, primary_key=True, autoincrement=False))
        )
        reference_table(Table("countries", metadata, Column("code", Text, primary_key=True)))
        global_table(Table("flags", metadata, Column("id", Integer, primary_key=True)))
        return metadata

    def test_all_there_is_ok(self, clean_shards: dict[str, str], metadata: MetaData) -> None:
        with cluster_of(clean_shards) as cluster:
            cluster.create_all(metadata)

            report = cluster.check(metadata)

        assert report.is_healthy, str(report)
        assert finding(report, "s3", "tables").found == "all there"

    def test_a_table_that_is_missing_on_one_shard_is_named_there(
        self, clean_shards: dict[str, str], metadata: MetaData
    ) -> None:
        with cluster_of(clean_shards) as cluster:
            cluster.create_all(metadata)
            with cluster.connect("s2") as connection:
                connection.execute("DROP TABLE countries")

            report = cluster.check(metadata)

        assert [(each.shard, each.found) for each in report.failures] == [
            ("s2", "1 missing: countries")
        ]

    def test_a_global_table_is_only_asked_of_the_global_shard(
        self, clean_shards: dict[str, str], metadata: MetaData
    ) -> None:
        with cluster_of(clean_shards, global_shard="s1") as cluster:
            cluster.bootstrap()

            report = cluster.check(metadata)

        assert dict(failures_of(report, "s1"))["tables"] == "3 missing: users, countries, flags"
        assert dict(failures_of(report, "s0"))["tables"] == "2 missing: users, countries"
