"""What a consistent transaction sees, refuses and leaves."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, create_engine, event, func, select, text, update
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session, sessionmaker

from sqlalchemy_shards import ShardedSession, Timeouts
from sqlalchemy_shards.errors import (
    ConfigurationError,
    SnapshotsDiffer,
    TransactionAborted,
    UnknownShard,
    UnsupportedStatement,
)
from sqlalchemy_shards.events import SnapshotsTaken, TransactionRecovered, at
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.consistency import HELP_SECONDS
from tests.shards.consistent.bank import (
    DEADLINE_SECONDS,
    EACH,
    SHARDS,
    TOTAL,
    Account,
    Bank,
    Paused,
    Rate,
    disposing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HALF_DONE = at(fail_points.BEFORE_COMMIT_PREPARED, "s1")
"""The decision shard shows the transaction, and no other participant does."""


@pytest.fixture
def other(bank: Bank, bank_urls: dict[str, str]) -> Iterator[Bank]:
    """The same bank in another process, so to speak."""
    with disposing(Bank(bank_urls, consistent_reads=True)) as (other,):
        yield other


def taken_by(bank: Bank) -> list[SnapshotsTaken]:
    taken: list[SnapshotsTaken] = []
    bank.cluster.hooks.listen(SnapshotsTaken, taken.append)
    return taken


class TestSeeing:
    def test_without_it_half_a_transaction_is_seen(self, bank: Bank, other: Bank) -> None:
        with Paused(bank, HALF_DONE, "s0", "s1", "s2"), other.session() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})

            total = session.scalar(TOTAL)

        assert total == other.total - 2

    def test_with_it_the_whole_is_seen(self, bank: Bank, other: Bank) -> None:
        with (
            Paused(bank, HALF_DONE, "s0", "s1", "s2"),
            other.session() as session,
            session.begin_consistent(),
        ):
            amounts = other.amounts(session)

        assert amounts == {"s0": EACH - 2, "s1": EACH + 1, "s2": EACH + 1, "s3": EACH}

    def test_what_is_not_decided_is_not_seen(self, bank: Bank, other: Bank) -> None:
        taken = taken_by(other)
        with (
            Paused(bank, fail_points.BEFORE_DECISION, "s0", "s1", "s2"),
            other.session() as session,
            session.begin_consistent(),
        ):
            amounts = other.amounts(session)

        assert amounts == dict.fromkeys(SHARDS, EACH)
        assert [each.attempts for each in taken] == [1]

    def test_what_is_committed_later_is_not_seen(self, bank: Bank, other: Bank) -> None:
        with other.session() as session, session.begin_consistent():
            bank.move("s0", "s1")
            bank.move("s2", "s3")

            amounts = other.amounts(session)
            total = session.scalar(TOTAL)

        assert amounts == dict.fromkeys(SHARDS, EACH)
        assert total == other.total

    def test_what_was_committed_before_is_seen(self, bank: Bank, other: Bank) -> None:
        for number in range(1, 6):
            bank.move("s3", "s1", "s0")
            with other.session() as session, session.begin_consistent():
                amounts = other.amounts(session)

            assert amounts == {
                "s0": EACH + number,
                "s1": EACH + number,
                "s2": EACH,
                "s3": EACH - 2 * number,
            }

    def test_a_write_to_all_copies_is_seen_everywhere_or_nowhere(
        self, bank: Bank, other: Bank
    ) -> None:
        per_shard = select(func.max(Rate.percent))

        def write() -> None:
            with bank.session() as session:
                session.execute(update(Rate).values(percent=7))
                session.commit()

        reached, go = threading.Event(), threading.Event()

        def stop(_: str) -> None:
            reached.set()
            go.wait(DEADLINE_SECONDS)

        bank.cluster.hooks.fail_points = {at(fail_points.BEFORE_COMMIT_PREPARED, "s2"): stop}
        thread = threading.Thread(target=write)
        thread.start()
        assert reached.wait(DEADLINE_SECONDS)
        with other.session() as session, session.begin_consistent():
            percents = [
                session.scalar(per_shard, execution_options={"shard": name}) for name in SHARDS
            ]
        go.set()
        thread.join(DEADLINE_SECONDS)

        assert percents == [7, 7, 7, 7]

    def test_its_own_writes_are_seen_and_committed(self, bank: Bank, other: Bank) -> None:
        with other.session() as session, session.begin_consistent():
            session.get_one(Account, other.accounts["s0"]).amount -= 10
            session.get_one(Account, other.accounts["s1"]).amount += 10
            session.flush()

            within = session.scalar(TOTAL)
        with bank.session() as session:
            amounts = bank.amounts(session)

        assert within == other.total
        assert amounts == {"s0": EACH - 10, "s1": EACH + 10, "s2": EACH, "s3": EACH}

    def test_a_row_that_was_changed_since_cannot_be_written(self, bank: Bank, other: Bank) -> None:
        with other.session() as session:
            session.begin_consistent()
            bank.move("s0", "s1")

            with pytest.raises(DBAPIError) as caught:
                session.execute(
                    update(Account).where(Account.id == bank.accounts["s0"]).values(amount=1)
                )

        assert caught.value.orig.sqlstate == "40001"

    def test_savepoints_are_as_ever(self, bank: Bank, other: Bank) -> None:
        with other.session() as session, session.begin_consistent():
            with session.begin_nested() as savepoint:
                session.get_one(Account, bank.accounts["s2"]).amount = 0
                session.flush()
                bank.move("s0", "s1")
                savepoint.rollback()

            amounts = other.amounts(session)

        assert amounts == dict.fromkeys(SHARDS, EACH)

    def test_settings_made_before_hold(self, bank: Bank, other: Bank) -> None:
        engine = other.cluster.engine.execution_options()
        taken = taken_by(other)

        @event.listens_for(engine, "begin")
        def set_name(connection: object) -> None:
            cursor = connection.connection.driver_connection  # type: ignore[attr-defined]
            cursor.set_for_transaction("SELECT set_config('shards.test', 'set', true)", None)

        with (
            Paused(bank, HALF_DONE, "s0", "s1", "s2"),
            ShardedSession(bind=engine) as session,
            session.begin_consistent(),
        ):
            asking = text("SELECT current_setting('shards.test', true)")
            settings = [session.scalar(asking, execution_options={"shard": n}) for n in SHARDS]
            total = session.scalar(TOTAL)

        assert settings == ["set"] * 4
        assert total == other.total
        assert taken[0].attempts > 1


class TestSwitchedOnForASession:
    def test_every_transaction_is_consistent(self, bank: Bank, other: Bank) -> None:
        make = sessionmaker(class_=ShardedSession, cluster=other.cluster, consistent_reads=True)
        taken = taken_by(other)
        with make() as session:
            with Paused(bank, HALF_DONE, "s0", "s1", "s2"):
                first = session.scalar(TOTAL)
                session.commit()
            with session.begin_nested():
                second = session.scalar(TOTAL)
            session.commit()

        assert (first, second) == (other.total, other.total)
        assert len(taken) == 2

    def test_begin_consistent_may_name_shards(self, bank: Bank, other: Bank) -> None:
        taken = taken_by(other)
        with other.session(consistent_reads=True) as session, session.begin_consistent(["s1"]):
            session.get(Account, bank.accounts["s1"])
        pair = ["s1", "s2"]
        with other.session(consistent_reads=True) as session, session.begin_consistent(pair):
            session.get(Account, bank.accounts["s2"])

        assert [each.shards for each in taken] == [("s1", "s2")]

    def test_after_an_error_nothing_is_read_until_a_rollback(
        self, bank: Bank, bank_urls: dict[str, str]
    ) -> None:
        with (
            disposing(
                Bank(bank_urls, consistent_reads=True, timeouts=Timeouts(consistent_seconds=0.01))
            ) as (hasty,),
            hasty.session(consistent_reads=True) as session,
        ):
            with Paused(bank, HALF_DONE, "s0", "s1", "s2"):
                with pytest.raises(SnapshotsDiffer):
                    session.scalar(TOTAL)
                with pytest.raises(DBAPIError, match="current transaction is aborted"):
                    session.scalar(TOTAL)
            session.rollback()

            total = session.scalar(TOTAL)

        assert total == bank.total


class TestWaiting:
    def test_only_what_lags_is_taken_anew(self, bank: Bank, other: Bank) -> None:
        began = text("SELECT extract(epoch FROM now())::float8")
        found_at: list[float] = []
        paused = Paused(bank, HALF_DONE, "s0", "s1", "s2")

        def let_go(_: str) -> None:
            found_at.append(time.time())
            paused.let_go()

        other.cluster.hooks.fail_points = {fail_points.SNAPSHOTS_LAG: let_go}
        with paused, other.session() as session, session.begin_consistent():
            began_at = {n: session.scalar(began, execution_options={"shard": n}) for n in SHARDS}
            total = session.scalar(TOTAL)

        assert total == other.total
        assert len(found_at) == 1
        assert {n for n, at_ in began_at.items() if at_ > found_at[0]} == {"s1", "s2"}

    def test_a_transaction_that_lags_for_long_is_finished(self, bank: Bank, other: Bank) -> None:
        recovered: list[TransactionRecovered] = []
        other.cluster.hooks.listen(TransactionRecovered, recovered.append)
        taken = taken_by(other)
        with (
            Paused(bank, HALF_DONE, "s0", "s1", "s2"),
            other.session() as session,
            session.begin_consistent(),
        ):
            total = session.scalar(TOTAL)

        assert total == other.total
        assert {(each.shard, each.outcome) for each in recovered} <= {
            ("s1", "committed"),
            ("s2", "committed"),
        }
        assert recovered
        assert taken[0].seconds >= HELP_SECONDS

    def test_what_stays_half_is_an_error_that_names_it(
        self, bank: Bank, bank_urls: dict[str, str]
    ) -> None:
        with (
            Paused(bank, HALF_DONE, "s0", "s1", "s2"),
            disposing(
                Bank(bank_urls, consistent_reads=True, timeouts=Timeouts(consistent_seconds=0.05))
            ) as (hasty,),
            hasty.session() as session,
        ):
            with pytest.raises(SnapshotsDiffer) as caught:
                session.begin_consistent()
            is_over = not session.in_transaction()
            gid = hasty.cluster.in_doubt()[0].gid

        assert isinstance(caught.value, TransactionAborted)
        assert caught.value.is_retryable
        assert set(caught.value.shards) <= {"s1", "s2"}
        assert caught.value.gid == gid
        assert is_over


class TestWithoutAShardedSession:
    def test_a_connection_begins_with_a_call_of_its_own(self, bank: Bank, other: Bank) -> None:
        with (
            Paused(bank, HALF_DONE, "s0", "s1", "s2"),
            other.cluster.engine.begin() as connection,
        ):
            connection.connection.driver_connection.begin_consistent()  # type: ignore[union-attr]
            total = connection.scalar(TOTAL)

        assert total == other.total

    def test_a_plain_session_has_a_listener(self, bank: Bank, other: Bank) -> None:
        make = sessionmaker(other.cluster.engine)

        @event.listens_for(make, "after_begin")
        def begin(session: Session, transaction: object, connection: Connection) -> None:
            connection.connection.driver_connection.begin_consistent()  # type: ignore[union-attr]

        with Paused(bank, HALF_DONE, "s0", "s1", "s2"), make() as session:
            total = session.scalar(TOTAL)

        assert total == other.total


class TestRefusing:
    def test_a_transaction_that_has_begun(self, bank: Bank) -> None:
        with bank.session() as session:
            session.get(Account, bank.accounts["s1"])

            with pytest.raises(InvalidRequestError, match="already begun"):
                session.begin_consistent()

    def test_a_connection_whose_transaction_has_begun(self, bank: Bank) -> None:
        with bank.cluster.engine.connect() as connection:
            connection.execute(select(Account.amount).where(Account.id == bank.accounts["s1"]))
            session = ShardedSession(bind=connection)

            with pytest.raises(UnsupportedStatement, match="has begun on shards 's1'"):
                session.begin_consistent()

    @pytest.mark.parametrize("level", ["SERIALIZABLE", "AUTOCOMMIT"])
    def test_another_isolation_level(self, bank: Bank, level: str) -> None:
        engine = bank.cluster.engine.execution_options(isolation_level=level)
        with ShardedSession(bind=engine) as session:
            with pytest.raises(UnsupportedStatement, match=level):
                session.begin_consistent()

            assert not session.in_transaction()

    def test_a_shard_that_was_not_named(self, bank: Bank) -> None:
        with bank.session() as session, session.begin_consistent(shards=["s0", "s2"]):
            session.get(Account, bank.accounts["s2"])

            with pytest.raises(UnsupportedStatement, match="'s1' is not among"):
                session.get(Account, bank.accounts["s1"])

    def test_a_shard_that_there_is_not(self, bank: Bank) -> None:
        with bank.session() as session, pytest.raises(UnknownShard, match="'s9'"):
            session.begin_consistent(shards=["s0", "s9"])

    def test_the_isolation_level_is_told_and_ends_with_the_transaction(self, bank: Bank) -> None:
        with bank.session() as session:
            with session.begin_consistent():
                within = session.connection().get_isolation_level()
                on_shards = shown_levels(session)
            after = shown_levels(session)

        assert within == "REPEATABLE READ"
        assert on_shards == {"repeatable read"}
        assert after == {"read committed"}


def shown_levels(session: Session) -> set[str]:
    showing = text("SHOW transaction_isolation")
    return {
        session.connection().execute(showing, execution_options={"shard": name}).scalar_one()
        for name in SHARDS
    }


class TestOneShard:
    def test_a_cluster_of_one_shard_needs_no_markers(self, clean_shards: dict[str, str]) -> None:
        with disposing(Bank({"s0": clean_shards["s0"]})) as (alone,):
            alone.cluster.create_all(Account.metadata)
            with alone.session() as session, session.begin_consistent():
                level = session.connection().get_isolation_level()
                session.scalar(TOTAL)

        assert level == "REPEATABLE READ"


class TestSwitching:
    def test_a_cluster_that_has_it_switched_off_refuses(self, clean_shards: dict[str, str]) -> None:
        with disposing(Bank(clean_shards)) as (off,):
            off.cluster.bootstrap()

            with pytest.raises(ConfigurationError, match="switched off"):
                off.session(consistent_reads=True)
            with off.session() as session, pytest.raises(ConfigurationError, match="bootstrap"):
                session.begin_consistent()

    def test_shards_that_have_not_recorded_it_are_refused(
        self, clean_shards: dict[str, str]
    ) -> None:
        with disposing(Bank(clean_shards), Bank(clean_shards, consistent_reads=True)) as (off, on):
            off.cluster.bootstrap()
            with on.session() as session, pytest.raises(ConfigurationError, match="not recorded"):
                session.begin_consistent()
            on.cluster.bootstrap()
            with on.session() as session, session.begin_consistent():
                recorded = session.connection().get_isolation_level()

        assert recorded == "REPEATABLE READ"

    def test_a_database_without_the_schema_is_refused(self, clean_shards: dict[str, str]) -> None:
        with (
            disposing(Bank(clean_shards, consistent_reads=True)) as (on,),
            on.session() as session,
            pytest.raises(ConfigurationError, match="has not recorded"),
        ):
            session.begin_consistent()

    def test_a_process_that_leaves_no_markers_is_refused(
        self, bank: Bank, bank_urls: dict[str, str]
    ) -> None:
        with (
            disposing(Bank(bank_urls)) as (off,),
            off.session() as session,
            pytest.raises(ConfigurationError, match="seen in halves"),
        ):
            session.get(Account, bank.accounts["s1"])

    def test_a_process_that_was_connected_before_cannot_commit_on_several_shards(
        self, clean_shards: dict[str, str]
    ) -> None:
        with disposing(Bank(clean_shards), Bank(clean_shards, consistent_reads=True)) as (off, on):
            off.cluster.create_all(Account.metadata)
            with off.session() as session:
                session.add_all(Account(id=n, amount=EACH) for n in off.accounts.values())
                session.commit()
            on.cluster.bootstrap()

            with pytest.raises(ConfigurationError, match="has consistent reads since"):
                off.move("s0", "s1")
            with on.session() as session, session.begin_consistent():
                amounts = on.amounts(session)

        assert amounts == dict.fromkeys(SHARDS, EACH)

    def test_it_is_read_from_the_file(self, bank: Bank, tmp_path: object) -> None:
        lines = ["[cluster]", 'name = "bank"', "consistent_reads = true", "[shards]"]
        lines += [f'{name} = "{url}"' for name, url in bank.urls.items()]
        lines += ["[keyspaces.default]", 'partitioner = "hash"', "buckets = 16"]
        path = tmp_path / "shards.toml"  # type: ignore[operator]
        path.write_text("\n".join(lines))
        engine = create_engine(f"postgresql+shards:///{path}")

        with ShardedSession(bind=engine) as session, session.begin_consistent():
            total = session.scalar(TOTAL)
        engine.dialect.cluster.dispose()

        assert total == bank.total
