from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from sqlalchemy_shards.errors import (
    ConfigurationError,
    ShardUnavailable,
    TransactionAborted,
)
from sqlalchemy_shards.events import TransactionRecovered, at
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.gid import TransactionGid
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from sqlalchemy_shards.transactions.settle import settle
from tests.mortal import mortal
from tests.shards.distributed import CRASHED, CRASHING, Shards, commit_and_crash
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

NOTHING = {"s0": 100, "s1": 100, "s2": 100, "s3": 100}
ALL = {"s0": 101, "s1": 101, "s2": 101, "s3": 100}
AT_ONCE = timedelta(0)

BEFORE_THE_DECISION = [
    fail_points.BEFORE_ROUND_0,
    fail_points.AFTER_ROUND_0,
    fail_points.BEFORE_DECISION_ROW,
    fail_points.AFTER_DECISION_ROW,
    at(fail_points.BEFORE_PREPARE, "s1"),
    at(fail_points.AFTER_PREPARE, "s1"),
    at(fail_points.BEFORE_PREPARE, "s2"),
    at(fail_points.AFTER_PREPARE, "s2"),
    fail_points.BEFORE_DECISION,
]
AFTER_THE_DECISION = [
    fail_points.AFTER_DECISION,
    at(fail_points.BEFORE_COMMIT_PREPARED, "s1"),
    at(fail_points.AFTER_COMMIT_PREPARED, "s1"),
    at(fail_points.BEFORE_COMMIT_PREPARED, "s2"),
    at(fail_points.AFTER_COMMIT_PREPARED, "s2"),
    fail_points.AFTER_ROUND_3,
]


@pytest.fixture
def shards(account_urls: dict[str, str]) -> Iterator[Shards]:
    with Shards(account_urls) as shards:
        yield shards.meet()


def crash(shards: Shards, fail_point: str, *, at_once: bool = True) -> None:
    """Commit on s0, s1 and s2 in another process, which ends at ``fail_point``."""
    names = ("s0", "s1", "s2")
    process = mortal(partial(commit_and_crash, at_once=at_once), shards.conninfo, names, fail_point)
    process.start()
    process.join()
    assert process.exitcode == CRASHED
    process.close()
    eventually(lambda: not any(busy(shards, name) for name in shards.conninfo), "end of sessions")


def busy(shards: Shards, name: str) -> bool:
    sessions = f"SELECT 1 FROM pg_stat_activity WHERE application_name = '{CRASHING}'"
    return bool(shards.ask(name, sessions))


class TestCrashes:
    # With the concurrent fan-out: tests/faults.
    @pytest.mark.parametrize("fail_point", BEFORE_THE_DECISION)
    def test_a_crash_before_the_decision_leaves_nothing(
        self, shards: Shards, fail_point: str
    ) -> None:
        crash(shards, fail_point, at_once=False)

        report = shards.recovery().recover()

        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}
        assert shards.decisions() == {}
        assert {part.outcome for part in report.finished} <= {"aborted"}
        assert report.is_clean

    @pytest.mark.parametrize("fail_point", AFTER_THE_DECISION)
    def test_a_crash_after_the_decision_leaves_all(self, shards: Shards, fail_point: str) -> None:
        crash(shards, fail_point, at_once=False)

        report = shards.recovery().recover()

        assert shards.amounts() == ALL
        assert shards.prepared() == {}
        assert shards.decisions() == {"s0": ["commit"]}
        assert {part.outcome for part in report.finished} <= {"committed"}
        assert report.is_clean

    @pytest.mark.parametrize(
        "fail_point", [at(fail_points.BEFORE_FINISH, "s1"), at(fail_points.AFTER_FINISH, "s1")]
    )
    def test_a_recovery_that_crashes_is_done_by_the_next(
        self, shards: Shards, fail_point: str
    ) -> None:
        crash(shards, fail_points.AFTER_DECISION)
        shards.fail_at(fail_point, raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            shards.recovery().recover()
        shards.hooks.fail_points = None

        shards.recovery().recover()

        assert shards.amounts() == ALL
        assert shards.prepared() == {}

    @pytest.mark.parametrize(
        "fail_point", [fail_points.BEFORE_ABORT_ROW, fail_points.AFTER_ABORT_ROW]
    )
    def test_a_recovery_that_crashes_while_it_aborts_is_done_by_the_next(
        self, shards: Shards, fail_point: str
    ) -> None:
        # Somebody else's older transaction keeps the server from telling that ours is over.
        with held_xid(shards, "s0"):
            crash(shards, fail_points.BEFORE_DECISION)
            shards.fail_at(fail_point, raise_interrupt)
            with pytest.raises(KeyboardInterrupt):
                shards.recovery().recover()
            shards.hooks.fail_points = None

            report = shards.recovery().recover()

        assert {part.outcome for part in report.finished} == {"aborted"}
        assert shards.amounts() == NOTHING
        assert shards.prepared() == {}

    def test_four_databases_of_one_server_recover_apart(
        self, one_server_urls: dict[str, str]
    ) -> None:
        with Shards(one_server_urls) as shards:
            shards.create()
            crash(shards, fail_points.AFTER_DECISION)

            report = shards.recovery().recover()

            assert sorted(part.shard for part in report.finished) == ["s1", "s2"]
            assert shards.amounts() == ALL
            assert shards.prepared() == {}


class TestRecovering:
    def test_listeners_and_the_report_tell_what_was_done(self, shards: Shards) -> None:
        crash(shards, fail_points.AFTER_DECISION)

        report = shards.recovery().recover()

        told = [e for e in shards.events if isinstance(e, TransactionRecovered)]
        assert sorted((e.shard, e.outcome) for e in told) == [
            ("s1", "committed"),
            ("s2", "committed"),
        ]
        assert {e.gid for e in told} == {part.gid for part in report.finished}

    def test_many_recoveries_at_once_finish_once(self, shards: Shards) -> None:
        crash(shards, fail_points.AFTER_DECISION)

        with ThreadPoolExecutor(4) as pool:
            reports = list(pool.map(lambda _: shards.recovery().recover(), range(4)))

        finished = [(p.gid, p.shard) for report in reports for p in report.finished]
        assert len(finished) == len(set(finished)) == 2
        assert shards.amounts() == ALL
        assert shards.prepared() == {}

    def test_recovery_beside_running_transactions_breaks_none(self, shards: Shards) -> None:
        stop = threading.Event()
        reports = []

        def recover() -> None:
            recovery = shards.recovery()
            while not stop.is_set():
                reports.append(recovery.recover())

        thread = threading.Thread(target=recover)
        thread.start()
        enlisted = shards.deposit("s0", "s1", "s2")
        committed, refusals = 0, []
        for _ in range(60):
            try:
                shards.commit(enlisted)
                committed += 1
            except TransactionAborted as error:
                refusals.append(str(error))
            for one in enlisted:
                one.run("UPDATE account SET amount = amount + 1")
        for one in enlisted:
            one.driver.rollback()
        stop.set()
        thread.join()

        amounts = shards.amounts()
        assert amounts == {
            "s0": 100 + committed,
            "s1": 100 + committed,
            "s2": 100 + committed,
            "s3": 100,
        }
        assert shards.prepared() == {}
        assert all("recovery aborted" in refusal for refusal in refusals)
        assert reports

    def test_what_is_no_age_is_told(self, shards: Shards) -> None:
        with pytest.raises(ConfigurationError, match="no age"):
            shards.recovery().recover(older_than=timedelta(seconds=-1))

    def test_young_transactions_are_left_alone_when_asked(self, shards: Shards) -> None:
        crash(shards, fail_points.AFTER_DECISION)

        report = shards.recovery().recover(older_than=timedelta(hours=1))

        [in_doubt] = report.in_doubt
        assert in_doubt.prepared == ("s1", "s2")
        assert set(shards.prepared()) == {"s1", "s2"}

    def test_shards_that_are_down_are_reported_and_done_later(
        self, shards: Shards, servers: PostgresServers
    ) -> None:
        crash(shards, fail_points.AFTER_DECISION)
        servers.stop(1)

        first = shards.recovery().recover()
        servers.start(1)
        second = shards.recovery().recover()

        assert set(first.unreachable) == {"s1"}
        assert [part.shard for part in first.finished] == ["s2"]
        assert [part.shard for part in second.finished] == ["s1"]
        assert shards.amounts() == ALL

    def test_nothing_is_guessed_while_the_decision_shard_is_down(
        self, shards: Shards, servers: PostgresServers
    ) -> None:
        crash(shards, fail_points.AFTER_DECISION)
        servers.stop(0)
        recovery = shards.recovery()

        report = recovery.recover()
        outcome = recovery.outcome(report.in_doubt[0].gid)

        assert report.finished == ()
        assert set(report.unreachable) == {"s0"}
        assert outcome is Outcome.UNKNOWN
        servers.start(0)
        assert recovery.outcome(report.in_doubt[0].gid) is Outcome.COMMITTED

    def test_what_is_in_doubt_is_listed_without_changing_it(self, shards: Shards) -> None:
        crash(shards, fail_points.BEFORE_DECISION)

        [listed] = shards.recovery().in_doubt()

        assert listed.decision_shard == "s0"
        assert listed.prepared == ("s1", "s2")
        assert set(shards.prepared()) == {"s1", "s2"}

    def test_a_list_that_would_not_be_whole_is_refused(
        self, shards: Shards, servers: PostgresServers
    ) -> None:
        servers.stop(2)

        with pytest.raises(ShardUnavailable) as caught:
            shards.recovery().in_doubt()

        assert caught.value.shard == "s2"

    def test_foreign_prepared_transactions_are_left_alone(self, shards: Shards) -> None:
        other = TransactionGid(uuid4(), uuid4(), uuid4(), 741).part(uuid4())
        for number, gid in enumerate(["mine", str(other), "shards/1/x"]):
            one = shards.enlist("s1").run(f"CREATE TABLE foreign_{number} ()")
            one.run(f"PREPARE TRANSACTION '{gid}'")

        report = shards.recovery().recover()

        assert report.is_clean
        assert len(shards.prepared()["s1"]) == 3

    def test_gids_of_ours_that_are_not_understood_are_reported(self, shards: Shards) -> None:
        cluster = shards.identities.cluster_uuid
        assert cluster is not None
        later = f"shards/2/{cluster.hex}/unheard-of"
        elsewhere = str(TransactionGid(cluster, uuid4(), uuid4(), 741).part(uuid4()))
        for number, gid in enumerate([later, elsewhere]):
            shards.enlist("s1").run(f"CREATE TABLE t{number} ()").run(
                f"PREPARE TRANSACTION '{gid}'"
            )

        report = shards.recovery().recover()

        assert set(report.not_understood) == {("s1", later), ("s1", elsewhere)}
        assert not report.is_clean
        assert len(shards.prepared()["s1"]) == 2

    def test_a_shard_that_was_swapped_is_not_touched(self, shards: Shards) -> None:
        crash(shards, fail_points.AFTER_DECISION)
        conninfo = shards.conninfo
        conninfo["s1"], conninfo["s2"] = conninfo["s2"], conninfo["s1"]

        report = shards.recovery().recover()

        assert isinstance(report.unreachable["s1"], ConfigurationError)
        assert isinstance(report.unreachable["s2"], ConfigurationError)
        assert report.finished == ()


class TestSettling:
    def test_a_transaction_that_is_over_without_a_row_is_aborted_and_nothing_written(
        self, shards: Shards
    ) -> None:
        gid = gid_of(shards, xid=3)

        outcome = shards.recovery().outcome(str(gid))

        assert outcome is Outcome.ABORTED
        assert shards.decisions() == {}

    def test_a_transaction_that_may_live_is_aborted_for_ever(self, shards: Shards) -> None:
        with held_xid(shards, "s0") as xid:
            gid = gid_of(shards, xid=xid)

            outcome = shards.recovery().outcome(str(gid))

            assert outcome is Outcome.ABORTED
            assert shards.decisions() == {"s0": ["abort"]}
            assert shards.recovery().outcome(str(gid.part(uuid4()))) is Outcome.ABORTED

    def test_a_transaction_of_another_cluster_is_unknown(self, shards: Shards) -> None:
        gid = replace(gid_of(shards, xid=3), cluster=uuid4())

        outcome = shards.recovery().outcome(str(gid))

        assert outcome is Outcome.UNKNOWN

    def test_a_transaction_that_is_just_being_decided_is_unknown(self, shards: Shards) -> None:
        outcomes = []

        def ask(_: str) -> None:
            recovery = shards.recovery(lock_seconds=0.05)
            outcomes.append(recovery.outcome(shards.prepared()["s1"][0]))

        shards.fail_at(fail_points.BEFORE_DECISION, ask)
        shards.commit(shards.deposit("s0", "s1"))

        assert outcomes == [Outcome.UNKNOWN]

    def test_another_database_knows_nothing(self, shards: Shards) -> None:
        gid = gid_of(shards, xid=3)

        with shards.connect("s1") as connection:
            assert settle(connection, gid, hooks=shards.hooks) is Outcome.UNKNOWN

    def test_a_restored_copy_of_another_cluster_knows_nothing(self, shards: Shards) -> None:
        gid = gid_of(shards, xid=3)
        shards.ask("s0", "UPDATE shards.identity SET cluster_uuid = gen_random_uuid()")

        with shards.connect("s0") as connection:
            assert settle(connection, gid, hooks=shards.hooks) is Outcome.UNKNOWN

    def test_what_is_no_gid_is_refused(self, shards: Shards) -> None:
        with pytest.raises(ConfigurationError, match="is no gid"):
            shards.recovery().outcome("mine")

    def test_a_connection_in_a_transaction_is_refused(self, shards: Shards) -> None:
        one = shards.enlist("s0").run("SELECT 1")

        with pytest.raises(ConfigurationError, match="idle autocommit connection"):
            settle(one.driver, gid_of(shards, xid=3), hooks=shards.hooks)

    def test_the_sessions_isolation_level_is_no_matter(self, shards: Shards) -> None:
        with shards.connect("s0") as connection:
            connection.execute("SET default_transaction_isolation = 'serializable'")
            connection.execute("SET default_transaction_read_only = on")
            with held_xid(shards, "s0") as xid:
                outcome = settle(connection, gid_of(shards, xid=xid), hooks=shards.hooks)

        assert outcome is Outcome.ABORTED


class TestCleaningUp:
    def test_commit_rows_are_kept_for_the_retention(self, shards: Shards) -> None:
        result = shards.commit(shards.deposit("s0", "s1"))

        shards.recovery().recover()

        assert shards.decisions() == {"s0": ["commit"]}
        assert shards.recovery().outcome(result.gid or "") is Outcome.COMMITTED

    def test_commit_rows_go_after_the_retention(self, shards: Shards) -> None:
        shards.commit(shards.deposit("s0", "s1"))

        report = shards.recovery(decision_retention=AT_ONCE).recover()

        assert report.decisions_removed == 1
        assert shards.decisions() == {}

    def test_a_commit_row_stays_as_long_as_a_part_of_it_may_be_prepared(
        self, shards: Shards, servers: PostgresServers
    ) -> None:
        crash(shards, fail_points.AFTER_DECISION)
        servers.stop(1)
        first = shards.recovery(decision_retention=AT_ONCE).recover()
        servers.start(1)

        second = shards.recovery(decision_retention=AT_ONCE).recover()
        third = shards.recovery(decision_retention=AT_ONCE).recover()

        removed = [report.decisions_removed for report in (first, second, third)]
        assert removed == [0, 0, 1]
        assert shards.amounts() == ALL

    def test_abort_rows_go_when_the_transaction_is_over(self, shards: Shards) -> None:
        with held_xid(shards, "s0") as xid:
            shards.recovery().outcome(str(gid_of(shards, xid=xid)))
            during = shards.recovery().recover().decisions_removed

        assert during == 0
        assert shards.recovery().recover().decisions_removed == 1

    def test_rows_of_a_later_format_are_left_alone(self, shards: Shards) -> None:
        shards.ask(
            "s0",
            "INSERT INTO shards.decisions (gid, decision_xid, outcome, participants, format)"
            " VALUES ('later', '3', 'abort', '{}', 2), ('later still', '3', 'commit', '{}', 2)",
        )

        report = shards.recovery(decision_retention=AT_ONCE).recover()

        assert report.decisions_removed == 0

    def test_a_recovery_of_the_coordinators_own_process_removes_what_waits(
        self, shards: Shards
    ) -> None:
        shards.commit(shards.deposit("s0", "s1"))
        acknowledged = shards.coordinator._wiring.acknowledged

        shards.recovery(acknowledged=acknowledged).recover()

        assert shards.decisions() == {}


def gid_of(shards: Shards, *, xid: int) -> TransactionGid:
    decision = shards.identities.of("s0")
    assert decision is not None
    return TransactionGid(decision.cluster_uuid, uuid4(), decision.shard_uuid, xid)


def raise_interrupt(fail_point: str) -> None:
    raise KeyboardInterrupt(fail_point)


class held_xid:  # noqa: N801  reads as a function
    """Hold a transaction with an xid open on a shard; gives the xid."""

    def __init__(self, shards: Shards, name: str) -> None:
        self._one = shards.enlist(name)

    def __enter__(self) -> int:
        row = self._one.driver.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        return int(row[0])

    def __exit__(self, *error: object) -> None:
        self._one.driver.rollback()
