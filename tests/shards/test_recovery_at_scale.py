"""Recovery where there is much to do, where a shard hangs, and where a part is somebody else's."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sqlalchemy_shards import Timeouts, create_cluster
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions import inventory
from sqlalchemy_shards.transactions.cleaning import ROWS_AT_ONCE, ROWS_PER_RUN
from sqlalchemy_shards.transactions.gid import TransactionGid
from tests.shards.distributed import Shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg

FILL = """
INSERT INTO shards.decisions (gid, decision_xid, outcome, participants, decided_at, format)
SELECT 'shards/1/' || md5(i::text), '700', 'commit', ARRAY['{shard}'], {decided_at}, 1
FROM generate_series(1, {rows}) AS i
"""


@pytest.fixture
def shards(clean_shards: dict[str, str]) -> Iterator[Shards]:
    with Shards(clean_shards) as shards:
        yield shards.create()


@contextmanager
def a_server_that_never_answers() -> Iterator[str]:
    """Connection parameters of a server that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"host=127.0.0.1 port={listening.getsockname()[1]} dbname=x user=x"


def leave_prepared(shards: Shards, number: int, *, committed: bool) -> list[str]:
    """Leave transactions that s0 decided, prepared on s1 and s2, as crashes would."""
    uuids = {name: shards.identities.of(name) for name in ("s0", "s1", "s2")}
    decision = uuids["s0"]
    assert decision is not None
    row = "INSERT INTO shards.decisions VALUES (%s, '3', 'commit', %s, now(), 1)"
    gids = []
    with shards.connect("s0") as s0, shards.connect("s1") as s1, shards.connect("s2") as s2:
        for _ in range(number):
            gid = TransactionGid(decision.cluster_uuid, uuid4(), decision.shard_uuid, 3)
            for name, connection in (("s1", s1), ("s2", s2)):
                identity = uuids[name]
                assert identity is not None
                prepare = f"PREPARE TRANSACTION '{gid.part(identity.shard_uuid)}'"
                connection.execute("BEGIN; INSERT INTO account VALUES (nextval('ids'), 1)")
                connection.execute(prepare.encode())
            if committed:
                participants = [str(i.shard_uuid) for i in uuids.values() if i is not None]
                s0.execute(row, (str(gid), participants))
            gids.append(str(gid))
    return gids


class TestMany:
    def test_all_that_is_in_doubt_is_settled_and_finished(self, shards: Shards) -> None:
        shards.everywhere("CREATE SEQUENCE ids START 100")
        committed = leave_prepared(shards, 20, committed=True)
        aborted = leave_prepared(shards, 10, committed=False)

        report = shards.recovery().recover()

        assert report.is_clean
        told = {(part.gid, part.shard): part.outcome for part in report.finished}
        assert told == {
            **{(gid, shard): "committed" for gid in committed for shard in ("s1", "s2")},
            **{(gid, shard): "aborted" for gid in aborted for shard in ("s1", "s2")},
        }
        assert shards.prepared() == {}
        assert shards.ask("s1", "SELECT count(*) FROM account") == [(21,)]

    def test_it_costs_one_round_trip_for_each_part_and_few_besides(
        self, shards: Shards, tmp_path: Path
    ) -> None:
        shards.everywhere("CREATE SEQUENCE ids START 100")
        leave_prepared(shards, 25, committed=True)

        with traced(shards, "s1", tmp_path / "trace") as trace:
            shards.recovery().recover()

        sent = [line for line in trace() if "\tF\t" in line]
        assert sum("COMMIT PREPARED 'shards" in line for line in sent) == 25
        assert sum("\tQuery\t" in line or "\tSync" in line for line in sent) < 25 + 20

    def test_a_transaction_whose_deciding_one_may_live_is_settled_among_many(
        self, shards: Shards
    ) -> None:
        shards.everywhere("CREATE SEQUENCE ids START 100")
        leave_prepared(shards, 5, committed=True)
        held = shards.enlist("s0").run("SELECT pg_current_xact_id()")
        xid = held.driver.execute("SELECT pg_current_xact_id()::text").fetchone()
        identity = shards.identities.of("s1")
        decision = shards.identities.of("s0")
        assert xid is not None
        assert identity is not None
        assert decision is not None
        gid = TransactionGid(decision.cluster_uuid, uuid4(), decision.shard_uuid, int(xid[0]))
        young = shards.enlist("s1").run("INSERT INTO account VALUES (2, 1)")
        young.run(f"PREPARE TRANSACTION '{gid.part(identity.shard_uuid)}'")

        report = shards.recovery().recover()
        held.driver.rollback()

        assert report.is_clean
        outcomes = {part.gid: part.outcome for part in report.finished}
        assert outcomes[str(gid)] == "aborted"
        assert sorted(outcomes.values()).count("committed") == 5
        assert shards.decisions()["s0"].count("abort") == 1


class TestHanging:
    def test_a_shard_that_hangs_holds_up_the_others_for_no_longer_than_one_step(
        self, shards: Shards
    ) -> None:
        shards.everywhere("CREATE SEQUENCE ids START 100")
        leave_prepared(shards, 2, committed=True)
        with a_server_that_never_answers() as hanging:
            shards.conninfo["s3"] = hanging
            started = time.monotonic()
            report = shards.recovery(step_seconds=1.0).recover()
            seconds = time.monotonic() - started

        assert set(report.unreachable) == {"s3"}
        assert "deadline" in str(report.unreachable["s3"])
        assert len(report.finished) == 4
        assert seconds < 15

    def test_a_cluster_says_how_long_a_step_is(self, clean_shards: dict[str, str]) -> None:
        with a_server_that_never_answers() as hanging:
            port = conninfo_to_dict(hanging)["port"]
            urls = {**clean_shards, "s3": f"postgresql://x@127.0.0.1:{port}/x"}
            cluster = create_cluster(urls, timeouts=Timeouts(recovery_seconds=0.5))
            report = cluster.recover()
            cluster.dispose()

        assert "0.5 s" in str(report.unreachable["s3"])

    def test_the_oldest_part_of_each_shard_is_told(self, shards: Shards) -> None:
        shards.everywhere("CREATE SEQUENCE ids START 100")
        leave_prepared(shards, 2, committed=True)

        report = shards.recovery().recover(older_than=timedelta(hours=1))
        after = shards.recovery().recover()

        assert report.oldest["s0"] is None
        assert report.oldest["s1"] is not None
        assert timedelta(0) < report.oldest["s1"] < timedelta(hours=1)
        assert after.oldest == {"s0": None, "s1": None, "s2": None, "s3": None}


class TestOwners:
    def test_a_part_is_finished_as_the_role_that_prepared_it(self, shards: Shards) -> None:
        shards.everywhere("CREATE SEQUENCE ids START 100")
        with role(shards, "shards_owner"):
            for name in ("s0", "s1", "s2"):
                shards.ask(name, "GRANT ALL ON account, shards.decisions TO shards_owner")
                shards.ask(name, "GRANT ALL ON SEQUENCE ids TO shards_owner")
                shards.ask(name, "GRANT USAGE ON SCHEMA shards TO shards_owner")
            with as_role(shards, "shards_owner"):
                leave_prepared(shards, 2, committed=True)
            owners = shards.ask("s1", "SELECT owner FROM pg_prepared_xacts")

            report = shards.recovery().recover()

        assert set(owners) == {("shards_owner",)}
        assert report.is_clean
        assert len(report.finished) == 4

    def test_a_part_of_a_role_that_one_may_not_become_is_reported_with_its_owner(
        self, shards: Shards
    ) -> None:
        shards.everywhere("CREATE SEQUENCE ids START 100")
        leave_prepared(shards, 1, committed=True)
        with role(shards, "shards_stranger"):
            for name in ("s0", "s1", "s2", "s3"):
                shards.ask(name, "GRANT USAGE ON SCHEMA shards TO shards_stranger")
                shards.ask(name, "GRANT ALL ON ALL TABLES IN SCHEMA shards TO shards_stranger")
            with as_role(shards, "shards_stranger"):
                report = shards.recovery().recover()
            left = shards.prepared()

        assert not report.is_clean
        assert {shard for _, shard in report.failures} == {"s1", "s2"}
        for error in report.failures.values():
            assert isinstance(error, ConfigurationError)
            assert "which 'shards_stranger' may not become" in str(error)
        assert report.oldest["s1"] is not None
        assert set(left) == {"s1", "s2"}


class TestSurvey:
    def test_it_tells_what_is_prepared_and_by_whom_though_a_shard_is_down(
        self, shards: Shards
    ) -> None:
        shards.everywhere("CREATE SEQUENCE ids START 100")
        [gid] = leave_prepared(shards, 1, committed=True)
        shards.enlist("s1").run("CREATE TABLE f ()").run("PREPARE TRANSACTION 'of somebody'")
        with a_server_that_never_answers() as hanging:
            shards.conninfo["s3"] = hanging
            survey = shards.recovery(step_seconds=1.0).survey()

        left = shards.ask("s1", "SELECT gid FROM pg_prepared_xacts")

        [listed] = survey.in_doubt
        assert (listed.gid, listed.decision_shard) == (gid, "s0")
        assert timedelta(0) < listed.age < timedelta(hours=1)
        [(shard, foreign)] = survey.foreign
        assert (shard, foreign.gid) == ("s1", "of somebody")
        assert set(survey.unreachable) == {"s3"}
        assert len(left) == 2


class TestManyRows:
    def test_expired_rows_are_removed_page_by_page(self, shards: Shards) -> None:
        fill(shards, rows=2 * ROWS_AT_ONCE + 5, age="2 days")

        report = shards.recovery().recover()

        assert report.decisions_removed == 2 * ROWS_AT_ONCE + 5
        assert shards.decisions() == {}

    def test_a_run_looks_through_a_bounded_number_and_the_next_goes_on_behind(
        self, shards: Shards
    ) -> None:
        fill(shards, rows=ROWS_PER_RUN + ROWS_AT_ONCE, age="1 hour")
        last = "(SELECT max(gid) FROM shards.decisions)"
        old = "UPDATE shards.decisions SET decided_at = now() - interval '2 days'"
        shards.ask("s0", f"{old} WHERE gid = {last}")
        recovery = shards.recovery()

        runs = [recovery.recover().decisions_removed for _ in range(3)]

        assert sum(runs) == 1
        assert runs[0] == 0

    def test_no_statement_reads_a_large_table_from_end_to_end(self, shards: Shards) -> None:
        fill(shards, rows=ROWS_PER_RUN, age="1 hour")
        shards.ask("s0", "ANALYZE shards.decisions")
        parameters = {"retention": timedelta(days=1), "after": "shards/1/8", "rows": 10}
        with shards.connect("s0") as connection:
            page = explain(connection, inventory._PAGE, {**parameters, "format": 1})
            remove = explain(connection, inventory._REMOVE, ([f"shards/1/{i}" for i in range(9)],))

        assert "Index Scan using decisions_pkey" in page
        assert "Seq Scan on decisions" not in page + remove

    def test_a_later_run_begins_again_from_the_first_row(self, shards: Shards) -> None:
        fill(shards, rows=5, age="1 hour")
        recovery = shards.recovery()
        recovery.recover()
        shards.ask("s0", "UPDATE shards.decisions SET decided_at = now() - interval '2 days'")

        report = recovery.recover()

        assert report.decisions_removed == 5


def fill(shards: Shards, *, rows: int, age: str) -> None:
    identity = shards.identities.of("s1")
    assert identity is not None
    decided_at = f"now() - interval '{age}'"
    shards.ask("s0", FILL.format(shard=identity.shard_uuid, rows=rows, decided_at=decided_at))


def explain(connection: psycopg.Connection[Any], statement: bytes, parameters: Any) -> str:
    rows = connection.execute(b"EXPLAIN " + statement, parameters).fetchall()
    return "\n".join(line for (line,) in rows)


@contextmanager
def traced(shards: Shards, name: str, file: Path) -> Iterator[Callable[[], list[str]]]:
    """Let libpq write down what the connections to one shard send and get."""
    connect = shards.connect

    @contextmanager
    def traced_connect(shard: str) -> Iterator[Any]:
        with connect(shard) as connection:
            if shard == name:
                connection.pgconn.trace(out.fileno())
            yield connection

    with file.open("w") as out:
        shards.connect = traced_connect  # type: ignore[method-assign]
        try:
            yield lambda: file.read_text(errors="replace").splitlines()
        finally:
            shards.connect = connect  # type: ignore[method-assign]


@contextmanager
def role(shards: Shards, name: str) -> Iterator[None]:
    """A role without rights on every server."""
    shards.everywhere(f"DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN OTHERS THEN END $$")
    try:
        yield
    finally:
        for prepared_on, gids in shards.prepared().items():
            for gid in gids:
                shards.ask(prepared_on, f"ROLLBACK PREPARED '{gid}'")
        shards.everywhere(f"DROP OWNED BY {name}; DROP ROLE {name}")


@contextmanager
def as_role(shards: Shards, name: str) -> Iterator[None]:
    """New connections are those of this role."""
    before = shards.conninfo
    shards.conninfo = {s: make_conninfo(text, user=name) for s, text in before.items()}
    try:
        yield
    finally:
        shards.conninfo = before
