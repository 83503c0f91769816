"""Looks at every shard of a cluster for `Cluster.check`, at all of them at once.

Each shard is asked over a fresh connection beside its pool, in autocommit; nothing is changed. A
shard that does not answer by the deadline is an error among the facts, and stops no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import CompileError

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.schema import check_declared, tables_on
from sqlalchemy_shards.connections.fan_out import branch_for_each
from sqlalchemy_shards.models.distribution import distribution_of

from .judging import judge
from .looking import look_at
from .seen import ColumnExpected, Expectation, ShardFacts, TableExpected

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

    from sqlalchemy_shards.cluster.cluster import Cluster

    from .report import Report

CHECK_SECONDS: Final = 10.0
"""How long a check waits for the shards, all of them together."""


def check_cluster(
    cluster: Cluster, metadata: MetaData | None, deadline_seconds: float | None
) -> Report:
    """Look at all shards and judge what was seen; see `Cluster.check`."""
    cluster.check_open()
    tables, undeclared = _declared(cluster, metadata)
    expected = {table: _expected(cluster, table) for table in tables}

    def look(shard: str) -> ShardFacts:
        here = (
            None if metadata is None else [expected[t] for t in tables_on(cluster, shard, tables)]
        )
        with cluster.connect(shard) as driver:
            return look_at(driver, shard, here)

    outcomes = cluster.fan_out.run(
        branch_for_each(cluster.shards, look),
        deadline_seconds=deadline_seconds,
    )
    seen: dict[str, ShardFacts | Exception] = {}
    for outcome in outcomes:
        seen[outcome.shard] = outcome.result() if outcome.error is None else outcome.error
    expectation = Expectation(
        cluster.name,
        commits_atomically=cluster.multi_shard_writes == "atomic" and len(cluster.shards) > 1,
        pools={
            name: _compat.pool_bound(shard.engine.pool) for name, shard in cluster.shards.items()
        },
        tables=None if metadata is None else {each.name: each for each in expected.values()},
        undeclared=tuple(table.fullname for table in undeclared),
    )
    addresses = {name: shard.masked_url for name, shard in cluster.shards.items()}
    return judge(seen, addresses, expectation)


def _declared(cluster: Cluster, metadata: MetaData | None) -> tuple[list[Table], list[Table]]:
    """The tables whose place is known, and those that say nothing.

    :raises ConfigurationError: a table is declared in a way that cannot work.
    """
    tables = [] if metadata is None else list(metadata.tables.values())
    undeclared = [
        table
        for table in tables
        if cluster.undeclared == "refuse" and distribution_of(table) is None
    ]
    declared = [table for table in tables if table not in undeclared]
    check_declared(cluster, declared)
    return declared, undeclared


def _expected(cluster: Cluster, table: Table) -> TableExpected:
    columns = {
        column.name: ColumnExpected(_sql_of(cluster, column.type), bool(column.nullable))
        for column in table.columns
        if not column.system
    }
    return TableExpected(table.schema, table.name, columns)


def _sql_of(cluster: Cluster, type_: Any) -> str:
    """A column's type as CREATE TABLE would write it; unknown: empty, which no server knows."""
    try:
        return str(type_.compile(dialect=cluster.dialect))
    except CompileError:
        return ""
