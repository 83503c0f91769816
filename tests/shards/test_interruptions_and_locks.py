"""What locks, interrupts and the garbage collector do to a transaction over several shards."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    func,
    insert,
    select,
    text,
    update,
)

from sqlalchemy_shards import (
    Cluster,
    ShardedSession,
    create_cluster,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.errors import (
    ConfigurationError,
    MissingShardKey,
    ScatterNotAllowed,
    TransactionAborted,
    UnsupportedStatement,
)
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg

METADATA = MetaData()
ITEMS = shard_table(
    Table(
        "items",
        METADATA,
        Column("k", Integer, primary_key=True, autoincrement=False),
        Column("rate", String),
    ),
    key="k",
)
RATES = reference_table(
    Table("rates", METADATA, Column("name", String, primary_key=True), Column("percent", Integer))
)


@pytest.fixture
def cluster(clean_shards: Mapping[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(clean_shards)
    cluster.create_all(METADATA)
    with cluster.engine.begin() as connection:
        connection.execute(insert(RATES), [{"name": "full", "percent": 20}])
        connection.execute(insert(ITEMS), [{"k": k, "rate": "full"} for k in range(8)])
    yield cluster
    cluster.dispose()


def _on(cluster: Cluster, shard: str) -> int:
    return next(k for k in range(8) if cluster.shard_for(ITEMS, k) == shard)


def test_two_transactions_that_lock_a_reference_row_meet_on_one_copy(cluster: Cluster) -> None:
    lock = select(RATES).with_for_update()
    got_it = threading.Event()

    def second() -> None:
        with cluster.engine.begin() as connection:
            connection.execute(select(ITEMS).where(ITEMS.c.k == _on(cluster, "s2")))
            connection.execute(lock)
            got_it.set()

    with cluster.engine.begin() as connection:
        connection.execute(select(ITEMS).where(ITEMS.c.k == _on(cluster, "s1")))
        connection.execute(lock)
        thread = threading.Thread(target=second)
        thread.start()
        eventually(lambda: _waiting_for_a_lock(cluster, "s0") == 1, "the second waits")
        held_by_both = got_it.is_set()
    thread.join(30)

    assert not held_by_both
    assert got_it.is_set()


def test_locking_a_reference_table_beside_a_sharded_one_is_refused(cluster: Cluster) -> None:
    joined = select(ITEMS, RATES).join(RATES, RATES.c.name == ITEMS.c.rate).where(ITEMS.c.k == 1)

    with cluster.engine.begin() as connection:
        with pytest.raises(UnsupportedStatement, match="one shard only"):
            connection.execute(joined.with_for_update())
        rows = connection.execute(joined.with_for_update(of=ITEMS)).all()

    assert len(rows) == 1


def test_an_interrupted_rollback_to_a_savepoint_cannot_be_committed(cluster: Cluster) -> None:
    with cluster.engine.connect() as connection:
        transaction = connection.begin()
        cluster_connection: Any = connection.connection.driver_connection
        for shard in ("s0", "s1"):
            key = _on(cluster, shard)
            connection.execute(update(ITEMS).where(ITEMS.c.k == key).values(rate="none"))
        cluster_connection.savepoint("sp")
        interrupted = _InterruptedAfterOne(cluster.fan_out)
        cluster.fan_out = interrupted  # type: ignore[assignment]
        try:
            with pytest.raises(KeyboardInterrupt):
                cluster_connection.rollback_to_savepoint("sp")
        finally:
            cluster.fan_out = interrupted.inner

        with pytest.raises(TransactionAborted):
            transaction.commit()

    with cluster.engine.connect() as connection:
        assert set(connection.scalars(select(ITEMS.c.rate))) == {"full"}


class _InterruptedAfterOne:
    """Runs the first branch, and is then interrupted as by Ctrl-C."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def run(self, branches: Any, **_: Any) -> Any:
        branches[0].work()
        raise KeyboardInterrupt


@pytest.mark.sync_only("SQLAlchemy warns of forgotten connections")
def test_a_forgotten_session_is_collected_in_a_fan_out_without_a_word(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    forgotten: Any = ShardedSession(cluster)
    forgotten.itself = forgotten
    forgotten.execute(text("select 1"), execution_options={"shard": "*"})
    gone = weakref.ref(forgotten)
    del forgotten

    outcomes = cluster.fan_out.run([Branch("s0", gc.collect), Branch("s1", lambda: 0)])

    assert gone() is None
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert caplog.text == ""
    with cluster.connect("s0") as connection:
        assert _idle_in_transaction(connection) == 0


def test_shard_connections_cannot_get_around_the_refusal_of_wide_writes(
    cluster: Cluster, clean_shards: Mapping[str, str]
) -> None:
    narrow = create_cluster(clean_shards, multi_shard_writes="refuse")
    try:
        with narrow.engine.connect() as connection:
            cluster_connection: Any = connection.connection.driver_connection
            cluster_connection.shard("s0").execute("update items set rate = 'x'")

            with pytest.raises(ScatterNotAllowed):
                cluster_connection.shard("s1")
    finally:
        narrow.dispose()


def test_a_pool_whose_connection_was_lost_at_commit_is_distrusted(cluster: Cluster) -> None:
    connections = [cluster.engine.connect() for _ in range(3)]
    keys = [_on(cluster, "s0"), _on(cluster, "s1")]
    for connection in connections:
        connection.execute(select(ITEMS).where(ITEMS.c.k == keys[0]))
    first = connections[0]
    for key in keys:
        first.execute(update(ITEMS).where(ITEMS.c.k == key).values(rate="y"))
    for connection in connections[1:]:
        connection.close()

    _end_all_sessions(cluster, "s0")
    with pytest.raises(TransactionAborted):
        first.commit()
    first.close()

    with cluster.engine.connect() as one, cluster.engine.connect() as other:
        for connection in (one, other):
            assert connection.execute(select(ITEMS).where(ITEMS.c.k == keys[0])).all()


def test_explain_refuses_options_that_it_does_not_know(cluster: Cluster) -> None:
    with pytest.raises(ConfigurationError, match="scater"):
        cluster.explain(select(ITEMS), scater="allow")


def _waiting_for_a_lock(cluster: Cluster, shard: str) -> int:
    with cluster.connect(shard) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            " and datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _idle_in_transaction(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "select count(*) from pg_stat_activity where state like 'idle in transaction%'"
        " and datname = current_database()"
    ).fetchone()
    assert row is not None
    return int(row[0])


def _end_all_sessions(cluster: Cluster, shard: str) -> None:
    with cluster.connect(shard) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )

        def gone() -> bool:
            row = connection.execute(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and backend_type = 'client backend'"
            ).fetchone()
            return row is not None and row[0] == 0

        eventually(gone, "all sessions are gone")


def test_a_batch_that_cannot_be_routed_takes_the_earlier_ones_with_it(cluster: Cluster) -> None:
    rows: list[dict[str, Any]] = [{"k": k, "rate": "full"} for k in range(100, 140)]
    rows[-1]["k"] = None
    batches = insert(ITEMS).returning(ITEMS.c.k)

    with cluster.engine.connect() as connection:
        transaction = connection.begin()
        with pytest.raises(MissingShardKey):
            connection.execute(batches, rows, execution_options={"insertmanyvalues_page_size": 10})
        with pytest.raises(TransactionAborted):
            transaction.commit()

    with cluster.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(ITEMS)) == 8
