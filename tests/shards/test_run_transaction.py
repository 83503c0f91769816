"""Transactions that are run again where that is safe, and only there."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, Integer, event, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from sqlalchemy_shards import (
    Cluster,
    ShardedSession,
    ShardKeyMixin,
    Timeouts,
    create_cluster,
    run_transaction,
)
from sqlalchemy_shards.errors import (
    ConfigurationError,
    TransactionOutcomeUnknown,
    TransactionUnfinished,
)
from sqlalchemy_shards.transactions import fail_points
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards.testing.servers import PostgresServers


class Base(DeclarativeBase):
    pass


class Account(ShardKeyMixin, Base):
    __tablename__ = "accounts"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    amount: Mapped[int] = mapped_column(Integer)


@pytest.fixture
def cluster(clean_shards: Mapping[str, str]) -> Iterator[Cluster]:
    timeouts = Timeouts(
        lock_timeout=0.5, decision_seconds=0.5, settle_seconds=0.3, finish_seconds=0.3
    )
    cluster = create_cluster(clean_shards, name="shop", timeouts=timeouts)
    cluster.create_all(Base.metadata)
    with sessions(cluster).begin() as session:
        session.add_all(Account(id=key_on(cluster, s), amount=100) for s in cluster.shards)
    yield cluster
    cluster.hooks.fail_points = None
    cluster.dispose()


def sessions(cluster: Cluster, **options: Any) -> sessionmaker[ShardedSession]:
    return sessionmaker(class_=ShardedSession, cluster=cluster, **options)


def key_on(cluster: Cluster, shard: str) -> int:
    return next(key for key in range(1000) if cluster.shard_for(Account, key) == shard)


def amounts(cluster: Cluster) -> list[int]:
    found: list[int] = []
    for shard in cluster.shards:
        with cluster.connect(shard) as connection:
            found += [n for (n,) in connection.execute("SELECT amount FROM accounts").fetchall()]
    return sorted(found)


class Work:
    """Adds 1 to the accounts of some shards; counts how often it is run."""

    def __init__(self, cluster: Cluster, *shards: str) -> None:
        self.keys = [key_on(cluster, shard) for shard in shards]
        self.runs = 0
        self.sessions: list[Session] = []
        self.before: Callable[[Session, int], None] = lambda session, run: None

    def __call__(self, session: Session) -> str:
        self.runs += 1
        self.sessions.append(session)
        for key in self.keys:
            session.get_one(Account, key)
        self.before(session, self.runs)
        for key in self.keys:
            session.get_one(Account, key).amount += 1
        return f"run {self.runs}"


def kill_session(session: Session, cluster: Cluster, shard: str) -> None:
    driver: Any = session.connection().connection.driver_connection
    pid = driver.shard(shard).info.backend_pid
    with cluster.connect(shard) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        eventually(
            lambda: (
                not connection.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)
                ).fetchone()
            ),
            "the end of the session",
        )


def let_nobody_answer(cluster: Cluster, work: Work) -> None:
    """Stop the server process of `s0` before COMMIT reaches it: nobody knows what it will do."""
    pids: list[int] = []

    def note_process(session: Session, run: int) -> None:
        driver: Any = session.connection().connection.driver_connection
        pids.append(driver.shard("s0").info.backend_pid)

    def stop(_: str) -> None:
        cluster.hooks.fail_points = None
        os.kill(pids[-1], signal.SIGSTOP)

    work.before = note_process
    cluster.hooks.fail_points = {fail_points.BEFORE_DECISION: stop}


class TestRunAgain:
    def test_what_goes_well_is_run_once_and_its_value_returned(self, cluster: Cluster) -> None:
        work = Work(cluster, "s0", "s1")

        value = run_transaction(sessions(cluster), work)

        assert value == "run 1"
        assert amounts(cluster) == [100, 100, 101, 101]

    @pytest.mark.parametrize("shards", [["s1"], ["s0", "s1"]], ids=["one", "two"])
    def test_a_serialization_failure(self, cluster: Cluster, shards: list[str]) -> None:
        engine = cluster.engine.execution_options(isolation_level="REPEATABLE READ")
        factory = sessionmaker(engine, class_=ShardedSession, cluster=cluster)
        work = Work(cluster, *shards)

        def another_writes(session: Session, run: int) -> None:
            if run == 1:
                with cluster.engine.begin() as other:
                    other.execute(
                        update(Account).where(Account.id == work.keys[-1]).values(amount=7)
                    )

        work.before = another_writes
        value = run_transaction(factory, work)

        assert value == "run 2"
        assert 8 in amounts(cluster)

    def test_a_deadlock_over_two_shards(self, cluster: Cluster) -> None:
        first, second = Work(cluster, "s1", "s2"), Work(cluster, "s2", "s1")
        both_hold_one = threading.Barrier(2)

        def transfer(work: Work) -> Callable[[Session], str]:
            def locking(session: Session) -> str:
                session.get_one(Account, work.keys[0], with_for_update=True)
                if work.runs == 0:
                    both_hold_one.wait(30)
                return work(session)

            return locking

        values: list[str] = []
        threads = [
            threading.Thread(
                target=lambda work=work: values.append(
                    run_transaction(sessions(cluster), transfer(work), retries=20)
                )
            )
            for work in (first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert len(values) == 2
        assert amounts(cluster) == [100, 100, 102, 102]

    def test_a_connection_that_is_lost_before_the_commit(self, cluster: Cluster) -> None:
        work = Work(cluster, "s0", "s1")
        work.before = lambda session, run: run == 1 and kill_session(session, cluster, "s1")

        value = run_transaction(sessions(cluster), work)

        assert value == "run 2"
        assert amounts(cluster) == [100, 100, 101, 101]

    def test_a_shard_that_is_starting(self, cluster: Cluster, servers: PostgresServers) -> None:
        work = Work(cluster, "s0", "s1")
        servers.stop(1)
        thread = threading.Thread(target=servers.start, args=(1,))

        def factory() -> ShardedSession:
            if failed and not thread.ident:
                thread.start()
                thread.join()
            failed.append(True)
            return ShardedSession(cluster)

        failed: list[bool] = []
        value = run_transaction(factory, work)

        assert value == "run 2"

    def test_a_distributed_transaction_that_was_aborted(
        self, cluster: Cluster, servers: PostgresServers
    ) -> None:
        work = Work(cluster, "s0", "s1", "s2")

        def break_once(_: str) -> None:
            cluster.hooks.fail_points = None
            with cluster.connect("s1") as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE state = 'idle in transaction' AND datname = current_database()"
                )

        cluster.hooks.fail_points = {fail_points.AFTER_ROUND_0: break_once}
        value = run_transaction(sessions(cluster), work)

        assert value == "run 2"
        assert amounts(cluster) == [100, 101, 101, 101]

    def test_each_attempt_has_a_session_of_its_own_which_is_closed(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")
        work.before = lambda session, run: run < 3 and kill_session(session, cluster, "s1")

        run_transaction(sessions(cluster), work)

        assert len({id(session) for session in work.sessions}) == 3
        assert not any(session.in_transaction() for session in work.sessions)

    def test_a_plain_session_of_the_clusters_engine(self, cluster: Cluster) -> None:
        work = Work(cluster, "s0", "s1")
        work.before = lambda session, run: run == 1 and kill_session(session, cluster, "s1")

        assert run_transaction(sessionmaker(cluster.engine), work) == "run 2"


class TestNotRunAgain:
    def test_an_error_of_the_function(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")

        def refuse(session: Session, run: int) -> None:
            raise ValueError("no money")

        work.before = refuse
        with pytest.raises(ValueError, match="no money"):
            run_transaction(sessions(cluster), work)

        assert work.runs == 1
        assert amounts(cluster) == [100] * 4

    def test_what_the_function_has_committed_itself(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")

        def commit_and_break(session: Session, run: int) -> None:
            session.get_one(Account, work.keys[0]).amount += 10
            session.commit()
            session.get_one(Account, work.keys[0])
            kill_session(session, cluster, "s1")

        work.before = commit_and_break
        with pytest.raises(OperationalError):
            run_transaction(sessions(cluster), work)

        assert work.runs == 1
        assert amounts(cluster) == [100, 100, 100, 110]

    def test_a_released_savepoint_is_no_commit(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")

        def nest_and_break(session: Session, run: int) -> None:
            if run == 1:
                with session.begin_nested():
                    session.get_one(Account, work.keys[0]).amount += 10
                kill_session(session, cluster, "s1")

        work.before = nest_and_break

        assert run_transaction(sessions(cluster), work) == "run 2"
        assert amounts(cluster) == [100, 100, 100, 101]

    def test_a_connection_that_is_lost_in_the_commit_of_one_shard(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")
        factory = sessions(cluster)

        def break_at_commit(session: Session) -> str:
            value = work(session)
            session.flush()
            kill_session(session, cluster, "s1")
            return value

        with pytest.raises(OperationalError):
            run_transaction(factory, break_at_commit)

        assert work.runs == 1

    def test_what_runs_within_an_outer_transaction(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")
        work.before = lambda session, run: kill_session(session, cluster, "s1")
        with cluster.engine.connect() as connection:
            outer = connection.begin()
            factory = sessionmaker(connection, class_=ShardedSession)
            with pytest.raises(OperationalError):
                run_transaction(factory, work)
            outer.rollback()

        assert work.runs == 1

    def test_an_interrupt(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")

        def interrupt(session: Session, run: int) -> None:
            raise KeyboardInterrupt

        work.before = interrupt
        with pytest.raises(KeyboardInterrupt):
            run_transaction(sessions(cluster), work)

        assert work.runs == 1


class TestBounds:
    def test_the_last_error_is_raised_when_the_attempts_are_used_up(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")
        work.before = lambda session, run: kill_session(session, cluster, "s1")

        with pytest.raises(OperationalError, match="s1"):
            run_transaction(sessions(cluster), work, retries=2)

        assert work.runs == 3

    def test_it_is_not_begun_again_after_the_time(self, cluster: Cluster) -> None:
        work = Work(cluster, "s1")
        work.before = lambda session, run: kill_session(session, cluster, "s1")

        with pytest.raises(OperationalError):
            run_transaction(sessions(cluster), work, retries=1000, seconds=0.2)

        assert work.runs < 50

    @pytest.mark.parametrize("wrong", [{"retries": -1}, {"retries": True}, {"seconds": 0}], ids=str)
    def test_what_is_no_bound_is_told(self, cluster: Cluster, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            run_transaction(sessions(cluster), lambda session: None, **wrong)

    def test_what_makes_no_sessions_is_told(self, cluster: Cluster) -> None:
        with sessions(cluster)() as session:
            for wrong in (cluster, session):
                with pytest.raises(ConfigurationError, match="give it a sessionmaker"):
                    run_transaction(wrong, lambda session: None)  # type: ignore[arg-type]


class TestAfterTheDecision:
    def test_what_is_committed_but_unfinished_is_not_run_again(
        self, cluster: Cluster, servers: PostgresServers
    ) -> None:
        work = Work(cluster, "s0", "s1")
        cluster.hooks.fail_points = {fail_points.AFTER_DECISION: lambda _: servers.kill(1)}

        with pytest.warns(TransactionUnfinished):
            value = run_transaction(sessions(cluster), work)
        servers.start(1)

        assert (value, work.runs) == ("run 1", 1)
        cluster.hooks.fail_points = None
        cluster.recover()
        assert amounts(cluster) == [100, 100, 101, 101]

    def test_with_on_unfinished_raise_the_error_comes_and_it_is_not_run_again(
        self, clean_shards: Mapping[str, str], cluster: Cluster, servers: PostgresServers
    ) -> None:
        raising = create_cluster(
            clean_shards, name="shop", on_unfinished="raise", timeouts=cluster.timeouts
        )
        work = Work(cluster, "s0", "s1")
        raising.hooks.fail_points = {fail_points.AFTER_DECISION: lambda _: servers.kill(1)}

        with pytest.raises(TransactionUnfinished):
            run_transaction(sessions(raising), work)
        servers.start(1)
        cluster.recover()
        raising.dispose()

        assert work.runs == 1
        assert amounts(cluster) == [100, 100, 101, 101]

    def test_an_unknown_outcome_that_is_aborted_is_run_again(
        self, cluster: Cluster, servers: PostgresServers
    ) -> None:
        work = Work(cluster, "s0", "s1")

        def crash() -> None:
            servers.kill(0)
            servers.start(0)

        starting = threading.Thread(target=crash)

        def start(session: Session, transaction: Any) -> None:
            if not starting.ident and cluster.hooks.fail_points is None:
                starting.start()

        factory = sessions(cluster)

        def listening() -> ShardedSession:
            session = factory()
            event.listen(session, "after_transaction_end", start)
            return session

        let_nobody_answer(cluster, work)
        value = run_transaction(listening, work)
        starting.join()

        assert value == "run 2"
        assert amounts(cluster) == [100, 100, 101, 101]

    def test_an_unknown_outcome_that_is_committed_is_the_result(self, cluster: Cluster) -> None:
        work = Work(cluster, "s0", "s1")
        stopped: list[int] = []
        raised = threading.Event()

        def note_process(session: Session, run: int) -> None:
            driver: Any = session.connection().connection.driver_connection
            stopped.append(driver.shard("s0").info.backend_pid)

        def stop(_: str) -> None:
            os.kill(stopped[0], signal.SIGSTOP)

        def go_on(_: str) -> None:
            if raised.is_set():
                os.kill(stopped[0], signal.SIGCONT)

        work.before = note_process
        factory = sessions(cluster)

        def listening() -> ShardedSession:
            session = factory()
            event.listen(session, "after_transaction_end", lambda *_: raised.set())
            return session

        cluster.hooks.fail_points = {
            fail_points.BEFORE_DECISION: stop,
            fail_points.BEFORE_ABORT_ROW: go_on,
        }
        try:
            value = run_transaction(listening, work)
        finally:
            with suppress(ProcessLookupError):
                os.kill(stopped[0], signal.SIGCONT)

        assert raised.is_set()
        assert (value, work.runs) == ("run 1", 1)
        assert amounts(cluster) == [100, 100, 101, 101]

    def test_aborted_is_not_believed_when_the_machine_slept_longer_than_decisions_are_kept(
        self, cluster: Cluster, servers: PostgresServers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work = Work(cluster, "s0", "s1")
        now = time.time

        def wake_up(*_: object) -> None:
            if cluster.hooks.fail_points is None and time.time is now:
                monkeypatch.setattr(time, "time", lambda: now() + 900.0)
                servers.kill(0)
                servers.start(0)

        factory = sessions(cluster)

        def listening() -> ShardedSession:
            session = factory()
            event.listen(session, "after_transaction_end", wake_up)
            return session

        let_nobody_answer(cluster, work)
        with pytest.raises(TransactionOutcomeUnknown) as caught:
            run_transaction(listening, work, seconds=60)

        assert cluster.outcome(str(caught.value.gid)) == "aborted"
        assert work.runs == 1

    def test_an_outcome_that_stays_unknown_is_raised(
        self, cluster: Cluster, servers: PostgresServers
    ) -> None:
        work = Work(cluster, "s0", "s1")
        let_nobody_answer(cluster, work)

        with pytest.raises(TransactionOutcomeUnknown) as caught:
            run_transaction(sessions(cluster), work, seconds=1)
        servers.kill(0)  # the process that stands still, too

        assert work.runs == 1
        assert caught.value.gid is not None
