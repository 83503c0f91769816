"""What transactions leave for those who read, how it is compared, and when it is removed."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from sqlalchemy_shards.connections.fan_out import SequentialFanOut
from sqlalchemy_shards.events import SnapshotsTaken, at
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.gid import parse_transaction
from sqlalchemy_shards.transactions.marker_removal import BATCH, current_snapshot, remove_markers
from sqlalchemy_shards.transactions.snapshots import PeerLag, Snapshot, compare
from tests.databases import libpq_url
from tests.shards.consistent.bank import EACH, SHARDS, Account, Bank, Paused, Rate, disposing
from tests.unit.transactions.snapshot_model import Seen, View, lags

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = timedelta(0)
HALF_DONE = at(fail_points.BEFORE_COMMIT_PREPARED, "s1")
XIDS = st.integers(3, 40)


def uuids(bank: Bank) -> dict[str, UUID]:
    with bank.session() as session, session.begin_consistent():
        pass
    return uuids_known(bank)


def uuids_known(bank: Bank) -> dict[str, UUID]:
    found = {name: bank.cluster.identities.of(name) for name in SHARDS}
    return {name: identity.shard_uuid for name, identity in found.items() if identity}


def all_markers(bank: Bank) -> dict[str, set[tuple[Any, ...]]]:
    """Shard -> (gid, peer, peer's xid)."""
    names = {uuid: name for name, uuid in uuids_known(bank).items()}
    asking = "SELECT gid, peer, peer_xid::text::int FROM shards.markers"
    return {
        name: {(gid, names[peer], xid) for gid, peer, xid in bank.ask(name, asking)}
        for name in SHARDS
    }


class TestLeaving:
    def test_each_participant_tells_of_the_others(self, bank: Bank) -> None:
        uuids(bank)
        bank.move("s0", "s1", "s3")

        markers = all_markers(bank)
        xmins = {
            name: bank.ask(name, f"SELECT xmin::text::int FROM accounts WHERE id = {number}")[0][0]
            for name, number in bank.accounts.items()
        }
        ((gid,),) = {(gid,) for found in markers.values() for gid, _, _ in found}
        assert parse_transaction(gid) is not None
        assert markers == {
            name: {(gid, peer, xmins[peer]) for peer in ("s0", "s1", "s3") if peer != name}
            for name in ("s0", "s1", "s3")
        } | {"s2": set()}

    def test_one_participant_leaves_none(self, bank: Bank) -> None:
        with bank.session() as session:
            session.connection()
            amounts = bank.amounts(session)
            session.execute(
                text("UPDATE accounts SET amount = 5"), execution_options={"shard": "s2"}
            )
            session.commit()

        assert len(amounts) == 4
        assert bank.markers() == {}

    def test_a_write_to_all_copies_leaves_them_everywhere(self, bank: Bank) -> None:
        with bank.session() as session:
            session.get_one(Rate, 1).percent = 8
            session.commit()

        assert bank.markers() == dict.fromkeys(SHARDS, 3)

    def test_what_is_rolled_back_leaves_none(self, bank: Bank) -> None:
        def fail(_: str) -> None:
            raise RuntimeError

        bank.cluster.hooks.fail_points = {fail_points.BEFORE_DECISION: fail}
        with pytest.raises(RuntimeError):
            bank.move("s0", "s1", "s2")

        assert bank.markers() == {}

    def test_a_swallowed_error_rolls_back_as_ever(self, bank: Bank) -> None:
        with bank.session() as session:
            session.add(Rate(id=2, percent=1))
            session.flush()
            driver = session.connection().connection.driver_connection.shard("s2")  # type: ignore[union-attr]
            with pytest.raises(psycopg.errors.DivisionByZero):
                driver.execute("SELECT 1 / 0")

            with pytest.raises(Exception, match="rolled back on every shard"):
                session.commit()

        assert bank.markers() == {}

    def test_a_cluster_without_consistent_reads_leaves_none(
        self, clean_shards: dict[str, str]
    ) -> None:
        with disposing(Bank(clean_shards)) as (off,):
            off.cluster.create_all(Rate.metadata)
            off.fill()
            off.move("s0", "s1")

            assert off.markers() == {}


@contextmanager
def scratch_transaction(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(libpq_url(url)) as connection:
        try:
            yield connection
        finally:
            connection.rollback()


@st.composite
def snapshots_seen(draw: st.DrawFn) -> Seen:
    xmax = draw(XIDS)
    running = draw(st.frozensets(st.integers(3, max(3, xmax - 1)), max_size=6))
    return Seen(xmax, frozenset(xid for xid in running if xid < xmax))


class TestComparing:
    @given(
        peer=snapshots_seen(),
        markers=st.sets(XIDS, max_size=8),
        horizon=st.none() | snapshots_seen(),
        of_another=st.sets(XIDS, max_size=3),
    )
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_what_postgresql_finds_is_what_the_model_finds(
        self,
        bank_urls: dict[str, str],
        peer: Seen,
        markers: set[int],
        horizon: Seen | None,
        of_another: set[int],
    ) -> None:
        uuid = uuid4()
        with scratch_transaction(bank_urls["s0"]) as driver:
            insert = "INSERT INTO shards.markers VALUES (%s, %s::text::xid8, %s)"
            for xid in markers:
                driver.execute(insert, (uuid, str(xid), f"gid {xid}"))
            for xid in of_another:
                driver.execute(insert, (uuid4(), str(xid), "another peer's"))
            driver.execute(
                "INSERT INTO shards.marker_horizons VALUES"
                " (%s, %s::text::pg_snapshot, '1:1:', now())",
                (uuid, None if horizon is None else str(horizon)),
            )

            found = compare(driver, [Snapshot(str(uuid), str(peer), has_markers=True)])

        views = [View(peer, True, xid, None) for xid in markers]
        lagging = {f"gid {view.marker}" for view in views if lags(view, peer)}
        is_too_old = lags(View(peer, True, None, horizon), peer)
        assert bool(found) == bool(lagging or is_too_old)
        assert (PeerLag(str(uuid), None) in found) == is_too_old
        assert {lag.gid for lag in found} - {None} <= lagging

    @pytest.mark.parametrize("is_analyzed", [False, True])
    def test_a_long_list_is_not_read_through(self, bank: Bank, is_analyzed: bool) -> None:
        uuid = uuid4()
        with scratch_transaction(bank.urls["s0"]) as driver:
            # Statistics of a table that was long and is not are neither of the two cases.
            driver.execute("TRUNCATE shards.markers")
            driver.execute(
                "INSERT INTO shards.markers SELECT %s, n::text::xid8, 'gid ' || n"
                " FROM generate_series(1, 100000) AS n",
                (uuid,),
            )
            if is_analyzed:
                driver.execute("ANALYZE shards.markers")
            seen = Snapshot(str(uuid), "5:99990:5,99980", has_markers=True)
            before = rows_read(driver)

            found = compare(driver, [seen])

            assert {lag.gid for lag in found} == {"gid 5", "gid 99980", "gid 99990"}
            assert rows_read(driver) - before <= 3


def rows_read(driver: psycopg.Connection[Any]) -> int:
    """Rows of markers that this transaction has read, through an index or not."""
    row = driver.execute(
        "SELECT pg_stat_get_xact_tuples_returned(i.indexrelid)"
        " + pg_stat_get_xact_tuples_returned(i.indrelid)"
        " FROM pg_index i WHERE i.indrelid = 'shards.markers'::regclass"
    ).fetchone()
    assert row is not None
    return int(row[0])


class TestRemoving:
    def test_they_go_when_their_horizon_has_passed(self, bank: Bank) -> None:
        bank.move("s0", "s1", "s2")
        bank.move("s0", "s3")

        counts = [clean(bank) for _ in range(3)]

        assert counts == [0, 8, 0]
        assert bank.markers() == {}

    def test_they_stay_for_the_time_of_the_horizon(self, bank: Bank) -> None:
        bank.move("s0", "s1")

        counts = [bank.cluster.recover().markers_removed for _ in range(3)]

        assert counts == [0, 0, 0]
        assert bank.markers() == {"s0": 1, "s1": 1}

    def test_they_stay_as_long_as_the_peer_does_not_show_the_transaction(self, bank: Bank) -> None:
        bank.move("s1", "s2")
        with Paused(bank, HALF_DONE, "s0", "s1"):
            for _ in range(3):
                clean(bank)
            meanwhile = bank.markers()
        for _ in range(3):
            clean(bank)

        assert meanwhile == {"s0": 1}
        assert bank.markers() == {}

    def test_they_go_where_all_tables_are_published(self, bank: Bank) -> None:
        uuids(bank)
        bank.ask("s0", "CREATE PUBLICATION everything FOR ALL TABLES")
        try:
            bank.move("s0", "s1")
            for _ in range(2):
                clean(bank)
        finally:
            bank.ask("s0", "DROP PUBLICATION everything")

        assert bank.markers() == {}

    def test_many_go_in_batches(self, bank: Bank) -> None:
        rows = 2 * BATCH + 10
        peer = uuids(bank)["s1"]
        bank.ask(
            "s0",
            f"INSERT INTO shards.markers SELECT '{peer}', '3', 'gid' "
            f"FROM generate_series(1, {rows})",
        )

        counts = [clean(bank) for _ in range(2)]

        assert counts == [0, rows]

    def test_a_shard_that_does_not_answer_keeps_markers_about_it(
        self, bank: Bank, servers: Any
    ) -> None:
        uuids(bank)
        bank.move("s0", "s1", "s2")
        servers.stop(2)
        try:
            for _ in range(3):
                clean(bank, "s0", "s1", "s3")
        finally:
            servers.start(2)

        left = {name: {peer for _, peer, _ in found} for name, found in all_markers(bank).items()}
        assert left == {"s0": {"s2"}, "s1": {"s2"}, "s2": {"s0", "s1"}, "s3": set()}

    def test_a_horizon_never_goes_back(self, bank: Bank) -> None:
        peer = uuids(bank)["s1"]
        horizons = []
        with bank.cluster.connect("s0") as connection, bank.cluster.connect("s1") as other:
            old = current_snapshot(other)
            bank.move("s0", "s1")
            new = current_snapshot(other)
            for seen in (old, new, old, new, new):
                remove_markers(connection, {peer: seen}, horizon=AT_ONCE)
                horizons += bank.ask("s0", "SELECT removed::text FROM shards.marker_horizons")

        assert horizons == [(None,), (old,), (old,), (new,), (new,)]


def clean(bank: Bank, *names: str) -> int:
    """Remove markers as recovery does, with horizons that do not wait for a minute."""
    answering = names or SHARDS
    with ExitStack() as stack:
        connections = {n: stack.enter_context(bank.cluster.connect(n)) for n in answering}
        shown = {n: current_snapshot(connection) for n, connection in connections.items()}
        known = uuids_known(bank)
        return sum(
            remove_markers(
                connections[name],
                {known[n]: seen for n, seen in shown.items() if n != name},
                horizon=AT_ONCE,
            )
            for name in answering
        )


class TestRemovingWhileSomebodyReads:
    @pytest.mark.parametrize("cleanings", [0, 1, 2, 3, 4])
    def test_what_was_committed_between_two_of_its_snapshots_is_noticed(
        self, bank: Bank, bank_urls: dict[str, str], cleanings: int
    ) -> None:
        uuids(bank)
        with disposing(Bank(bank_urls, consistent_reads=True)) as (reader,):
            reader.cluster.fan_out = SequentialFanOut()
            taken: list[SnapshotsTaken] = []
            reader.cluster.hooks.listen(SnapshotsTaken, taken.append)

            def commit_and_clean(_: str) -> None:
                reader.cluster.hooks.fail_points = None
                bank.move("s0", "s1")
                for _ in range(cleanings):
                    clean(bank)

            reader.cluster.hooks.fail_points = {
                at(fail_points.BEFORE_SNAPSHOT, "s0"): commit_and_clean
            }
            with reader.session() as session, session.begin_consistent(["s1", "s2", "s0"]):
                seen = [
                    session.get_one(Account, bank.accounts[name]).amount for name in ("s0", "s1")
                ]

        assert seen == [EACH - 1, EACH + 1]
        assert [each.attempts for each in taken] == [2]
        assert bool(bank.markers()) == (cleanings < 2)

    def test_it_goes_on_reading_what_it_saw(self, bank: Bank, bank_urls: dict[str, str]) -> None:
        uuids(bank)
        with (
            disposing(Bank(bank_urls, consistent_reads=True)) as (reader,),
            reader.session() as session,
            session.begin_consistent(),
        ):
            for _ in range(4):
                bank.move("s0", "s1")
                clean(bank)

            amounts = reader.amounts(session)

        assert amounts == dict.fromkeys(SHARDS, EACH)
