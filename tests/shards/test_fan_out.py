"""The fan-out on real servers: side by side, interrupted, misused."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.util.concurrency import greenlet_spawn

from sqlalchemy_shards.connections.engines import create_shard_engine, instrument_engine
from sqlalchemy_shards.connections.fan_out import AdaptiveFanOut, Branch, SequentialFanOut
from sqlalchemy_shards.connections.fan_out import DeadlineExceeded as Late
from sqlalchemy_shards.connections.hub import GreenletFanOut, ShardConnection, acquire_lock
from sqlalchemy_shards.connections.shard import Shard
from sqlalchemy_shards.errors import ShardUnavailable
from tests.databases import libpq_url
from tests.shards.watching import (
    FOREVER,
    LIMIT_SECONDS,
    SHORT,
    Watcher,
    press_ctrl_c,
    usable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

name_of_request: ContextVar[str] = ContextVar("name_of_request", default="none")


@pytest.fixture
def shards(urls: dict[str, str]) -> Iterator[dict[str, Shard]]:
    made = {name: Shard(name, create_shard_engine(name, url)) for name, url in urls.items()}
    yield made
    for shard in made.values():
        shard.engine.dispose()


def statement(name: str, connection: ShardConnection, sql: str) -> Branch[list[Any]]:
    return Branch(name, lambda: connection.execute(sql).fetchall(), lambda: connection)


def scatter(connections: dict[str, ShardConnection], sql: str) -> list[Branch[list[Any]]]:
    return [statement(name, connection, sql) for name, connection in connections.items()]


def pipelines(connections: dict[str, ShardConnection], sql: str) -> list[Branch[None]]:
    """Run a statement fifty times on each connection, as a batch of the unit of work runs."""

    def work(connection: ShardConnection) -> None:
        connection.cursor().executemany(sql, [()] * 50)

    return [Branch(n, lambda c=c: work(c), lambda c=c: c) for n, c in connections.items()]  # type: ignore[misc]


def test_branches_run_side_by_side_and_their_outcomes_keep_their_order(
    connections: dict[str, ShardConnection],
) -> None:
    delays = dict(zip(connections, (0.4, 0.1, 0.3, 0.2), strict=True))
    branches = [
        statement(
            name, connection, f"SELECT current_database()::text FROM pg_sleep({delays[name]})"
        )
        for name, connection in connections.items()
    ]

    began = time.monotonic()
    outcomes = GreenletFanOut().run(branches)

    assert [outcome.result() for outcome in outcomes] == [[(name,)] for name in connections]
    assert time.monotonic() - began < sum(delays.values())


def test_an_error_in_one_branch_leaves_the_others_to_their_end(
    connections: dict[str, ShardConnection],
) -> None:
    branches = scatter(connections, "SELECT 1 FROM pg_sleep(0.05)")
    branches[1] = statement("s1", connections["s1"], "SELECT 1/0")

    outcomes = GreenletFanOut().run(branches)

    assert isinstance(outcomes[1].error, psycopg.errors.DivisionByZero)
    assert [outcome.value for outcome in outcomes] == [[(1,)], None, [(1,)], [(1,)]]


def test_no_more_than_width_branches_run_at_once(urls: dict[str, str]) -> None:
    running, most = 0, 0

    def work() -> list[Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        with ShardConnection.connect(libpq_url(urls["s0"])) as connection:
            rows = connection.execute("SELECT 1").fetchall()
        running -= 1
        return rows

    outcomes = GreenletFanOut(width=8).run([Branch(f"n{i}", work) for i in range(64)])

    assert [outcome.result() for outcome in outcomes] == [[(1,)]] * 64
    assert most == 8


def test_many_rows_over_many_round_trips_arrive_whole(
    connections: dict[str, ShardConnection],
) -> None:
    sql = "SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) AS i"

    outcomes = GreenletFanOut().run(scatter(connections, sql))

    assert [len(outcome.result()) for outcome in outcomes] == [5000] * 4
    assert all(outcome.result()[-1][0] == 5000 for outcome in outcomes)


def test_copy_in_and_out_run_side_by_side(connections: dict[str, ShardConnection]) -> None:
    def copy(connection: ShardConnection) -> int:
        cursor = connection.cursor()
        cursor.execute("CREATE TEMPORARY TABLE copied (i int, t text)")
        with cursor.copy("COPY copied FROM STDIN") as rows:
            for i in range(3000):
                rows.write_row((i, "x" * 500))
        with cursor.copy("COPY copied TO STDOUT") as rows:
            return sum(1 for _ in rows.rows())

    branches = [Branch(n, lambda c=c: copy(c)) for n, c in connections.items()]  # type: ignore[misc]

    assert [outcome.result() for outcome in GreenletFanOut().run(branches)] == [3000] * 4


def test_context_variables_are_seen_in_branches_and_do_not_leak_out(
    connections: dict[str, ShardConnection],
) -> None:
    def work(name: str) -> str:
        inherited = name_of_request.get()
        name_of_request.set(name)
        connections[name].execute("SELECT pg_sleep(0.01)")
        return f"{inherited} {name_of_request.get()}"

    token = name_of_request.set("outside")
    outcomes = GreenletFanOut().run([Branch(n, lambda n=n: work(n)) for n in connections])  # type: ignore[misc]
    after = name_of_request.get()
    name_of_request.reset(token)

    assert [outcome.result() for outcome in outcomes] == [f"outside {n}" for n in connections]
    assert after == "outside"


def test_threads_run_fan_outs_of_their_own(urls: dict[str, str]) -> None:
    fan_out = GreenletFanOut()
    results: dict[int, list[Any]] = {}

    def work(number: int) -> None:
        with ExitStack() as stack:
            mine = {
                name: stack.enter_context(ShardConnection.connect(libpq_url(url)))
                for name, url in urls.items()
            }
            results[number] = [
                outcome.result()
                for _ in range(20)
                for outcome in fan_out.run(scatter(mine, f"SELECT {number} FROM pg_sleep(0.001)"))
            ]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {number: [[(number,)]] * 80 for number in range(4)}


@pytest.mark.sync_only("it has an event loop of its own")
def test_runs_under_the_asyncio_bridge_of_sqlalchemy(
    connections: dict[str, ShardConnection],
) -> None:
    branches = scatter(connections, "SELECT 1 FROM pg_sleep(0.01)")

    outcomes = asyncio.run(greenlet_spawn(GreenletFanOut().run, branches))

    assert [outcome.result() for outcome in outcomes] == [[(1,)]] * 4


def test_notifications_are_waited_for_no_longer_than_asked(
    connections: dict[str, ShardConnection],
) -> None:
    def listen(connection: ShardConnection) -> list[Any]:
        return list(connection.notifies(timeout=0.2))

    branches = [Branch(n, lambda c=c: listen(c)) for n, c in connections.items()]  # type: ignore[misc]

    assert [outcome.result() for outcome in GreenletFanOut().run(branches)] == [[]] * 4


def test_a_fan_out_within_a_branch_is_refused(connections: dict[str, ShardConnection]) -> None:
    fan_out = GreenletFanOut()
    inner = scatter(connections, "SELECT 1")

    outcomes = fan_out.run([Branch("s0", lambda: fan_out.run(inner)), Branch("s1", list)])

    with pytest.raises(psycopg.ProgrammingError, match="within a branch"):
        outcomes[0].result()


@pytest.mark.parametrize("use", ["execute", "stream", "close"])
def test_a_connection_in_use_by_another_branch_raises_instead_of_waiting(
    use: str, connections: dict[str, ShardConnection]
) -> None:
    shared, other = connections["s0"], connections["s1"]

    def hold() -> None:
        if use == "stream":  # holds psycopg's lock while the branch waits for something else
            for _ in shared.cursor().stream("SELECT generate_series(1, 3)"):
                other.execute(SHORT)
                break
        else:
            shared.execute(SHORT)

    def intrude() -> object:
        return shared.close() if use == "close" else shared.execute("SELECT 1")

    held, intruded = GreenletFanOut().run([Branch("s0", hold), Branch("s1", intrude)])

    assert held.error is None
    with pytest.raises(psycopg.ProgrammingError, match="in use by"):
        intruded.result()
    assert usable(shared)


def test_another_thread_waits_for_a_connection_as_ever(
    connections: dict[str, ShardConnection], watcher: Watcher
) -> None:
    rows: list[Any] = []
    shared = connections["s0"]

    def use(_pids: list[int]) -> None:
        rows.extend(shared.execute("SELECT 7").fetchall())

    watcher_of_short = threading.Thread(target=lambda: use(watcher.wait_until_active(2, SHORT)))
    watcher_of_short.start()
    GreenletFanOut().run(scatter({name: connections[name] for name in ("s0", "s1")}, SHORT))
    watcher_of_short.join()

    assert rows == [(7,)]


@pytest.mark.parametrize("count", [1, 4])
def test_at_the_deadline_statements_are_cancelled_on_the_servers(
    count: int, connections: dict[str, ShardConnection], watcher: Watcher
) -> None:
    branches = scatter(connections, FOREVER)[:count]

    outcomes = GreenletFanOut().run(branches, deadline_seconds=0.3)

    assert watcher.active() == []
    for outcome in outcomes:
        with pytest.raises(Late, match=rf"deadline of 0.3 s passed on shard '{outcome.shard}'"):
            outcome.result()
    assert all(usable(connection) for connection in connections.values())


def test_the_deadline_keeps_the_outcomes_of_branches_that_ended_before(
    connections: dict[str, ShardConnection],
) -> None:
    branches = scatter(connections, "SELECT 1")
    branches[2] = statement("s2", connections["s2"], FOREVER)

    outcomes = GreenletFanOut().run(branches, deadline_seconds=0.3)

    assert [outcome.value for outcome in outcomes] == [[(1,)], [(1,)], None, [(1,)]]
    assert isinstance(outcomes[2].error, Late)


def test_branches_in_the_queue_at_the_deadline_are_not_begun(
    connections: dict[str, ShardConnection],
) -> None:
    outcomes = GreenletFanOut(width=2).run(scatter(connections, FOREVER), deadline_seconds=0.3)

    assert all(isinstance(outcome.error, Late) for outcome in outcomes)
    assert "nothing more was begun" in str(outcomes[3].error)
    assert connections["s3"].info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_branch_may_roll_back_after_the_deadline(
    connections: dict[str, ShardConnection],
) -> None:
    def work(connection: ShardConnection) -> None:
        with connection.transaction():
            connection.execute(FOREVER)

    branches = [Branch(n, lambda c=c: work(c)) for n, c in connections.items()]  # type: ignore[misc]

    outcomes = GreenletFanOut().run(branches, deadline_seconds=0.3)

    idle = psycopg.pq.TransactionStatus.IDLE
    assert all(isinstance(outcome.error, Late) for outcome in outcomes)
    assert [c.info.transaction_status for c in connections.values()] == [idle] * 4


def test_a_server_that_does_not_answer_the_cancel_loses_its_connection(
    connections: dict[str, ShardConnection], watcher: Watcher
) -> None:
    frozen = connections["s1"]
    pid = frozen.info.backend_pid

    with watcher.ending([pid]), watcher.once_active(4, lambda _: os.kill(pid, signal.SIGSTOP)):
        outcomes = GreenletFanOut(drain_seconds=0.5).run(
            scatter(connections, FOREVER), deadline_seconds=1.5
        )

    assert "its connection was closed" in str(outcomes[1].error)
    assert {name for name, connection in connections.items() if connection.closed} == {"s1"}


def test_ctrl_c_cancels_every_statement_and_leaves_usable_connections(
    connections: dict[str, ShardConnection], watcher: Watcher
) -> None:
    with watcher.once_active(4, press_ctrl_c), pytest.raises(KeyboardInterrupt):
        GreenletFanOut().run(scatter(connections, FOREVER))

    assert watcher.active() == []
    assert all(usable(connection) for connection in connections.values())


def test_ctrl_c_unwinds_branches_through_their_own_clean_up(
    connections: dict[str, ShardConnection], watcher: Watcher
) -> None:
    def work(connection: ShardConnection) -> None:
        with connection.transaction():
            connection.execute(FOREVER)

    branches = [Branch(n, lambda c=c: work(c)) for n, c in connections.items()]  # type: ignore[misc]
    with watcher.once_active(4, press_ctrl_c), pytest.raises(KeyboardInterrupt):
        GreenletFanOut().run(branches)

    idle = psycopg.pq.TransactionStatus.IDLE
    assert [c.info.transaction_status for c in connections.values()] == [idle] * 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("branches_of", "apart"), [(scatter, 37), (pipelines, 150)])
def test_ctrl_c_at_any_moment_leaves_every_connection_usable_or_closed(
    branches_of: Callable[[dict[str, ShardConnection], str], list[Branch[Any]]],
    apart: int,
    connections: dict[str, ShardConnection],
    urls: dict[str, str],
    watcher: Watcher,
) -> None:
    sql = "SELECT 1 FROM generate_series(1, 3)"
    # Not the real-time timer, which the test runner uses itself.
    previous = signal.signal(signal.SIGPROF, signal.default_int_handler)

    try:
        for microseconds in range(200, 3200, apart):
            # Python drops an exception that a signal raises in a finalizer: hence the bound.
            with suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_PROF, microseconds / 1e6)
                for _ in range(200):
                    GreenletFanOut().run(branches_of(connections, sql))
            signal.setitimer(signal.ITIMER_PROF, 0)
            for name, connection in connections.items():
                if connection.closed:
                    connections[name] = ShardConnection.connect(libpq_url(urls[name]))
                assert usable(connections[name])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)

    assert watcher.active(sql) == []


@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_pipeline_that_an_interruption_left_open_is_closed_with_its_connection(
    connections: dict[str, ShardConnection], *, is_hidden: bool
) -> None:
    def work() -> None:
        try:
            connections["s0"].pgconn.enter_pipeline_mode()
            raise KeyboardInterrupt
        finally:
            # psycopg asserts at the end of a pipeline what an interruption has left untrue.
            assert not is_hidden

    branches = [
        Branch("s0", work, lambda: connections["s0"]),
        statement("s1", connections["s1"], "SELECT 1"),
    ]
    with pytest.raises(KeyboardInterrupt):
        GreenletFanOut().run(branches)

    assert connections["s0"].closed
    assert usable(connections["s1"])


@pytest.mark.parametrize("is_told", [False, True])
def test_an_error_in_the_clean_up_after_an_interruption_does_not_hide_it(
    connections: dict[str, ShardConnection], *, is_told: bool
) -> None:
    """Whether the branch was interrupted itself, or told of it by the loop."""

    def work() -> None:
        try:
            if not is_told:
                raise KeyboardInterrupt
            connections["s0"].execute("SELECT pg_sleep(60)")
        finally:
            raise psycopg.OperationalError("the connection is closed")

    def interrupted() -> None:
        connections["s1"].execute("SELECT pg_sleep(0.1)")
        if is_told:
            raise KeyboardInterrupt

    branches = [
        Branch("s0", work, lambda: connections["s0"]),
        Branch("s1", interrupted, lambda: connections["s1"]),
    ]
    with pytest.raises(KeyboardInterrupt):
        GreenletFanOut().run(branches)

    assert connections["s0"].closed
    assert usable(connections["s1"])


def test_an_error_at_the_end_of_a_generator_is_an_ordinary_one(
    connections: dict[str, ShardConnection],
) -> None:
    def rows() -> Iterator[int]:
        try:
            yield 1
        finally:
            connections["s0"].execute("SELECT 1 / 0")

    def work() -> None:
        found = rows()
        next(found)
        found.close()

    failed, _ = GreenletFanOut().run(
        [Branch("s0", work), statement("s1", connections["s1"], "SELECT 1")]
    )

    assert isinstance(failed.error, psycopg.errors.DivisionByZero)


def test_a_second_ctrl_c_closes_at_once_what_does_not_drain(
    connections: dict[str, ShardConnection], watcher: Watcher
) -> None:
    pressed = threading.Event()

    def press_twice(pids: list[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGINT)
        assert pressed.wait(LIMIT_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    def handler(number: int, frame: Any) -> None:
        pressed.set()
        signal.default_int_handler(number, frame)

    pids = [connection.info.backend_pid for connection in connections.values()]
    previous = signal.signal(signal.SIGINT, handler)
    began = time.monotonic()
    try:
        with (
            watcher.ending(pids),
            watcher.once_active(4, press_twice),
            pytest.raises(KeyboardInterrupt),
        ):
            GreenletFanOut(drain_seconds=60.0).run(scatter(connections, FOREVER))
    finally:
        signal.signal(signal.SIGINT, previous)

    assert time.monotonic() - began < LIMIT_SECONDS
    assert all(connection.closed for connection in connections.values())


@pytest.mark.parametrize("interruption", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_an_interruption_raised_in_a_branch_cancels_the_others(
    interruption: type[BaseException],
    connections: dict[str, ShardConnection],
    watcher: Watcher,
) -> None:
    def work() -> None:
        connections["s3"].execute("SELECT pg_sleep(0.2)")
        raise interruption

    branches = [*scatter(connections, FOREVER)[:3], Branch("s3", work)]

    with pytest.raises(interruption):
        GreenletFanOut().run(branches)

    assert watcher.active() == []
    assert all(usable(connection) for connection in connections.values())


def test_a_backend_that_dies_is_the_error_of_its_branch_alone(
    connections: dict[str, ShardConnection], watcher: Watcher
) -> None:
    branches = scatter(connections, "SELECT 1 FROM pg_sleep(0.3)")
    branches[0] = statement("s0", connections["s0"], FOREVER)

    def kill(pids: list[int]) -> None:
        watcher.connections[0].execute("SELECT pg_terminate_backend(%s)", pids)

    with watcher.once_active(1, kill):
        outcomes = GreenletFanOut().run(branches)

    assert isinstance(outcomes[0].error, psycopg.OperationalError)
    assert connections["s0"].closed
    assert [outcome.value for outcome in outcomes[1:]] == [[(1,)]] * 3


def test_new_connections_of_shards_are_opened_side_by_side(shards: dict[str, Shard]) -> None:
    open_now, most = 0, 0

    def count(*_: Any) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)

    def work(shard: Shard) -> list[Any]:
        nonlocal open_now
        connection = shard.acquire()
        open_now -= 1
        assert isinstance(connection.driver_connection, ShardConnection)
        rows = connection.driver_connection.execute("SELECT current_database()::text").fetchall()
        connection.close()
        return rows

    for shard in shards.values():
        event.listen(shard.engine, "do_connect", count, insert=True)

    outcomes = GreenletFanOut().run([Branch(n, lambda s=s: work(s)) for n, s in shards.items()])  # type: ignore[misc]

    assert [outcome.result() for outcome in outcomes] == [[(name,)] for name in shards]
    assert most > 1


def test_two_branches_may_open_the_first_connections_of_one_shard(
    shards: dict[str, Shard],
) -> None:
    def work() -> int:
        connection = shards["s0"].acquire()
        (row,) = connection.driver_connection.execute("SELECT 1 FROM pg_sleep(0.05)").fetchall()
        connection.close()
        return int(row[0])

    outcomes = GreenletFanOut().run([Branch("s0", work) for _ in range(4)])

    assert [outcome.result() for outcome in outcomes] == [1] * 4


def test_pre_ping_replaces_a_dead_connection_within_a_branch(urls: dict[str, str]) -> None:
    shard = Shard("s0", create_shard_engine("s0", urls["s0"], pool_pre_ping=True))
    with shard.engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with psycopg.connect(libpq_url(urls["s0"]), autocommit=True) as killer:
        killer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    def work() -> object:
        connection = shard.acquire()
        value = connection.driver_connection.execute("SELECT 5").fetchone()
        connection.close()
        return value

    outcomes = GreenletFanOut().run([Branch("s0", work), Branch("s1", lambda: None)])
    shard.engine.dispose()

    assert outcomes[0].result() == (5,)


def test_connecting_to_a_server_that_does_not_answer_ends_at_the_deadline(
    shards: dict[str, Shard], tmp_path: Any
) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / ".s.PGSQL.5432"))
        listener.listen()
        engine = create_shard_engine("mute", f"postgresql://u:secret@/db?host={tmp_path}")
        mute = Shard("mute", engine)
        branches = [Branch("mute", mute.acquire), Branch("s0", shards["s0"].acquire)]

        late, good = GreenletFanOut().run(branches, deadline_seconds=0.5)

    assert isinstance(late.error, Late)
    assert mute.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    good.result().close()


def test_the_connect_timeout_holds_in_a_branch(tmp_path: Any) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / ".s.PGSQL.5432"))
        listener.listen()
        engine = create_shard_engine(
            "mute", f"postgresql://u@/db?host={tmp_path}&connect_timeout=2"
        )
        branches = [Branch("mute", Shard("mute", engine).acquire), Branch("s0", lambda: None)]

        outcome, _ = GreenletFanOut().run(branches)

    with pytest.raises(ShardUnavailable, match="timeout expired") as caught:
        outcome.result()
    assert caught.value.shard == "mute"


def test_an_exhausted_pool_names_its_shard(urls: dict[str, str]) -> None:
    engine = create_shard_engine("s0", urls["s0"], pool_size=1, max_overflow=0, pool_timeout=0.05)
    shard = Shard("s0", engine)
    held = shard.acquire()

    with pytest.raises(exc.TimeoutError, match="shard: s0"):
        shard.acquire()

    held.close()
    engine.dispose()


def test_engines_of_the_users_own_get_connections_that_wait_side_by_side(
    urls: dict[str, str],
) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(urls["s0"])
    instrument_engine(engine)
    instrument_engine(engine)
    opened = engine.raw_connection()

    assert isinstance(opened.driver_connection, ShardConnection)

    opened.close()
    engine.dispose()


def test_every_engine_is_instrumented_when_memory_is_used_again(urls: dict[str, str]) -> None:
    from sqlalchemy import create_engine

    kept = []
    for _ in range(50):
        engine = create_engine(urls["s0"])
        instrument_engine(engine)
        kept.append(engine.dialect)
        opened = engine.raw_connection()
        instrumented = isinstance(opened.driver_connection, ShardConnection)
        opened.close()
        engine.dispose()
        del engine

        assert instrumented


def test_do_connect_listeners_added_later_still_change_the_arguments(
    urls: dict[str, str],
) -> None:
    engine = create_shard_engine("s0", urls["s0"])

    @event.listens_for(engine, "do_connect")
    def rename(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        parameters["application_name"] = "renamed"

    with engine.connect() as connection:
        name = connection.scalar(text("SHOW application_name"))
    engine.dispose()

    assert name == "renamed"


def test_plain_connections_run_one_after_the_other(urls: dict[str, str]) -> None:
    order: list[str] = []

    def work(name: str, connection: psycopg.Connection[Any]) -> None:
        order.append(f"{name} begins")
        connection.execute("SELECT 1")
        order.append(f"{name} ends")

    with ExitStack() as stack:
        plain = {n: stack.enter_context(psycopg.connect(libpq_url(u))) for n, u in urls.items()}
        branches = [Branch(n, lambda n=n, c=c: work(n, c), lambda c=c: c) for n, c in plain.items()]  # type: ignore[misc]
        AdaptiveFanOut(GreenletFanOut()).run(branches)

    assert order == [f"{name} {what}" for name in urls for what in ("begins", "ends")]


def test_one_after_the_other_keeps_the_deadline_too(
    connections: dict[str, ShardConnection], watcher: Watcher
) -> None:
    outcomes = SequentialFanOut().run(scatter(connections, FOREVER), deadline_seconds=0.3)

    assert [isinstance(outcome.error, Late) for outcome in outcomes] == [True] * 4
    assert "was cancelled" in str(outcomes[0].error)
    assert "nothing was begun" in str(outcomes[3].error)
    assert watcher.active() == []
    assert all(usable(connection) for connection in connections.values())


def test_a_lock_held_by_another_branch_is_waited_for_without_stopping_it(
    connections: dict[str, ShardConnection],
) -> None:
    lock = threading.Lock()

    def work(connection: ShardConnection) -> list[Any]:
        acquire_lock(lock)
        try:
            return connection.execute("SELECT 1 FROM pg_sleep(0.02)").fetchall()
        finally:
            lock.release()

    branches = [Branch(n, lambda c=c: work(c)) for n, c in connections.items()]  # type: ignore[misc]

    assert [outcome.result() for outcome in GreenletFanOut().run(branches)] == [[(1,)]] * 4
