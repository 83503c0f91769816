"""In what shards differ, made on real servers and told: from each other, and from the models."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from sqlalchemy_shards import Cluster, create_cluster, global_table, reference_table, shard_table
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations import drift
from sqlalchemy_shards.migrations.differences.finding import drift_by_environment
from tests.databases import ask, connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards.migrations.differences.report import DriftReport
    from sqlalchemy_shards.testing.servers import PostgresServers
    from tests.migrations.project import Project

USEFUL = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN percent AS int CHECK (value <= 100);
CREATE SEQUENCE numbers;
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER noting BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION noted();
CREATE VIEW names AS SELECT name FROM users
"""


@pytest.fixture
def metadata() -> MetaData:
    metadata = MetaData()
    shard_table(
        Table(
            "users",
            metadata,
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("name", String(100), nullable=False),
            Column("country", ForeignKey("countries.code")),
            Column("age", Integer, server_default="1"),
            CheckConstraint("age > 0", name="grown"),
            UniqueConstraint("id", "name", name="one_name"),
            Index("users_by_name", "name"),
        ),
        key="id",
    )
    reference_table(Table("countries", metadata, Column("code", Text, primary_key=True)))
    global_table(
        Table(
            "flags",
            metadata,
            Column("id", Integer, Identity(), primary_key=True),
            Column("a", Text),
        )
    )
    return metadata


@contextmanager
def cluster_of(urls: Mapping[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(urls, name="shop")
    try:
        yield cluster
    finally:
        cluster.dispose()


@pytest.fixture
def shards(clean_shards: dict[str, str], metadata: MetaData) -> dict[str, str]:
    """Four shards that are alike, with one object or more of each kind."""
    with cluster_of(clean_shards) as cluster:
        cluster.create_all(metadata)
    for url in clean_shards.values():
        ask(url, USEFUL)
    return clean_shards


def found(
    urls: Mapping[str, str], metadata: MetaData | None = None, seconds: float = 30
) -> DriftReport:
    with cluster_of(urls) as cluster:
        return drift(cluster, metadata, deadline_seconds=seconds)


def test_shards_that_are_alike_have_no_drift(shards: dict[str, str], metadata: MetaData) -> None:
    ask(shards["s1"], "SELECT nextval('numbers'); ANALYZE; INSERT INTO countries VALUES ('in')")
    ask(shards["s1"], "GRANT SELECT ON users TO PUBLIC; COMMENT ON VIEW names IS 'all names'")

    report = found(shards, metadata)

    assert (str(report), report.is_clean) == ("", True)
    assert report.shards == ("s0", "s1", "s2", "s3")


# Statement that is run on one shard -> what is told of it; each list is made at once.
CHANGES = {
    "of columns": {
        "ALTER TABLE users ALTER country TYPE varchar(50)": "column users.country is character "
        "varying(50), elsewhere text",
        "ALTER TABLE users ALTER age DROP DEFAULT": "column users.age: default is none, elsewhere "
        "1",
        "ALTER TABLE users ADD born date": "column users.born is there, and not on the other "
        "shards",
        "ALTER TABLE users ALTER country SET NOT NULL": "column users.country: nullable is no, "
        "elsewhere yes",
        'ALTER TABLE countries ALTER code TYPE text COLLATE "C"': "column countries.code: "
        "collation is C, elsewhere none",
    },
    "of rules": {
        "ALTER TABLE users DROP CONSTRAINT grown; ALTER TABLE users ADD CONSTRAINT grown CHECK "
        "(age > 0) NOT VALID": "constraint users.grown is CHECK ((age > 0)) NOT VALID, elsewhere "
        "CHECK ((age > 0))",
        "ALTER TABLE users RENAME CONSTRAINT one_name TO uq": "constraint users.one_name: name is "
        "uq, elsewhere one_name",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_by_name'::regclass": ""
        "index users.users_by_name: valid is no, elsewhere yes",
        "CREATE INDEX users_by_age ON users (age)": "index users.users_by_age is there, and not on "
        "the other shards",
        "ALTER TABLE users DISABLE TRIGGER noting": "trigger users.noting: enabled is no, "
        "elsewhere yes",
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY": "table users: row security is on, "
        "elsewhere none",
        "CREATE POLICY own ON users USING (name = CURRENT_USER)": "policy users.own is there, and "
        "not on the other shards",
    },
    "of what tables are made with": {
        "ALTER SEQUENCE numbers CACHE 9": "sequence numbers: settings is START 1 INCREMENT 1 "
        "MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 9, elsewhere START 1 INCREMENT 1 "
        "MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1",
        "ALTER TYPE mood ADD VALUE 'calm' BEFORE 'sad'": "type mood is an enum of 'glad', 'calm', "
        "'sad', elsewhere an enum of 'glad', 'sad'",
        "ALTER DOMAIN percent SET NOT NULL": "type percent is a domain over integer NOT NULL CHECK "
        "((VALUE <= 100)), elsewhere a domain over integer CHECK ((VALUE <= 100))",
        "CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS "
        "'SELECT n + n'": "function twice(n integer) is 'AS $function$SELECT n + "
        "n$function$' in line 5, elsewhere 'AS $function$SELECT n * 2$function$' in line 5",
        "CREATE OR REPLACE VIEW names AS SELECT name FROM users WHERE id > 0": "table names "
        "is 'FROM users' in line 2, elsewhere 'FROM users;' in line 2",
        "CREATE SCHEMA own": "schema own is there, and not on the other shards",
        "CREATE FUNCTION shards.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'": "function "
        "shards.mine() is there, and not on the other shards",
    },
    "of tables and settings": {
        "DROP TABLE users CASCADE": "table users is missing",
        "CREATE TABLE extra (a int PRIMARY KEY)": "table extra is there, and not on the other "
        "shards",
        "CREATE TABLE flags (id int)": "the global table flags: place is here, elsewhere s0",
        "DROP TABLE countries; CREATE TABLE countries (code text) PARTITION BY HASH (code)": ""
        "table countries: partitioning is HASH (code), elsewhere none",
        "ALTER DATABASE s2 SET TimeZone = 'Asia/Kolkata'": "TimeZone is Asia/Kolkata, elsewhere "
        "UTC",
    },
}


@pytest.mark.parametrize("changes", CHANGES)
def test_what_one_shard_has_otherwise_is_told(
    shards: dict[str, str], metadata: MetaData, changes: str
) -> None:
    try:
        for change in CHANGES[changes]:
            ask(shards["s2"], change)
        report = found(shards, metadata)
    finally:
        ask(shards["s2"], "ALTER DATABASE s2 RESET TimeZone")

    told = [each for each in report.differences if each.against == "shards"]
    assert set(CHANGES[changes].values()) <= {each.sentence for each in told}
    assert {each.shards for each in told} == {("s2",)}
    assert not report.is_clean


class TestWhoDiffers:
    def test_it_is_the_fewer(self, shards: dict[str, str], metadata: MetaData) -> None:
        for shard in ("s0", "s1", "s3"):
            ask(shards[shard], "ALTER TABLE users ADD born date")

        report = found(shards)

        assert [str(each) for each in report.differences] == ["s2: column users.born is missing"]

    def test_of_as_many_it_is_those_without_the_global_shard(self, shards: dict[str, str]) -> None:
        for shard in ("s1", "s3"):
            ask(shards[shard], "ALTER TABLE users ADD born date")

        report = found(shards)

        assert [str(each) for each in report.differences] == [
            "s1, s3: column users.born is there, and not on the other shards"
        ]


class TestWhatIsNoDrift:
    def test_columns_in_another_order_are_noted(
        self, shards: dict[str, str], metadata: MetaData
    ) -> None:
        swapped = "ALTER TABLE users ADD {}; ALTER TABLE users ADD {}"
        for shard in shards:
            columns = ("a int", "b int") if shard != "s3" else ("b int", "a int")
            ask(shards[shard], swapped.format(*columns))

        report = found(shards)

        assert report.is_clean
        assert report.notes[0] == (
            "the columns of table users stand in another order: id, name, country, age, a, b on "
            "s0, s1 and s2, id, name, country, age, b, a on s3"
        )

    def test_what_only_the_global_shard_has_is_noted(
        self, shards: dict[str, str], metadata: MetaData
    ) -> None:
        ask(shards["s0"], "CREATE TYPE color AS ENUM ('red'); ALTER TABLE flags ADD c color")

        report = found(shards)

        assert report.is_clean
        assert report.notes[0] == "type color is on s0 only, the global shard"


class TestComparedWithTheModels:
    def test_all_shards_differ_alike(self, shards: dict[str, str], metadata: MetaData) -> None:
        users = metadata.tables["users"]
        users.append_column(Column("born", Integer))
        users.c.name.type = String(120)
        users.c.country.nullable = False
        Index("by_age", users.c.age)
        global_table(Table("switches", metadata, Column("id", Integer, primary_key=True)))
        reference_table(Table("colors", metadata, Column("id", Text, primary_key=True)))
        for url in shards.values():
            ask(url, "DROP VIEW names; DROP INDEX users_by_name; CREATE TABLE old (a int)")

        report = found(shards, metadata)

        assert {str(each) for each in report.differences} == {
            "s0: table switches is missing",
            "s0, s1, s2, s3: table colors is missing",
            "s0, s1, s2, s3: table old is there, and not in the models",
            "s0, s1, s2, s3: column users.born is missing",
            "s0, s1, s2, s3: column users.name: type is VARCHAR(100), in the models VARCHAR(120)",
            "s0, s1, s2, s3: column users.country: nullable is yes, in the models no",
            "s0, s1, s2, s3: index users.by_age (age) is missing",
            "s0, s1, s2, s3: index users.users_by_name (name) is missing",
        }

    def test_alembics_options_are_taken(self, shards: dict[str, str], metadata: MetaData) -> None:
        for url in shards.values():
            ask(url, "CREATE TABLE old (a int)")

        def include_object(thing: Any, name: str, type_: str, *_: Any) -> bool:
            return name != "old"

        with cluster_of(shards) as cluster:
            report = drift(cluster, metadata, options={"include_object": include_object})

        assert report.is_clean

    def test_undeclared_tables_are_refused(self, shards: dict[str, str]) -> None:
        undeclared = MetaData()
        Table("things", undeclared, Column("id", Integer, primary_key=True))

        with pytest.raises(ConfigurationError, match="things"):
            found(shards, undeclared)


class TestShardsThatCannotBeLookedAt:
    def test_one_that_is_down_does_not_stop_the_others(
        self, shards: dict[str, str], metadata: MetaData, servers: PostgresServers
    ) -> None:
        ask(shards["s1"], "ALTER TABLE users ADD born date")
        servers.stop(3)

        report = found(shards, metadata)

        assert report.shards == ("s0", "s1", "s2")
        assert list(report.not_seen) == ["s3"]
        assert {each.shards for each in report.differences} == {("s1",)}

    def test_one_whose_tables_are_locked_is_given_up(
        self, shards: dict[str, str], metadata: MetaData
    ) -> None:
        with connect(shards["s3"]) as connection, connection.transaction():
            connection.execute("LOCK TABLE pg_catalog.pg_attribute IN ACCESS EXCLUSIVE MODE")

            report = found(shards, metadata, seconds=3)

        assert list(report.not_seen) == ["s3"]
        assert report.differences == ()

    def test_one_without_revisions_is_told(self, shards: dict[str, str]) -> None:
        for shard in shards:
            ask(shards[shard], "CREATE TABLE alembic_version (version_num varchar(32))")
        for shard in ("s0", "s1", "s2"):
            ask(shards[shard], "INSERT INTO alembic_version VALUES ('r2'), ('r1')")

        report = found(shards)

        assert [str(each) for each in report.differences] == [
            "s3: revision is none, elsewhere r1, r2"
        ]


def test_the_models_and_options_of_env_are_compared_with(project: Project) -> None:
    project.write("metadata")
    env = project.scripts / "env.py"
    env.write_text(
        "import sqlalchemy as sa\n"
        "from sqlalchemy_shards import reference_table\n"
        "metadata = sa.MetaData()\n"
        "key = sa.Column('code', sa.String(5), primary_key=True)\n"
        "reference_table(sa.Table('colors', metadata, key))\n"
        + env.read_text().replace("metadata)", "metadata, version_table='versions')")
    )
    column = 'sa.Column("code", sa.String(5), primary_key=True)'
    project.revise("r1", None, f'op.create_table("colors", {column})')
    command.upgrade(project.config(), "head")
    ask(project.urls["s1"], "ALTER TABLE colors ALTER code TYPE varchar(7)")
    ask(project.urls["s2"], "DELETE FROM versions")

    report = drift_by_environment(project.config())

    assert [str(each) for each in report.differences] == [
        "s1: column colors.code is character varying(7), elsewhere character varying(5)",
        "s2: revision is none, elsewhere r1",
        "s1: column colors.code: type is VARCHAR(7), in the models VARCHAR(5)",
    ]


@pytest.fixture
def drifted(project: Project) -> Project:
    """Its models know a table as all shards but one have it."""
    (project.directory / "models.py").write_text(
        "import sqlalchemy as sa\n"
        "from sqlalchemy_shards import reference_table\n"
        "metadata = sa.MetaData()\n"
        "key = sa.Column('code', sa.String(5), primary_key=True)\n"
        "reference_table(sa.Table('colors', metadata, key))\n"
    )
    project.write("__import__('models').metadata")
    for url in project.urls.values():
        ask(url, "CREATE TABLE colors (code varchar(5) PRIMARY KEY)")
    ask(project.urls["s1"], "ALTER TABLE colors ALTER code TYPE varchar(7)")
    return project


def test_the_command_says_who_differs_and_fails(drifted: Project) -> None:
    told = drifted.run("sqlalchemy_shards", "migrate", "check")
    ask(drifted.urls["s1"], "ALTER TABLE colors ALTER code TYPE varchar(5)")
    mended = drifted.run("sqlalchemy_shards", "migrate", "check")

    assert (told.returncode, mended.returncode) == (1, 0)
    assert told.stdout.splitlines() == [
        "Unlike the other shards",
        "└── s1",
        "    └── column colors.code is character varying(7), elsewhere character varying(5)",
        "Unlike the models",
        "└── s1",
        "    └── column colors.code: type is VARCHAR(7), in the models VARCHAR(5)",
        "2 differences on 1 of 4 shards.",
    ]
    assert mended.stdout == "No difference on 4 shards.\n"


def test_the_command_leaves_away_what_alembic_logs(drifted: Project) -> None:
    (drifted.directory / "migrations" / "env.py").write_text(
        "import logging\nlogging.basicConfig(level=logging.INFO)\n"
        f"{(drifted.directory / 'migrations' / 'env.py').read_text()}"
    )

    told = drifted.run("sqlalchemy_shards", "migrate", "check")

    assert (told.returncode, told.stderr) == (1, "")


def test_the_command_takes_models_and_prints_json(drifted: Project) -> None:
    arguments = ("migrate", "check", "--models", "models", "--json")

    result = drifted.run("sqlalchemy_shards", *arguments)

    found = json.loads(result.stdout)
    assert (result.returncode, found["is_clean"], found["not_seen"]) == (1, False, {})
    assert found["differences"][0] == {
        "shards": ["s1"],
        "against": "shards",
        "subject": "column colors.code",
        "aspect": None,
        "found": "character varying(7)",
        "expected": "character varying(5)",
    }
