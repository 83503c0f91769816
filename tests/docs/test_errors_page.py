"""The messages in docs/errors.md that no sample can provoke, because a server has to fail."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert

from sqlalchemy_shards import Timeouts, create_cluster, shard_table
from sqlalchemy_shards.errors import (
    ShardUnavailable,
    TransactionOutcomeUnknown,
    TransactionUnfinished,
)
from sqlalchemy_shards.transactions import fail_points
from tests.docs.samples import ROOT, check_text, read_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

DECIDING = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND state = 'idle in transaction'"
)
MESSAGES = {each.error_name: each for each in read_samples(ROOT / "docs" / "errors.md")}

accounts = shard_table(
    Table("accounts", MetaData(), Column("id", Integer, primary_key=True, autoincrement=False))
)


@pytest.fixture
def cluster(clean_shards: Mapping[str, str]) -> Iterator[Cluster]:
    timeouts = Timeouts(
        decision_seconds=0.3, settle_seconds=0.3, finish_seconds=0.3, rollback_seconds=0.3
    )
    cluster = create_cluster(clean_shards, name="shop", timeouts=timeouts)
    cluster.create_all(accounts.metadata)
    yield cluster
    cluster.dispose()


def write_on_every_shard(cluster: Cluster) -> None:
    with cluster.engine.begin() as connection:
        connection.execute(insert(accounts), [{"id": number} for number in range(40)])


def kill(servers: PostgresServers, number: int) -> Callable[[str], None]:
    return lambda fail_point: servers.kill(number)


def test_the_page_says_what_an_unfinished_transaction_says(
    cluster: Cluster, servers: PostgresServers
) -> None:
    cluster.hooks.fail_points = {fail_points.AFTER_DECISION: kill(servers, 3)}

    with pytest.warns(TransactionUnfinished) as warned:
        write_on_every_shard(cluster)

    check_text(MESSAGES["TransactionUnfinished"], f"TransactionUnfinished: {warned[0].message}")


def test_the_page_says_what_an_unknown_outcome_says(cluster: Cluster) -> None:
    stopped: list[int] = []

    def stop_the_deciding_process(_: str) -> None:
        with cluster.connect("s0") as connection:
            [(pid,)] = connection.execute(DECIDING).fetchall()
        stopped.append(pid)
        os.kill(pid, signal.SIGSTOP)

    cluster.hooks.fail_points = {fail_points.BEFORE_DECISION: stop_the_deciding_process}
    try:
        with pytest.raises(TransactionOutcomeUnknown) as raised:
            write_on_every_shard(cluster)
    finally:
        os.kill(stopped[0], signal.SIGCONT)

    check_text(MESSAGES["TransactionOutcomeUnknown"], f"TransactionOutcomeUnknown: {raised.value}")


def test_the_page_says_what_an_unavailable_shard_says(
    cluster: Cluster, servers: PostgresServers
) -> None:
    for shard in cluster.shards.values():
        shard.engine.dispose()
    servers.kill(2)

    with pytest.raises(ShardUnavailable) as raised:
        write_on_every_shard(cluster)

    check_text(MESSAGES["ShardUnavailable"], f"ShardUnavailable: {raised.value}")
