from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
import warnings
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from sqlalchemy_shards.connections.fan_out import SequentialFanOut
from sqlalchemy_shards.connections.hub import GreenletFanOut
from sqlalchemy_shards.errors import (
    ConfigurationError,
    TransactionAborted,
    TransactionOutcomeUnknown,
    TransactionUnfinished,
)
from sqlalchemy_shards.events import CommitUnfinished, DistributedCommit, at
from sqlalchemy_shards.testing.servers import PostgresServers
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.acknowledged import BATCH
from sqlalchemy_shards.transactions.rounds import CommitTimeouts
from tests.shards.distributed import DEPOSIT, Shards
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.connections.fan_out import FanOut

NOTHING = {"s0": 100, "s1": 100, "s2": 100, "s3": 100}


@pytest.fixture(params=[GreenletFanOut, SequentialFanOut])
def fan_out(request: pytest.FixtureRequest) -> FanOut:
    return request.param()


@pytest.fixture
def shards(account_urls: dict[str, str], fan_out: FanOut) -> Iterator[Shards]:
    with Shards(account_urls, fan_out=fan_out) as shards:
        yield shards.meet()


@pytest.fixture
def quick(account_urls: dict[str, str]) -> Iterator[Shards]:
    """Shards whose commits give up early, with the concurrent fan-out."""
    timeouts = CommitTimeouts(
        round_seconds=0.4,
        decision_seconds=0.4,
        settle_seconds=0.4,
        finish_seconds=0.4,
        rollback_seconds=0.4,
    )
    fan_out = GreenletFanOut(drain_seconds=0.1)
    with Shards(account_urls, fan_out=fan_out, timeouts=timeouts) as shards:
        yield shards.meet()


@pytest.fixture
def together(account_urls: dict[str, str]) -> Iterator[Shards]:
    """Shards that prepare while the decision row is being written."""
    with Shards(account_urls, fan_out=GreenletFanOut()) as shards:
        yield shards.meet()


def after(*names: str) -> dict[str, int]:
    return {**NOTHING, **dict.fromkeys(names, 101)}


class TestCommitting:
    @pytest.mark.parametrize("names", [("s0", "s1"), ("s3", "s1", "s2"), ("s0", "s1", "s2", "s3")])
    @pytest.mark.parametrize("wrote", [True, None])
    def test_all_shards_are_committed(
        self, shards: Shards, names: tuple[str, ...], wrote: bool | None
    ) -> None:
        enlisted = shards.deposit(*names, wrote=wrote)

        result = shards.commit(enlisted)

        assert shards.amounts() == after(*names)
        assert result.participants == tuple(sorted(names))
        assert result.unfinished == {}
        assert shards.prepared() == {}
        assert [one.status for one in enlisted] == ["IDLE"] * len(names)
        assert not any(one.driver.autocommit for one in enlisted)

    def test_listeners_hear_of_it(self, shards: Shards) -> None:
        result = shards.commit(shards.deposit("s0", "s2"))

        [event] = shards.events
        assert isinstance(event, DistributedCommit)
        assert (event.gid, event.participants) == (result.gid, ("s0", "s2"))

    def test_a_listener_that_fails_does_not_fail_the_commit(
        self, shards: Shards, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_: object) -> None:
            raise RuntimeError("a listener's mistake")

        shards.hooks.listen(DistributedCommit, fail)

        shards.commit(shards.deposit("s0", "s2"))

        assert shards.amounts() == after("s0", "s2")
        assert "a listener's mistake" in caplog.text

    def test_connections_can_be_used_again_and_again(self, shards: Shards) -> None:
        enlisted = shards.deposit("s0", "s1", "s2")

        for _ in range(8):
            shards.commit(enlisted)
            for one in enlisted:
                one.run(DEPOSIT)
        shards.commit(enlisted)

        assert shards.amounts() == {"s0": 109, "s1": 109, "s2": 109, "s3": 100}

    def test_the_decision_is_on_disk_whatever_the_transaction_asked_for(
        self, shards: Shards
    ) -> None:
        seen_by_commit(shards)
        enlisted = [shards.enlist(name) for name in ("s0", "s1")]

        settings = []
        for asked in ("off", "local", "remote_write", "on", "remote_apply"):
            for one in enlisted:
                one.run(f"SET LOCAL synchronous_commit = '{asked}'").run(DEPOSIT)
            shards.commit(enlisted)
            settings.append(shards.ask("s0", "DELETE FROM seen RETURNING setting"))

        assert settings == [[("on",)]] * 4 + [[("remote_apply",)]]

    @pytest.mark.parametrize(
        "asked",
        [
            "ALTER DATABASE {database} SET synchronous_commit = off",
            "ALTER ROLE {role} IN DATABASE {database} SET synchronous_commit = off",
        ],
    )
    def test_the_decision_is_on_disk_whatever_the_database_or_the_role_asks_for(
        self, shards: Shards, asked: str
    ) -> None:
        seen_by_commit(shards)
        for name in ("s0", "s1"):
            [(database, role)] = shards.ask(
                name, "SELECT quote_ident(current_database()), quote_ident(current_user)"
            )
            shards.ask(name, asked.format(database=database, role=role))
        enlisted = shards.deposit("s0", "s1")
        before = enlisted[0].driver.execute("SHOW synchronous_commit").fetchall()

        shards.commit(enlisted)

        assert before == [("off",)]
        assert shards.ask("s0", "SELECT setting FROM seen") == [("on",)]

    @pytest.mark.parametrize(
        "asked",
        [
            "SET synchronous_commit = off",
            "SELECT set_config('synchronous_commit', 'off', false)",
            "SAVEPOINT a; SET LOCAL synchronous_commit = off; RELEASE a",
        ],
    )
    def test_the_decision_is_on_disk_whatever_the_session_asked_for(
        self, shards: Shards, asked: str
    ) -> None:
        seen_by_commit(shards)
        enlisted = [shards.enlist(name).run(asked).run(DEPOSIT) for name in ("s0", "s1")]

        shards.commit(enlisted)

        assert shards.ask("s0", "SELECT setting FROM seen") == [("on",)]

    def test_four_databases_of_one_server_are_four_shards(
        self, one_server_urls: dict[str, str], fan_out: FanOut
    ) -> None:
        with Shards(one_server_urls, fan_out=fan_out) as shards:
            shards.create()

            shards.commit(shards.deposit("s0", "s1", "s2", "s3"))

            assert shards.amounts() == after("s0", "s1", "s2", "s3")
            assert shards.prepared() == {}

    def test_what_the_application_sets_on_its_connection_is_no_matter(self, shards: Shards) -> None:
        enlisted = [shards.enlist(name) for name in ("s0", "s1")]
        for one in enlisted:
            one.driver.row_factory = psycopg.rows.dict_row
            one.driver.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            one.run("SET search_path = pg_temp").run("UPDATE public.account SET amount = 101")

        shards.commit(enlisted)

        assert shards.amounts() == after("s0", "s1")

    def test_decision_rows_are_removed_in_batches(self, shards: Shards) -> None:
        enlisted = shards.deposit("s0", "s1")
        for _ in range(BATCH):
            shards.commit(enlisted)
            for one in enlisted:
                one.run(DEPOSIT)
        gathered = len(shards.decisions()["s0"])

        shards.commit(enlisted)

        assert gathered == BATCH
        assert shards.decisions() == {"s0": ["commit"]}


class TestOneParticipant:
    def test_one_enlisted_shard_is_just_committed(self, shards: Shards) -> None:
        [only] = shards.deposit("s2")

        result = shards.commit([only])

        assert result.participants == ("s2",)
        assert result.gid is None
        assert shards.amounts() == after("s2")

    def test_readers_beside_one_writer_need_no_two_phases(
        self, clean_shards: dict[str, str]
    ) -> None:
        # Without prepared transactions: any attempt at one would fail.
        with PostgresServers(2, settings={"max_prepared_transactions": 0}) as servers:
            urls = {"s0": servers.url(0), "s1": servers.url(1)}
            with Shards(urls) as shards:
                shards.create()
                reader = shards.enlist("s0").run("SELECT * FROM account")
                [writer] = shards.deposit("s1")

                result = shards.commit([reader, writer])

                assert result.gid is None
                assert result.participants == ("s1",)
                assert shards.amounts() == {"s0": 100, "s1": 101}
                assert (reader.status, writer.status) == ("IDLE", "IDLE")
                assert shards.decisions() == {}

    def test_an_update_of_no_rows_makes_no_participant(self, shards: Shards) -> None:
        idle = shards.enlist("s0").run("UPDATE account SET amount = 0 WHERE id = 9")

        result = shards.commit([idle, *shards.deposit("s1")])

        assert result.participants == ("s1",)

    def test_readers_alone_are_committed(self, shards: Shards) -> None:
        readers = [shards.enlist(n).run("SELECT 1 FROM account") for n in ("s0", "s1")]

        result = shards.commit(readers)

        assert result.participants == ()
        assert [one.status for one in readers] == ["IDLE", "IDLE"]

    def test_nothing_enlisted_is_nothing_to_do(self, shards: Shards) -> None:
        assert shards.commit([]).participants == ()

    def test_readers_keep_their_locks_until_the_decision(self, shards: Shards) -> None:
        reader = shards.enlist("s3", wrote=False).run("SELECT pg_advisory_xact_lock(1)")
        locked: list[object] = []

        def look(_: str) -> None:
            locked.append(shards.ask("s3", "SELECT pg_try_advisory_xact_lock(1)")[0][0])

        shards.fail_at(fail_points.BEFORE_DECISION, look)
        shards.commit([reader, *shards.deposit("s0", "s1")])

        assert locked == [False]
        assert shards.ask("s3", "SELECT pg_try_advisory_xact_lock(1)") == [(True,)]

    def test_an_error_of_the_only_writer_is_the_drivers_and_undoes_all(
        self, shards: Shards
    ) -> None:
        deferred_unique(shards)
        [writer] = shards.deposit("s1")
        writer.run("INSERT INTO slot VALUES (1), (1)")
        reader = shards.enlist("s0").run("SELECT 1 FROM account")

        with pytest.raises(psycopg.errors.UniqueViolation):
            shards.commit([reader, writer])

        assert shards.amounts() == NOTHING
        assert (reader.status, writer.status) == ("IDLE", "IDLE")


class TestRefusals:
    @pytest.mark.parametrize("failing", ["s0", "s1"])
    def test_a_deferred_constraint_undoes_all_and_is_the_drivers_error(
        self, shards: Shards, failing: str
    ) -> None:
        deferred_unique(shards)
        enlisted = shards.deposit("s0", "s1", "s2")
        for one in enlisted:
            if one.name == failing:
                one.run("INSERT INTO slot VALUES (1), (1)")

        with pytest.raises(psycopg.errors.UniqueViolation) as caught:
            shards.commit(enlisted)

        assert caught.value.shard == failing
        assert caught.value.diag.constraint_name == "slot_number_key"
        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}
        assert shards.decisions() == {}
        assert [one.status for one in enlisted] == ["IDLE"] * 3

    @pytest.mark.parametrize("failing", ["s0", "s1"])
    @pytest.mark.parametrize("wrote", [True, None])
    def test_a_swallowed_error_undoes_all(
        self, shards: Shards, failing: str, wrote: bool | None
    ) -> None:
        enlisted = shards.deposit("s0", "s1", wrote=wrote)
        [broken] = [one for one in enlisted if one.name == failing]
        with pytest.raises(psycopg.errors.DivisionByZero):
            broken.run("SELECT 1/0")

        with pytest.raises(TransactionAborted, match="swallowed") as caught:
            shards.commit(enlisted)

        assert caught.value.shard == failing
        assert shards.amounts() == NOTHING
        assert [one.status for one in enlisted] == ["IDLE", "IDLE"]

    def test_a_lost_connection_undoes_all(self, shards: Shards) -> None:
        first, second = shards.deposit("s0", "s1", wrote=True)
        terminate(shards, second)

        with pytest.raises(TransactionAborted) as caught:
            shards.commit([first, second])

        assert set(caught.value.shard_errors) == {"s1"}
        assert caught.value.is_retryable
        assert shards.amounts() == NOTHING
        assert first.status == "IDLE"
        assert second.driver.closed

    def test_a_lost_reader_undoes_all(self, shards: Shards) -> None:
        reader = shards.enlist("s2").run("SELECT 1")
        enlisted = [*shards.deposit("s0", "s1"), reader]
        terminate(shards, reader)

        with pytest.raises(TransactionAborted):
            shards.commit(enlisted)

        assert shards.amounts() == NOTHING

    def test_shards_without_our_schema_are_refused(self, shards: Shards) -> None:
        shards.ask("s1", "DROP SCHEMA shards CASCADE")
        shards.coordinator._wiring.identities._by_name.clear()
        enlisted = shards.deposit("s0", "s1")

        with pytest.raises(ConfigurationError, match=r"run cluster\.bootstrap\(\)") as caught:
            shards.commit(enlisted)

        assert caught.value.shard == "s1"
        assert shards.amounts() == NOTHING
        assert [one.status for one in enlisted] == ["IDLE", "IDLE"]

    def test_a_schema_that_was_dropped_meanwhile_is_refused(self, shards: Shards) -> None:
        shards.ask("s0", "DROP SCHEMA shards CASCADE")

        with pytest.raises(TransactionAborted, match=r"run cluster\.bootstrap\(\)"):
            shards.commit(shards.deposit("s0", "s1"))

        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}

    def test_a_decision_shard_that_is_another_database_is_refused(self, shards: Shards) -> None:
        shards.ask("s0", "UPDATE shards.identity SET shard_uuid = gen_random_uuid()")

        with pytest.raises(ConfigurationError, match="not the one that it was"):
            shards.commit(shards.deposit("s0", "s1"))

        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}

    def test_identities_are_read_when_they_are_not_known(self, shards: Shards) -> None:
        shards.coordinator._wiring.identities._by_name.clear()

        shards.commit(shards.deposit("s0", "s1"))

        assert shards.amounts() == after("s0", "s1")

    def test_swapped_urls_are_refused(self, shards: Shards) -> None:
        shards.coordinator._wiring.identities._by_name.clear()
        enlisted = [
            shards.enlist("s0", conninfo=shards.conninfo["s1"]).run(DEPOSIT),
            shards.enlist("s1", conninfo=shards.conninfo["s0"]).run(DEPOSIT),
        ]

        with pytest.raises(ConfigurationError, match="swapped"):
            shards.commit(enlisted)

        assert shards.amounts() == NOTHING

    def test_a_server_without_prepared_transactions_is_named(
        self, clean_shards: dict[str, str]
    ) -> None:
        with with_a_server(clean_shards["s0"], max_prepared_transactions=0) as shards:
            with pytest.raises(TransactionAborted, match="max_prepared_transactions") as caught:
                shards.commit(shards.deposit("s0", "s1"))

            assert caught.value.shard == "s1"
            assert shards.amounts() == {"s0": 100, "s1": 100}

    def test_a_server_with_no_room_for_prepared_transactions_is_named(
        self, clean_shards: dict[str, str]
    ) -> None:
        with with_a_server(clean_shards["s0"], max_prepared_transactions=1) as shards:
            shards.enlist("s1").run("CREATE TABLE x ()").run("PREPARE TRANSACTION 'foreign'")

            with pytest.raises(TransactionAborted, match="max_prepared_transactions") as caught:
                shards.commit(shards.deposit("s0", "s1"))

            assert caught.value.shard == "s1"
            assert shards.amounts() == {"s0": 100, "s1": 100}

    def test_a_role_that_may_not_write_decisions_is_told(self, shards: Shards) -> None:
        shards.ask("s0", "DROP ROLE IF EXISTS shards_poor")
        shards.ask("s0", "CREATE ROLE shards_poor")
        enlisted = shards.deposit("s0", "s1")
        enlisted[0].run("SET LOCAL ROLE shards_poor")

        with pytest.raises(TransactionAborted, match="grant it USAGE"):
            shards.commit(enlisted)

        shards.ask("s0", "DROP ROLE shards_poor")
        assert shards.amounts() == NOTHING


class TestWhatCannotBePrepared:
    @pytest.mark.parametrize("stubborn", ["s0", "s1", "s2"])
    def test_a_shard_with_temporary_objects_decides(self, shards: Shards, stubborn: str) -> None:
        enlisted = shards.deposit("s0", "s1", "s2")
        for one in enlisted:
            if one.name == stubborn:
                one.run("CREATE TEMP TABLE scratch (x int)").run("INSERT INTO scratch VALUES (1)")

        result = shards.commit(enlisted)

        assert result.participants[0] == stubborn
        assert shards.amounts() == after("s0", "s1", "s2")

    def test_temporary_objects_on_two_shards_are_refused(self, shards: Shards) -> None:
        enlisted = shards.deposit("s0", "s1", "s2")
        for one in enlisted[1:]:
            one.run("CREATE TEMP TABLE scratch (x int)")

        with pytest.raises(TransactionAborted, match="'s1', 's2' cannot be prepared"):
            shards.commit(enlisted)

        assert shards.amounts() == NOTHING
        assert [one.status for one in enlisted] == ["IDLE"] * 3

    def test_old_temporary_objects_are_no_matter(self, shards: Shards) -> None:
        enlisted = [shards.enlist(name) for name in ("s0", "s1")]
        for one in enlisted:
            one.run("CREATE TEMP TABLE scratch (x int)").driver.commit()
            one.run(DEPOSIT)

        shards.commit(enlisted)

        assert shards.amounts() == after("s0", "s1")

    def test_a_shard_said_to_be_so_decides(self, shards: Shards) -> None:
        notifying = shards.enlist("s1", wrote=True, cannot_prepare=True)
        notifying.run(DEPOSIT).run("NOTIFY news")

        result = shards.commit([*shards.deposit("s0"), notifying])

        assert result.participants == ("s1", "s0")
        assert shards.amounts() == after("s0", "s1")

    def test_one_that_nobody_knew_of_undoes_all_and_is_explained(self, shards: Shards) -> None:
        enlisted = shards.deposit("s0", "s1")
        enlisted[1].run("NOTIFY news")

        with pytest.raises(TransactionAborted, match="cannot prepare this transaction"):
            shards.commit(enlisted)

        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}


class TestFailuresOnTheWay:
    @pytest.mark.parametrize(
        "fail_point",
        [
            fail_points.BEFORE_ROUND_0,
            fail_points.AFTER_ROUND_0,
            fail_points.BEFORE_DECISION_ROW,
            fail_points.AFTER_DECISION_ROW,
            at(fail_points.BEFORE_PREPARE, "s1"),
            at(fail_points.AFTER_PREPARE, "s2"),
            fail_points.BEFORE_DECISION,
        ],
    )
    @pytest.mark.parametrize("error_type", [KeyboardInterrupt, RuntimeError])
    def test_an_interrupt_before_the_decision_undoes_all(
        self, shards: Shards, fail_point: str, error_type: type[BaseException]
    ) -> None:
        enlisted = shards.deposit("s0", "s1", "s2")
        shards.fail_at(fail_point, raising(error_type))

        with pytest.raises((error_type, TransactionAborted)):
            shards.commit(enlisted)

        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}
        assert shards.decisions() == {}
        assert all(one.driver.closed or one.status == "IDLE" for one in enlisted)

    @pytest.mark.parametrize(
        "fail_point",
        [
            fail_points.AFTER_DECISION,
            at(fail_points.BEFORE_COMMIT_PREPARED, "s1"),
            at(fail_points.AFTER_COMMIT_PREPARED, "s2"),
            fail_points.AFTER_ROUND_3,
        ],
    )
    def test_an_interrupt_after_the_decision_undoes_nothing(
        self, shards: Shards, fail_point: str
    ) -> None:
        enlisted = shards.deposit("s0", "s1", "s2")
        shards.fail_at(fail_point, raising(KeyboardInterrupt))

        with warnings.catch_warnings():
            # Whether a part is left for recovery depends on the place.
            warnings.simplefilter("ignore", TransactionUnfinished)
            with pytest.raises(KeyboardInterrupt):
                shards.commit(enlisted)

        shards.hooks.fail_points = None
        shards.recovery().recover()
        assert shards.amounts() == after("s0", "s1", "s2")
        assert shards.prepared() == {}
        assert all(one.driver.closed or one.status == "IDLE" for one in enlisted)

    def test_a_connection_lost_before_the_decision_undoes_all(self, shards: Shards) -> None:
        enlisted = shards.deposit("s0", "s1")
        shards.fail_at(fail_points.BEFORE_DECISION, lambda _: terminate(shards, enlisted[0]))

        with pytest.raises(TransactionAborted):
            shards.commit(enlisted)

        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}
        assert enlisted[1].status == "IDLE"

    def test_a_coordinator_that_asks_after_all_was_finished_and_forgotten_claims_nothing(
        self, shards: Shards
    ) -> None:
        # It slept longer than decision rows are kept, before it could ask.
        forgotten: list[str] = []

        def forget() -> None:
            for _ in range(2):
                shards.recovery(decision_retention=timedelta(0)).recover()

        @contextmanager
        def connect(name: str) -> Iterator[psycopg.Connection[Any]]:
            if not forgotten:
                forgotten.append(name)
                # In a thread, since this is asked within a fan-out.
                thread = threading.Thread(target=forget)
                thread.start()
                thread.join()
            with shards.connect(name) as connection:
                yield connection

        with swallowing_proxy(shards.conninfo["s0"], b"COMMIT") as conninfo:
            deciding = shards.enlist("s0", conninfo=conninfo).run(DEPOSIT)
            enlisted = [deciding, *shards.deposit("s1", "s2")]

            with pytest.raises(TransactionOutcomeUnknown, match="has no trace") as caught:
                shards.coordinating(connect).commit(enlisted)

        assert caught.value.gid is not None
        assert shards.decisions() == {}
        assert shards.amounts() == after("s0", "s1", "s2")
        assert all(one.driver.closed or one.status == "IDLE" for one in enlisted)

    def test_a_participant_that_dies_after_the_decision_is_left_to_recovery(
        self, shards: Shards, servers: PostgresServers
    ) -> None:
        enlisted = shards.deposit("s0", "s1", "s2")
        shards.fail_at(fail_points.AFTER_DECISION, lambda _: servers.kill(1))

        with pytest.warns(TransactionUnfinished) as warned:
            result = shards.commit(enlisted)

        assert set(result.unfinished) == {"s1"}
        assert warned[0].message.unfinished == ("s1",)
        assert isinstance(shards.events[-1], CommitUnfinished)
        servers.start(1)
        shards.hooks.fail_points = None
        report = shards.recovery().recover()
        assert [(part.shard, part.outcome) for part in report.finished] == [("s1", "committed")]
        assert shards.amounts() == after("s0", "s1", "s2")

    def test_a_listener_that_fails_does_not_hide_the_warning(
        self, shards: Shards, servers: PostgresServers
    ) -> None:
        def fail(event: CommitUnfinished) -> None:
            raise LookupError

        shards.hooks.listen(CommitUnfinished, fail)
        enlisted = shards.deposit("s0", "s1", "s2")
        shards.fail_at(fail_points.AFTER_DECISION, lambda _: servers.kill(1))

        with pytest.warns(TransactionUnfinished):
            result = shards.commit(enlisted)

        assert set(result.unfinished) == {"s1"}
        servers.start(1)

    def test_a_participant_that_cannot_be_reached_is_tried_again_with_growing_pauses(
        self, shards: Shards
    ) -> None:
        tries: list[float] = []

        @contextmanager
        def connect(name: str) -> Iterator[psycopg.Connection[Any]]:
            tries.append(time.monotonic())
            if len(tries) < 4:
                raise psycopg.OperationalError("it is not back yet")
            with shards.connect(name) as connection:
                yield connection

        enlisted = shards.deposit("s0", "s1", "s2")
        shards.fail_at(fail_points.AFTER_DECISION, lambda _: terminate(shards, enlisted[1]))

        result = shards.coordinating(connect).commit(enlisted)

        pauses = [later - sooner for sooner, later in itertools.pairwise(tries)]
        assert result.unfinished == {}
        assert len(tries) == 4
        assert pauses[1] >= 0.02
        assert pauses[2] >= 0.04
        assert shards.amounts() == after("s0", "s1", "s2")

    def test_a_part_prepared_by_another_role_is_finished_as_that_role(self, shards: Shards) -> None:
        # The session's own role is back after PREPARE, and PostgreSQL refuses it the rest.
        with roles(shards, app="shards_app", tenant="shards_tenant"):
            enlisted = shards.deposit("s0", "s1")
            enlisted[1].run("SET LOCAL ROLE shards_tenant")

            result = shards.commit(enlisted)
            user = shards.ask("s1", "SELECT current_user")

        assert result.unfinished == {}
        assert user == [("shards_app",)]
        assert shards.amounts() == after("s0", "s1")
        assert shards.prepared() == {}


class TestStoppedServers:
    def test_a_decision_that_nobody_answers_is_unknown_and_settled_later(
        self, quick: Shards
    ) -> None:
        enlisted = quick.deposit("s0", "s1")
        pid = enlisted[0].driver.info.backend_pid

        with stopping(quick, fail_points.BEFORE_DECISION, pid):
            with pytest.raises(TransactionOutcomeUnknown) as caught:
                quick.commit(enlisted)
            in_doubt = quick.recovery(lock_seconds=0.1).recover()

        gid = caught.value.gid
        eventually(lambda: quick.amounts()["s0"] == 101, "the COMMIT in the socket")
        report = quick.recovery().recover()
        assert [one.gid for one in in_doubt.in_doubt] == [gid]
        assert quick.recovery().outcome(gid).value == "committed"
        assert [part.shard for part in report.finished] == ["s1"]
        assert quick.amounts() == after("s0", "s1")
        assert all(one.driver.closed or one.status == "IDLE" for one in enlisted)

    def test_a_prepare_that_comes_late_is_undone_by_recovery(self, quick: Shards) -> None:
        enlisted = quick.deposit("s0", "s1", "s2")
        pid = enlisted[1].driver.info.backend_pid

        with (
            stopping(quick, at(fail_points.BEFORE_PREPARE, "s1"), pid),
            pytest.raises(TransactionAborted) as caught,
        ):
            quick.commit(enlisted)

        assert "shard 's1' has not confirmed" in str(caught.value)
        eventually(lambda: gone(quick, "s1", pid), "the end of the stopped process")
        quick.recovery().recover()
        assert quick.prepared() == {}
        assert quick.amounts() == NOTHING

    def test_a_decision_row_that_comes_after_recovery_is_refused(self, together: Shards) -> None:
        shards = together
        enlisted = shards.deposit("s0", "s1")
        pid = enlisted[0].driver.info.backend_pid
        recovered = []

        def recover(_: str) -> None:
            try:
                recovered.extend(shards.recovery().recover().finished)
            finally:
                os.kill(pid, signal.SIGCONT)

        shards.hooks.fail_points = {
            fail_points.BEFORE_DECISION_ROW: lambda _: os.kill(pid, signal.SIGSTOP),
            at(fail_points.AFTER_PREPARE, "s1"): recover,
        }
        with pytest.raises(TransactionAborted, match="recovery aborted the transaction"):
            shards.commit(enlisted)

        assert [(part.shard, part.outcome) for part in recovered] == [("s1", "aborted")]
        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}


class TestCtrlC:
    def test_the_deciding_commit_is_not_cancelled(self, shards: Shards) -> None:
        slow_commit(shards, "s0")
        enlisted = shards.deposit("s0", "s1")
        pid = enlisted[0].driver.info.backend_pid
        watcher = threading.Thread(target=interrupt_in_commit, args=(shards, "s0", pid))

        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            shards.commit(enlisted)
        watcher.join()

        assert shards.amounts() == after("s0", "s1")
        assert shards.prepared() == {}
        assert [one.status for one in enlisted] == ["IDLE", "IDLE"]

    def test_preparing_is_cancelled_and_undone(self, shards: Shards) -> None:
        slow_commit(shards, "s1", seconds=30)
        enlisted = shards.deposit("s0", "s1")
        pid = enlisted[1].driver.info.backend_pid
        watcher = threading.Thread(target=interrupt_in_commit, args=(shards, "s1", pid))

        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            shards.commit(enlisted)
        watcher.join()

        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}
        assert all(one.driver.closed or one.status == "IDLE" for one in enlisted)


@contextmanager
def with_a_server(url: str, *, max_prepared_transactions: int) -> Iterator[Shards]:
    """Give s0 at ``url``, and s1 on a server of its own with this setting."""
    settings = {"max_prepared_transactions": max_prepared_transactions}
    with (
        PostgresServers(1, settings=settings) as servers,
        Shards({"s0": url, "s1": servers.url(0)}) as shards,
    ):
        yield shards.create()


def seen_by_commit(shards: Shards) -> None:
    """Note what the COMMIT on s0 goes by: a deferred trigger runs in the COMMIT itself."""
    shards.ask(
        "s0",
        "CREATE TABLE seen (setting text);"
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen"
        " VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER look AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION look()",
    )


def deferred_unique(shards: Shards) -> None:
    shards.everywhere("CREATE TABLE slot (number int UNIQUE DEFERRABLE INITIALLY DEFERRED)")


def slow_commit(shards: Shards, name: str, seconds: float = 0.5) -> None:
    shards.ask(
        name,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM"
        f" pg_sleep({seconds}); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION slow()",
    )


def interrupt_in_commit(shards: Shards, name: str, pid: int) -> None:
    asleep = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
    eventually(lambda: shards.ask(name, asleep), "the slow trigger")
    os.kill(os.getpid(), signal.SIGINT)


def raising(error_type: type[BaseException]) -> Any:
    def fail(fail_point: str) -> None:
        raise error_type(fail_point)

    return fail


def terminate(shards: Shards, one: Any) -> None:
    pid = one.driver.info.backend_pid
    shards.ask(one.name, f"SELECT pg_terminate_backend({pid})")
    eventually(lambda: gone(shards, one.name, pid), "the end of the server process")


def gone(shards: Shards, name: str, pid: int) -> bool:
    return not shards.ask(name, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}")


@contextmanager
def roles(shards: Shards, *, app: str, tenant: str) -> Iterator[None]:
    """Let everything run as ``app``, a member of ``tenant``; neither is a superuser."""
    as_superuser = dict(shards.conninfo)
    for name in ("s0", "s1"):
        for statement in (
            f"CREATE ROLE {app} LOGIN",
            f"CREATE ROLE {tenant}",
            f"GRANT {tenant} TO {app}",
            f"GRANT ALL ON account TO {app}, {tenant}",
            f"GRANT USAGE ON SCHEMA shards TO {app}, {tenant}",
            f"GRANT SELECT ON shards.identity TO {app}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON shards.decisions TO {app}",
        ):
            shards.ask(name, statement)
        shards.conninfo[name] = psycopg.conninfo.make_conninfo(shards.conninfo[name], user=app)
    try:
        yield
    finally:
        shards.conninfo.update(as_superuser)
        for name in ("s0", "s1"):
            for role in (app, tenant):
                shards.ask(name, f"DROP OWNED BY {role}")
                shards.ask(name, f"DROP ROLE {role}")


@contextmanager
def stopping(shards: Shards, fail_point: str, pid: int) -> Iterator[None]:
    """Stop a server process when ``fail_point`` is reached, and let it go on at the end."""
    shards.fail_at(fail_point, lambda _: os.kill(pid, signal.SIGSTOP))
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        shards.hooks.fail_points = None


@contextmanager
def swallowing_proxy(conninfo: str, command: bytes) -> Iterator[str]:
    """Give a way to a server that breaks when it answers a message that contains ``command``."""
    parts = conninfo_to_dict(conninfo)
    name = f".s.PGSQL.{parts['port']}"
    with TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(Path(directory) / name))
        listener.listen()
        target = str(Path(str(parts["host"])) / name)
        thread = threading.Thread(target=_relay, args=(listener, target, command))
        thread.start()
        yield psycopg.conninfo.make_conninfo(conninfo, host=directory)
        thread.join()


def _relay(listener: socket.socket, target: str, command: bytes) -> None:
    client, _ = listener.accept()
    with client, socket.socket(socket.AF_UNIX) as server:
        server.connect(target)
        upwards = threading.Thread(target=_answers, args=(server, client))
        muted = False
        upwards.start()
        while data := client.recv(65536):
            if is_final(data, command):
                muted = True
                break
            server.sendall(data)
        if muted:
            # Half a close: what the server says from here on is read, but not handed on.
            client.shutdown(socket.SHUT_WR)
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)
        else:
            server.shutdown(socket.SHUT_WR)
        upwards.join()


def is_final(data: bytes, command: bytes) -> bool:
    return command in data and not (command == b"COMMIT" and b"COMMIT PREPARED" in data)


def _answers(server: socket.socket, client: socket.socket) -> None:
    while data := server.recv(65536):
        try:
            client.sendall(data)
        except OSError:
            continue
