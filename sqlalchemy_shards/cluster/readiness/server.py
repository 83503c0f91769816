"""Whether a shard's server is of a kind, and set up in a way, that the cluster can work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .report import Finding, Status, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .seen import Expectation, ServerSeen, ShardFacts

SERVER_VERSION_MIN: Final = 130000
"""The oldest PostgreSQL that is supported, as ``server_version_num``."""


def judge_server(
    shard: str, facts: ShardFacts, expectation: Expectation, neighbours: list[str]
) -> Iterator[Finding]:
    """Yield what is to be said of a shard's server.

    :param neighbours: all shards on the same server, this one included.
    """
    yield _version(shard, facts.server)
    connections = _connections(neighbours, expectation)
    yield _two_phase_commit(shard, facts.server, expectation, connections)
    yield _pools(shard, facts.server, neighbours, connections)
    yield _write_ahead_log(shard, facts.server)


def shown_version(number: int) -> str:
    """Return a ``server_version_num`` as people write it.

    >>> shown_version(150004)
    '15.4'
    """
    return f"{number // 10000}.{number % 10000}"


def _version(shard: str, server: ServerSeen) -> Finding:
    found = f"PostgreSQL {shown_version(server.version)}"
    advice = None
    if server.version < SERVER_VERSION_MIN:
        found += " is too old"
        advice = f"upgrade it to PostgreSQL {SERVER_VERSION_MIN // 10000} or later"
    elif server.is_standby:
        found += ", but a standby, which takes no writes"
        advice = "let the URL lead to the primary"
    elif server.is_read_only:
        found += ", but its transactions are read-only"
        advice = "set default_transaction_read_only to off, for the database or the role"
    return Finding(shard, "server", Status.FAILED if advice else Status.OK, found, advice)


def _connections(neighbours: list[str], expectation: Expectation) -> int | None:
    """Connections that this process may open on one server, None: without a bound."""
    pools = [expectation.pools.get(shard, 0) for shard in neighbours]
    bounded = [pool for pool in pools if pool is not None]
    return sum(bounded) if len(bounded) == len(pools) else None


def _two_phase_commit(
    shard: str, server: ServerSeen, expectation: Expectation, connections: int | None
) -> Finding:
    subject = "two-phase commit"
    most = server.prepared_transactions_max
    found = f"max_prepared_transactions is {most}"
    if not expectation.commits_atomically:
        if most == 0:
            found += ", which suffices: no transaction of this cluster writes on several shards"
        return Finding(shard, subject, Status.OK, found)
    if most == 0:
        return Finding(
            shard,
            subject,
            Status.FAILED,
            f"{found}: a transaction that writes on several shards cannot be committed",
            "set it to at least max_connections and restart the server, "
            'or create the cluster with multi_shard_writes = "refuse"',
        )
    if connections is not None and most < connections:
        return Finding(
            shard,
            subject,
            Status.WARNING,
            f"{found}, and this process alone may have {connections} transactions there",
            "set it to at least max_connections and restart the server",
        )
    return Finding(shard, subject, Status.OK, found)


def _pools(
    shard: str, server: ServerSeen, neighbours: list[str], connections: int | None
) -> Finding:
    subject, most = "connections", server.connections_max
    whose = "pools" if len(neighbours) > 1 else "pool"
    also = f" for {listed(neighbours)}" if len(neighbours) > 1 else ""
    if connections is None:
        found = f"this process's {whose} may open any number{also}, the server takes {most}"
        advice = "give the cluster a max_overflow"
        return Finding(shard, subject, Status.WARNING, found, advice)
    if connections > most:
        return Finding(
            shard,
            subject,
            Status.FAILED,
            f"this process's {whose} may open {connections}{also}, the server takes {most}",
            "lower pool_size and max_overflow, or raise max_connections (or the limit of the "
            "database or role) and restart the server",
        )
    found = f"up to {connections} of {most}{also} by this process"
    if connections:
        found += f"; there is room for {most // connections} like it"
    return Finding(shard, subject, Status.OK, found)


def _write_ahead_log(shard: str, server: ServerSeen) -> Finding:
    subject, found = "write-ahead log", f"wal_level is {server.wal_level}"
    if server.wal_level == "logical":
        return Finding(shard, subject, Status.OK, found)
    return Finding(
        shard,
        subject,
        Status.WARNING,
        f"{found}: no data can be moved away from this shard while the application runs",
        "set it to logical and restart the server, before you need it",
    )
