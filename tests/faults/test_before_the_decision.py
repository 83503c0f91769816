"""What fails before the decision is rolled back on every shard, and the error says what to do."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from sqlalchemy_shards import ShardedSession
from sqlalchemy_shards.errors import TransactionAborted
from sqlalchemy_shards.events import at
from sqlalchemy_shards.testing.databases import ScratchDatabase
from sqlalchemy_shards.testing.servers import PostgresServers
from sqlalchemy_shards.transactions import fail_points
from tests.databases import libpq_url
from tests.faults.arrows import break_at_commit, raise_all, raise_amounts
from tests.faults.models import Account, Base
from tests.faults.proxy import Fate
from tests.faults.world import SHARDS, START, cluster_of, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster
    from tests.faults.world import World

NOTHING = dict.fromkeys(SHARDS, START)
ALL = dict.fromkeys(SHARDS, START + 1)


@pytest.fixture
def cluster(world: World) -> Iterator[Cluster]:
    with cluster_of(world.urls) as cluster:
        yield cluster


@pytest.fixture
def session(cluster: Cluster) -> Iterator[ShardedSession]:
    with ShardedSession(cluster) as session:
        yield session


@pytest.mark.parametrize("shard", SHARDS)
def test_a_swallowed_error_of_a_shard_aborts_all(
    world: World, session: ShardedSession, shard: str
) -> None:
    raise_amounts(session)
    session.flush()
    driver = session.connection().connection.driver_connection.shard(shard)  # type: ignore[union-attr]
    with suppress(psycopg.errors.DivisionByZero):
        driver.execute("SELECT 1 / 0")

    with pytest.raises(TransactionAborted, match="swallowed") as caught:
        session.commit()

    assert caught.value.shard == shard
    assert not caught.value.is_retryable
    assert world.amounts() == NOTHING
    assert world.prepared() == {}


@pytest.mark.parametrize("shard", SHARDS)
def test_a_swallowed_error_of_a_statement_aborts_all(
    world: World, cluster: Cluster, shard: str
) -> None:
    with cluster.engine.connect() as connection:
        raised = update(Account).values(amount=Account.amount + 1)
        connection.execute(raised, execution_options={"shard": "*"})
        with suppress(DBAPIError):
            connection.execute(text("SELECT 1 / 0"), execution_options={"shard": shard})

        with pytest.raises(TransactionAborted):
            connection.commit()

    assert world.amounts() == NOTHING
    assert world.prepared() == {}


@pytest.mark.parametrize("shard", SHARDS)
def test_a_deferred_constraint_aborts_all_with_its_own_error(
    world: World, session: ShardedSession, shard: str
) -> None:
    raise_amounts(session)
    break_at_commit(session, shard)

    with pytest.raises(IntegrityError, match=f"shard: {shard}") as caught:
        session.commit()

    assert caught.value.orig.diag.constraint_name == "slot_number_key"  # type: ignore[union-attr]
    assert not caught.value.is_retryable  # type: ignore[attr-defined]
    assert world.amounts() == NOTHING
    assert world.prepared() == {}


def test_the_first_error_is_raised_also_where_a_rollback_fails_on_top(
    world: World, session: ShardedSession
) -> None:
    raise_amounts(session)
    break_at_commit(session, "s2")
    for nth in (1, 2):  # the second one comes over a new connection
        world.proxies["s1"].trap("^ROLLBACK PREPARED", Fate.CLOSE, nth=nth)

    with pytest.raises(IntegrityError):
        session.commit()

    session.rollback()
    left = world.prepared()
    session.cluster.recover()
    assert left == {"s1": 1}
    assert world.prepared() == {}
    assert world.amounts() == NOTHING
    assert session.scalar(select(Account.amount).where(Account.place == "s1")) == START


def test_a_rollback_that_fails_on_one_shard_is_one_on_the_others(
    world: World, session: ShardedSession
) -> None:
    raise_amounts(session)
    session.flush()
    world.proxies["s1"].trap("^ROLLBACK", Fate.CLOSE)

    session.rollback()

    world.wait_for_idle()
    assert world.amounts() == NOTHING
    raise_amounts(session)
    session.commit()
    assert world.amounts() == ALL


@pytest.mark.parametrize(("shards", "deciding"), [(["s1"], "s1"), (["s0"], "s0")])
def test_a_shard_that_cannot_be_prepared_decides(
    world: World, session: ShardedSession, shards: list[str], deciding: str
) -> None:
    raise_amounts(session)
    use_temporary_tables(session, shards)

    session.commit()

    assert world.amounts() == ALL
    assert world.ask(deciding, "SELECT outcome FROM shards.decisions") == [("commit",)]


def test_two_shards_that_cannot_be_prepared_abort_all(
    world: World, session: ShardedSession
) -> None:
    raise_amounts(session)
    use_temporary_tables(session, ["s0", "s2"])

    with pytest.raises(TransactionAborted, match="'s0', 's2' cannot be prepared") as caught:
        session.commit()

    assert not caught.value.is_retryable
    assert world.amounts() == NOTHING


def test_a_notification_that_nobody_announced_aborts_all(
    world: World, session: ShardedSession
) -> None:
    raise_amounts(session)
    session.execute(text("SELECT pg_notify('news', '')"), execution_options={"shard": "s1"}).all()

    with pytest.raises(TransactionAborted, match="cannot prepare") as caught:
        session.commit()

    assert caught.value.shard == "s1"
    assert world.amounts() == NOTHING
    assert world.prepared() == {}


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_server_that_prepares_no_more_is_named_with_the_setting(allowed: int) -> None:
    with ExitStack() as stack:
        settings = {"max_prepared_transactions": allowed}
        servers = stack.enter_context(PostgresServers(1, settings=settings))
        urls = {
            name: stack.enter_context(ScratchDatabase(servers.url(0), name)).url for name in SHARDS
        }
        cluster = stack.enter_context(cluster_of(urls))
        cluster.create_all(Base.metadata)
        if allowed:
            prepare_by_hand(urls["s0"], "of somebody else")
        session = stack.enter_context(ShardedSession(cluster))
        session.add_all(Account(place=name, amount=START) for name in SHARDS)

        with pytest.raises(TransactionAborted, match="max_prepared_transactions") as caught:
            session.commit()

        session.rollback()
        found = session.scalars(select(Account)).all()
        session.close()

    assert caught.value.shard in ("s1", "s2")
    assert caught.value.is_retryable == bool(allowed)
    assert found == []


def test_a_name_that_is_in_use_aborts_all_and_leaves_the_other_alone(
    world: World, session: ShardedSession
) -> None:
    raise_amounts(session)

    def take_the_name(_: str) -> None:
        listing = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        eventually(lambda: world.ask("s1", listing), "PREPARE on s1")
        [(gid,)] = world.ask("s1", listing)
        [(shard,)] = world.ask("s2", "SELECT shard_uuid FROM shards.identity")
        prepare_by_hand(world.direct["s2"], f"{gid.rpartition('/')[0]}/{shard.hex}")

    session.cluster.hooks.fail_points = {at(fail_points.BEFORE_PREPARE, "s2"): take_the_name}
    with pytest.raises(TransactionAborted, match="of the same name") as caught:
        session.commit()

    assert caught.value.is_retryable
    assert world.prepared() == {"s2": 1}
    assert world.amounts() == NOTHING


@pytest.mark.parametrize("shard", ["s0", "s1"])
def test_a_serialization_failure_is_retryable(world: World, cluster: Cluster, shard: str) -> None:
    engine = cluster.engine.execution_options(isolation_level="SERIALIZABLE")
    with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            run(connection, shard, "SELECT number FROM slot").all()
        for number, connection in enumerate((one, other)):
            for name in (shard, "s2"):
                run(connection, name, f"INSERT INTO slot VALUES ({number})")
        one.commit()
        with pytest.raises(OperationalError) as caught:
            other.commit()

    assert isinstance(caught.value.orig, psycopg.errors.SerializationFailure)
    assert caught.value.is_retryable  # type: ignore[attr-defined]
    assert world.prepared() == {}
    assert world.ask(shard, "SELECT number FROM slot") == [(0,)]
    assert world.ask("s2", "SELECT number FROM slot") == [(0,)]


def test_a_deadlock_within_a_shard_is_retryable(world: World, cluster: Cluster) -> None:
    world.ask("s1", "INSERT INTO slot VALUES (1), (2)")
    errors = []

    def lock(connection: Connection, number: int) -> None:
        try:
            run(connection, "s1", f"UPDATE slot SET number = number WHERE number = {number}")
        except DBAPIError as error:
            errors.append(error)
            connection.rollback()

    with cluster.engine.connect() as one, cluster.engine.connect() as other:
        for number, connection in enumerate((one, other), start=1):
            run(connection, "s1", "SET LOCAL deadlock_timeout = 10")
            lock(connection, number)
        thread = threading.Thread(target=lock, args=(one, 2))
        thread.start()
        lock(other, 1)
        thread.join()

    [error] = errors
    assert isinstance(error.orig, psycopg.errors.DeadlockDetected)
    assert error.is_retryable  # type: ignore[attr-defined]


def test_a_transaction_that_recovery_overtook_is_retryable(world: World, cluster: Cluster) -> None:
    def recover() -> Fate:
        eventually(lambda: len(world.prepared()) == 2, "PREPARE on s1 and s2")
        with cluster_of(world.direct) as another:
            another.recover()
        return Fate.PASS

    world.proxies["s0"].trap(r"INSERT INTO shards\.decisions", recover)
    with pytest.raises(TransactionAborted, match="recovery aborted") as caught:
        raise_all(cluster)

    assert caught.value.is_retryable
    assert world.amounts() == NOTHING
    raise_all(cluster)
    assert world.amounts() == ALL


def use_temporary_tables(session: ShardedSession, shards: list[str]) -> None:
    session.flush()
    for shard in shards:
        run(session.connection(), shard, "CREATE TEMP TABLE scratch (x int) ON COMMIT DROP")


def run(connection: Connection, shard: str, sql: str) -> Any:
    return connection.execute(text(sql), execution_options={"shard": shard})


def prepare_by_hand(url: str, gid: str) -> None:
    """Leave a prepared transaction that is none of ours."""
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE foreign_one ()")
        connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())
