"""Each fault that `Cluster.check()` knows, made for real on a real server, told, and mended."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Enum,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    make_url,
)

from sqlalchemy_shards import Cluster, create_cluster, global_table, reference_table, shard_table
from sqlalchemy_shards.catalog.identity import read_identity
from sqlalchemy_shards.cluster.readiness import database as database_findings
from sqlalchemy_shards.cluster.readiness.report import Report, Status
from sqlalchemy_shards.testing.servers import PostgresServers
from sqlalchemy_shards.transactions.gid import TransactionGid
from tests.databases import ask, libpq_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TWO = ("s0", "s1")


@pytest.fixture
def two(clean_shards: dict[str, str]) -> dict[str, str]:
    """URLs of two empty databases of servers of their own, called like their shards."""
    return {name: clean_shards[name] for name in TWO}


@pytest.fixture
def metadata() -> MetaData:
    metadata = MetaData()
    shard_table(
        Table(
            "users",
            metadata,
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("name", String(20), nullable=False),
            Column("balance", Numeric(10, 2)),
            Column("mood", Enum("glad", "sad", name="mood")),
            Index("users_by_name", "name"),
            UniqueConstraint("id", "name"),
        )
    )
    reference_table(Table("countries", metadata, Column("code", Text, primary_key=True)))
    global_table(Table("flags", metadata, Column("id", Integer, primary_key=True)))
    return metadata


@contextmanager
def cluster_of(urls: Mapping[str, str], **arguments: Any) -> Iterator[Cluster]:
    cluster = create_cluster(urls, name="shop", **arguments)
    try:
        yield cluster
    finally:
        cluster.dispose()


def check(urls: Mapping[str, str], metadata: MetaData | None = None, **arguments: Any) -> Report:
    """What a process that starts now would be told."""
    with cluster_of(urls, **arguments) as cluster:
        return cluster.check(metadata)


def set_up(urls: Mapping[str, str], metadata: MetaData | None = None) -> None:
    with cluster_of(urls) as cluster:
        cluster.create_all(metadata or MetaData())


def said(report: Report, status: Status) -> dict[tuple[str | None, str], str]:
    """(Shard, subject) -> what was found, of the findings with a status."""
    return {
        (each.shard, each.subject): each.found for each in report.findings if each.status is status
    }


def faults(report: Report) -> dict[tuple[str | None, str], str]:
    assert all(each.advice for each in (*report.failures, *report.warnings))
    return said(report, Status.FAILED) | said(report, Status.WARNING)


# -- servers -----------------------------------------------------------------------------------


def test_settings_that_only_a_restart_changes() -> None:
    settings = {"wal_level": "replica", "max_prepared_transactions": 5, "max_connections": 20}
    with PostgresServers(1, settings=settings) as servers:
        ask(servers.url(0), "CREATE DATABASE other")
        urls = {"s0": servers.url(0), "s1": servers.url(0, "other")}
        set_up(urls)

        told = faults(check(urls))
        mended = faults(check(urls, pool_size=1, max_overflow=0))

    assert told == {
        (shard, subject): found
        for shard in TWO
        for subject, found in {
            "two-phase commit": "max_prepared_transactions is 5, and this process alone may have "
            "30 transactions there",
            "connections": "this process's pools may open 30 for s0 and s1, the server takes 17",
            "write-ahead log": "wal_level is replica: no data can be moved away from this shard "
            "while the application runs",
        }.items()
    }
    assert {subject for _, subject in mended} == {"write-ahead log"}


@pytest.mark.parametrize(
    ("spoil", "mend", "where", "found"),
    [
        (
            "SET default_transaction_read_only = on",
            "RESET default_transaction_read_only",
            ("s1", "server"),
            "its transactions are read-only",
        ),
        (
            "SET TimeZone = 'Asia/Kolkata'",
            "RESET TimeZone",
            (None, "settings"),
            "TimeZone: UTC on s0, Asia/Kolkata on s1",
        ),
        (
            "SET DateStyle = 'German'",
            "RESET DateStyle",
            (None, "settings"),
            "German, DMY on s1",
        ),
        (
            "CONNECTION LIMIT 5",
            "CONNECTION LIMIT -1",
            ("s1", "connections"),
            "may open 15, the server takes 5",
        ),
    ],
)
def test_settings_of_a_database(
    two: dict[str, str], spoil: str, mend: str, where: tuple[str | None, str], found: str
) -> None:
    set_up(two)
    ask(two["s0"], "ALTER DATABASE s0 SET TimeZone = 'UTC'")
    ask(two["s1"], "ALTER DATABASE s1 SET TimeZone = 'UTC'")
    try:
        ask(two["s1"], f"ALTER DATABASE s1 {spoil}")
        told = faults(check(two))
    finally:
        ask(two["s1"], f"BEGIN READ WRITE; ALTER DATABASE s1 {mend}; COMMIT")
        after = check(two)
        for name, url in two.items():
            ask(url, f"ALTER DATABASE {name} RESET TimeZone")

    assert set(told) == {where}
    assert found in told[where]
    assert where not in faults(after) or mend == "RESET TimeZone"


def test_a_pool_without_a_bound(two: dict[str, str]) -> None:
    set_up(two)

    told = faults(check(two, max_overflow=-1))

    assert set(told) == {(shard, "connections") for shard in TWO}
    assert faults(check(two)) == {}


def clock_of(url: str, definition: str) -> None:
    """Give one database another ``clock_timestamp()``, as if its server's clock were wrong."""
    ask(
        url,
        "SET allow_system_table_mods = on; CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() "
        f"RETURNS timestamptz VOLATILE STRICT PARALLEL SAFE {definition}",
    )


def test_a_clock_that_is_wrong(two: dict[str, str]) -> None:
    set_up(two)
    try:
        clock_of(two["s1"], "LANGUAGE sql AS 'SELECT pg_catalog.now() - interval ''3 h'''")
        told = faults(check(two))
    finally:
        clock_of(two["s1"], "LANGUAGE internal AS 'clock_timestamp'")

    assert told == {(None, "clocks"): "s1 is 3 h behind this machine"}
    assert faults(check(two)) == {}


# -- databases ---------------------------------------------------------------------------------


def test_another_encoding(two: dict[str, str]) -> None:
    url = make_url(two["s1"]).set(database="latin").render_as_string(hide_password=False)
    ask(
        two["s1"],
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    try:
        set_up({"s0": two["s0"], "s1": url})
        told = faults(check({"s0": two["s0"], "s1": url}))
    finally:
        ask(two["s1"], "DROP DATABASE latin WITH (FORCE)")

    assert list(told) == [(None, "text")]
    assert "encoding: UTF8 on s0, LATIN1 on s1" in told[None, "text"]


def test_collations_of_another_version(two: dict[str, str]) -> None:
    icu = "LOCALE_PROVIDER icu ICU_LOCALE 'en' ENCODING 'UTF8' TEMPLATE template0"
    try:
        ask(two["s1"], f"CREATE DATABASE ordered {icu}")
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError):
        pytest.skip("this PostgreSQL has no ICU, or knows none for a database")
    url = make_url(two["s1"]).set(database="ordered").render_as_string(hide_password=False)
    recorded = "UPDATE pg_database SET datcollversion = {} WHERE datname = 'ordered'"
    current = "pg_database_collation_actual_version(oid)"
    try:
        set_up({"s1": url})
        ask(two["s1"], recorded.format("'1.2.3'"))
        told = faults(check({"s1": url}))
        ask(two["s1"], recorded.format(current))
        mended = faults(check({"s1": url}))
    finally:
        ask(two["s1"], "DROP DATABASE ordered WITH (FORCE)")

    assert list(told) == [("s1", "collation version")]
    assert "ordered by version 1.2.3" in told["s1", "collation version"]
    assert mended == {}


def test_a_schema_that_is_not_there(two: dict[str, str]) -> None:
    told = faults(check(two))

    set_up(two)

    assert told == {(shard, "schema shards"): "it is not there" for shard in TWO}
    assert faults(check(two)) == {}


@contextmanager
def role(url: str) -> Iterator[tuple[str, str]]:
    """A role that may do nothing, and the URL with which it connects."""
    name = f"app_{uuid4().hex[:8]}"
    ask(url, f"CREATE ROLE {name} LOGIN")
    try:
        yield name, make_url(url).set(username=name).render_as_string(hide_password=False)
    finally:
        ask(url, f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_privileges_that_the_role_lacks(two: dict[str, str], metadata: MetaData) -> None:
    set_up(two, metadata)
    with role(two["s1"]) as (name, url):
        urls = two | {"s1": url}
        blind = faults(check(urls, metadata))
        ask(two["s1"], f"GRANT USAGE ON SCHEMA shards TO {name}")
        ask(two["s1"], f"GRANT SELECT ON shards.identity TO {name}")
        ask(two["s1"], f"GRANT SELECT, DELETE ON users TO {name}")
        poor = faults(check(urls, metadata))
        ask(two["s1"], f"GRANT ALL ON ALL TABLES IN SCHEMA shards, public TO {name}")
        mended = faults(check(urls, metadata))

    assert "may not read 'shards.identity'" in blind["s1", "identity"]
    assert "may not use it" in poor["s1", "schema shards"]
    assert poor["s1", "privileges"] == (
        "the role of the application lacks INSERT, UPDATE on users, "
        "SELECT, INSERT, UPDATE, DELETE on countries"
    )
    assert mended == {}


def test_a_transaction_left_behind_by_another_role(
    two: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(two)
    monkeypatch.setattr(database_findings, "PREPARED_SECONDS_MAX", -1.0)
    with role(two["s1"]) as (owner, owners_url), role(two["s1"]) as (app, url):
        ask(two["s1"], f"GRANT USAGE ON SCHEMA shards TO {app}")
        ask(two["s1"], f"GRANT ALL ON ALL TABLES IN SCHEMA shards TO {app}")
        gid = prepare(owners_url, two)
        try:
            told = faults(check(two | {"s1": url}))
            as_owner = faults(check(two))
        finally:
            ask(two["s1"], f"ROLLBACK PREPARED '{gid}'")
        mended = faults(check(two | {"s1": url}))

    found = told["s1", "prepared transactions"]
    assert found.startswith("1 left behind, the oldest for")
    assert f"the role of the application may not finish those of {owner}" in found
    assert "may not finish" not in as_owner["s1", "prepared transactions"]
    assert mended == {}


def prepare(url: str, two: dict[str, str]) -> str:
    """Leave a prepared transaction of the cluster behind on s1."""
    identities = {}
    for name, each in two.items():
        with psycopg.connect(libpq_url(each), autocommit=True) as connection:
            identity = read_identity(connection)
            assert identity is not None
            identities[name] = identity
    gid = str(
        TransactionGid(
            cluster=identities["s1"].cluster_uuid,
            transaction=uuid4(),
            decision_shard=identities["s0"].shard_uuid,
            decision_xid=12345,
        ).part(identities["s1"].shard_uuid)
    )
    ask(url, f"BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION '{gid}'")
    return gid


# -- tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "mend", "found"),
    [
        (
            "ALTER TABLE users ALTER name TYPE text",
            "ALTER TABLE users ALTER name TYPE varchar(20)",
            "users.name is text, not character varying(20)",
        ),
        (
            "ALTER TABLE users ALTER balance TYPE numeric(12, 2)",
            "ALTER TABLE users ALTER balance TYPE numeric(10, 2)",
            "users.balance is numeric(12,2), not numeric(10,2)",
        ),
        (
            "ALTER TABLE users ALTER name DROP NOT NULL",
            "ALTER TABLE users ALTER name SET NOT NULL",
            "users.name may be NULL",
        ),
        (
            "ALTER TABLE users DROP mood",
            "ALTER TABLE users ADD mood mood",
            "users.mood is missing",
        ),
    ],
)
def test_columns_unlike_the_models(
    two: dict[str, str], metadata: MetaData, spoil: str, mend: str, found: str
) -> None:
    set_up(two, metadata)
    fit = faults(check(two, metadata))
    ask(two["s1"], spoil)
    told = faults(check(two, metadata))
    ask(two["s1"], mend)

    assert fit == {}
    assert set(told) == {("s1", "columns"), (None, "tables alike")}
    assert told["s1", "columns"] == f"unlike the models: {found}"
    assert faults(check(two, metadata)) == {}


@pytest.mark.parametrize(
    ("spoil", "mend", "found"),
    [
        (
            "CREATE INDEX extra ON users (balance)",
            "DROP INDEX extra",
            "users has no index btree (balance) on s0",
        ),
        ("DROP INDEX users_by_name", "CREATE INDEX ON users (name)", "index btree (name) on s1"),
        (
            "ALTER TABLE users DROP CONSTRAINT users_id_name_key",
            "ALTER TABLE users ADD UNIQUE (id, name)",
            "users has no UNIQUE (id, name) on s1",
        ),
        (
            "ALTER TABLE users ADD note text",
            "ALTER TABLE users DROP note",
            "users.note is missing on s0, text on s1",
        ),
        (
            'ALTER TABLE users ALTER name TYPE varchar(20) COLLATE "C"',
            "ALTER TABLE users ALTER name TYPE varchar(20)",
            "character varying(20) C NOT NULL on s1",
        ),
    ],
)
def test_tables_that_differ_between_shards(
    two: dict[str, str], metadata: MetaData, spoil: str, mend: str, found: str
) -> None:
    set_up(two, metadata)
    ask(two["s1"], spoil)
    told = faults(check(two, metadata))
    ask(two["s1"], mend)

    assert set(told) == {(None, "tables alike")}
    assert found in told[None, "tables alike"]
    assert faults(check(two, metadata)) == {}


@pytest.mark.parametrize(
    ("kind", "first", "second", "found"),
    [
        (
            "TYPE",
            "AS ENUM ('low', 'high')",
            "AS ENUM ('high', 'low')",
            "kind is an enum of 'low', 'high' on s0, an enum of 'high', 'low' on s1",
        ),
        (
            "DOMAIN",
            "AS int CHECK (VALUE > 0)",
            "AS int NOT NULL CHECK (VALUE > 1)",
            "kind is a domain over integer CHECK ((VALUE > 0)) on s0, "
            "a domain over integer NOT NULL CHECK ((VALUE > 1)) on s1",
        ),
        (
            "TYPE",
            "AS (a int, b text)",
            'AS (a int, b text COLLATE "C")',
            "kind is a row of a integer, b text on s0, a row of a integer, b text C on s1",
        ),
        (
            "TYPE",
            "AS RANGE (SUBTYPE = int4)",
            "AS RANGE (SUBTYPE = int8)",
            "kind is a range of integer on s0, a range of bigint on s1",
        ),
    ],
)
def test_types_that_differ_between_shards(
    two: dict[str, str], metadata: MetaData, kind: str, first: str, second: str, found: str
) -> None:
    set_up(two, metadata)
    ask(two["s0"], f"CREATE {kind} kind {first}")
    ask(two["s1"], f"CREATE {kind} kind {second}")
    told = faults(check(two, metadata))
    ask(two["s1"], f"DROP {kind} kind; CREATE {kind} kind {first}")
    again = check(two, metadata)

    assert set(told) == {(None, "types alike")}
    assert found.replace("text C", "text COLLATE C") in told[None, "types alike"]
    assert said(again, Status.OK)[None, "types alike"] == "2 types, the same everywhere"
    assert again.is_healthy


def test_columns_in_another_order_are_a_warning(two: dict[str, str], metadata: MetaData) -> None:
    set_up(two, metadata)
    ask(two["s1"], "ALTER TABLE users DROP balance; ALTER TABLE users ADD balance numeric(10, 2)")
    report = check(two, metadata)

    assert report.is_healthy
    assert said(report, Status.WARNING)[None, "order of columns"].endswith(
        "users has id, name, balance, mood on s0, id, name, mood, balance on s1"
    )


def test_tables_that_the_models_do_not_place_there(two: dict[str, str], metadata: MetaData) -> None:
    set_up(two, metadata)
    ask(
        two["s1"],
        "CREATE TABLE flags (id int); CREATE SCHEMA other; CREATE TABLE other.junk (n int)",
    )
    ask(two["s1"], "CREATE TABLE alembic_version (version_num text); CREATE VIEW v AS SELECT 1")
    told = faults(check(two, metadata))
    ask(two["s1"], "DROP TABLE flags, other.junk")

    assert told == {
        ("s1", "other tables"): "2 that the models do not place here: other.junk, flags"
    }
    assert faults(check(two, metadata)) == {}


def test_a_table_in_a_schema_that_the_role_may_not_use(two: dict[str, str]) -> None:
    metadata = MetaData()
    key = Column("id", Integer, primary_key=True, autoincrement=False)
    shard_table(Table("users", metadata, key, schema="app"))
    for url in two.values():
        ask(url, "CREATE SCHEMA app")
    set_up(two, metadata)
    with ExitStack() as stack:
        name, url = stack.enter_context(role(two["s1"]))
        ask(two["s1"], f"GRANT USAGE ON SCHEMA shards TO {name}")
        ask(two["s1"], f"GRANT ALL ON ALL TABLES IN SCHEMA shards, app TO {name}")
        told = faults(check(two | {"s1": url}, metadata))
        ask(two["s1"], f"GRANT USAGE ON SCHEMA app TO {name}")
        mended = faults(check(two | {"s1": url}, metadata))

    assert "SELECT, INSERT, UPDATE, DELETE on app.users" in told["s1", "privileges"]
    assert mended == {}


def test_tables_that_say_nothing(two: dict[str, str], metadata: MetaData) -> None:
    set_up(two, metadata)
    unsaid = Table("unsaid", metadata, Column("id", Integer, primary_key=True))
    told = faults(check(two, metadata))
    metadata.remove(unsaid)

    assert told == {
        (None, "declarations"): "1 of the models' tables do not say how they spread: unsaid"
    }
    assert faults(check(two, metadata)) == {}
