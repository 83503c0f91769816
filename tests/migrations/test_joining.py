"""A shard joins a cluster that has data, while applications run with the old and the new list."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    ForeignKey,
    MetaData,
    Numeric,
    Table,
    Text,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from sqlalchemy_shards import (
    Cluster,
    Keyspace,
    ListPartitioner,
    create_cluster,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations import join_shard
from sqlalchemy_shards.migrations import joining as joining_module
from tests.databases import ask, connect
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.migrations.project import Project

METADATA = MetaData()
COUNTRIES = reference_table(
    Table(
        "countries",
        METADATA,
        Column("code", Text, primary_key=True),
        Column("part_of", ForeignKey("countries.code")),
        Column("area", Numeric),
        Column("names", ARRAY(Text)),
        Column("doubled", Numeric, Computed("area * 2", persisted=True)),
    )
)
CITIES = reference_table(
    Table(
        "cities",
        METADATA,
        Column("name", Text, primary_key=True),
        Column("country", ForeignKey("countries.code"), nullable=False),
    )
)
USERS = shard_table(
    Table(
        "users",
        METADATA,
        Column("region", Text, primary_key=True),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("country", ForeignKey("countries.code")),
    ),
    key="region",
)
OLD, NEW = ("s0", "s1"), ("s0", "s1", "s2")
TESTS = ("shards-test-database",)
"""Connections that keep the tests' databases."""

PLACED = {"west": ["in", "pk"], "east": ["id", "my"]}
ROWS = [
    {"code": "eu", "part_of": None, "area": "1.50", "names": ["Europe", "it's"]},
    {"code": "fr", "part_of": "eu", "area": None, "names": None},
]


@contextmanager
def cluster_of(
    urls: Mapping[str, str], names: tuple[str, ...], *, is_placed: bool = False
) -> Iterator[Cluster]:
    values = {**PLACED, "south": ["za"]} if is_placed else PLACED
    placement = {"west": "s0", "east": "s1"} | ({"south": "s2"} if is_placed else {})
    keyspace = Keyspace(ListPartitioner(values), placement=placement)
    cluster = create_cluster(
        {name: urls[name] for name in names}, name="shop", keyspaces={"default": keyspace}
    )
    try:
        yield cluster
    finally:
        cluster.dispose()


@pytest.fixture
def shards(clean_shards: dict[str, str]) -> dict[str, str]:
    """Two shards with data, and a third that is empty."""
    with cluster_of(clean_shards, OLD) as cluster:
        cluster.create_all(METADATA)
        with cluster.engine.begin() as connection:
            connection.execute(insert(COUNTRIES), ROWS)
            connection.execute(insert(CITIES), [{"name": "Lyon", "country": "fr"}])
            connection.execute(insert(USERS), [{"region": "in", "id": 1, "country": "fr"}])
    return clean_shards


def make_tables(urls: Mapping[str, str]) -> None:
    """What migrations would do."""
    with cluster_of(urls, NEW) as cluster:
        METADATA.create_all(cluster.shards["s2"].engine)


def join(urls: Mapping[str, str]) -> dict[str, int]:
    """Let the third shard join; return its reference tables with their numbers of rows."""
    with cluster_of(urls, NEW) as cluster:
        return {
            each.table: each.rows
            for each in join_shard(cluster, "s2", METADATA, ignore=TESTS).tables
        }


def rows(url: str) -> list[list[tuple[Any, ...]]]:
    return [ask(url, f"SELECT * FROM {name} ORDER BY 1") for name in ("countries", "cities")]


def test_a_shard_of_the_beginning_need_not_join(shards: dict[str, str]) -> None:
    with (
        cluster_of(shards, OLD) as cluster,
        pytest.raises(ConfigurationError, match="'s1' has been there from the beginning"),
    ):
        join_shard(cluster, "s1", METADATA)


def test_the_new_shard_gets_the_rows_of_reference_tables(shards: dict[str, str]) -> None:
    make_tables(shards)

    copied = join(shards)

    assert copied == {"countries": 2, "cities": 1}
    assert rows(shards["s2"]) == rows(shards["s0"])


def test_rows_may_be_placed_on_it_then(shards: dict[str, str]) -> None:
    make_tables(shards)
    join(shards)

    with cluster_of(shards, NEW, is_placed=True) as cluster, cluster.engine.begin() as connection:
        connection.execute(insert(USERS), [{"region": "za", "id": 2, "country": "eu"}])
        connection.execute(insert(CITIES), [{"name": "Nice", "country": "fr"}])
        joined = select(USERS.c.id, COUNTRIES.c.code).join_from(USERS, COUNTRIES).order_by("id")
        found = connection.execute(joined).all()

    assert [tuple(row) for row in found] == [(1, "fr"), (2, "eu")]
    assert rows(shards["s2"]) == rows(shards["s0"])


def test_triggers_do_not_fire_and_stay_as_they_were(shards: dict[str, str]) -> None:
    make_tables(shards)
    for name in NEW:
        ask(
            shards[name],
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN new.area = 0; RETURN new; END'; "
            "CREATE TRIGGER a BEFORE INSERT ON countries FOR EACH ROW EXECUTE FUNCTION spoil(); "
            "CREATE TRIGGER b BEFORE INSERT ON countries FOR EACH ROW EXECUTE FUNCTION spoil(); "
            "CREATE TRIGGER c BEFORE INSERT ON countries FOR EACH ROW EXECUTE FUNCTION spoil(); "
            "ALTER TABLE countries ENABLE ALWAYS TRIGGER b, DISABLE TRIGGER c",
        )

    join(shards)

    assert rows(shards["s2"]) == rows(shards["s0"])
    states = "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
    assert ask(shards["s2"], states) == [("a", "O"), ("b", "A"), ("c", "D")]


def test_sequences_of_reference_tables_go_on_where_they_were(shards: dict[str, str]) -> None:
    make_tables(shards)
    for name in NEW:
        ask(shards[name], "ALTER TABLE cities ADD number int GENERATED ALWAYS AS IDENTITY")
    ask(shards["s0"], "SELECT setval('cities_number_seq', 41)")

    join(shards)

    assert ask(shards["s2"], "SELECT nextval('cities_number_seq')") == [(42,)]


class TestProcessesThatDoNotKnowIt:
    def test_one_that_was_connected_before_has_to_go_first(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        with cluster_of(shards, OLD) as old:
            with old.engine.connect() as connection:
                connection.execute(select(COUNTRIES)).all()
                with pytest.raises(ConfigurationError, match="older than the announcement") as told:
                    join(shards)
            assert ask(shards["s2"], "SELECT count(*) FROM countries") == [(0,)]

        assert "restart these processes" in told.value.advice
        assert join(shards) == {"countries": 2, "cities": 1}

    def test_one_without_a_name_is_told_of_as_such(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        url = make_url(shards["s0"]).set(drivername="postgresql")
        with (
            psycopg.connect(url.render_as_string(hide_password=False), application_name=""),
            pytest.raises(ConfigurationError, match="1 connection to the first shard is") as told,
        ):
            join(shards)

        assert "(without an application_name; role " in str(told.value)

    def test_one_writes_no_reference_table_over_new_connections(
        self, shards: dict[str, str]
    ) -> None:
        make_tables(shards)
        with cluster_of(shards, OLD) as old, old.engine.connect() as holding:
            holding.execute(select(USERS)).all()
            with pytest.raises(ConfigurationError, match="older than"):
                join(shards)
            with old.engine.begin() as connection:
                with pytest.raises(ConfigurationError, match="'s2' is being added"):
                    connection.execute(update(COUNTRIES).values(area=1))
                with pytest.raises(ConfigurationError, match="'s2' is being added"):
                    connection.execute(insert(CITIES), [{"name": "Nice", "country": "fr"}])
                connection.execute(insert(USERS), [{"region": "my", "id": 3}])
                assert len(connection.execute(select(USERS)).all()) == 2

        assert rows(shards["s0"]) == rows(shards["s1"])

    def test_one_is_refused_when_the_shard_has_joined(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        join(shards)

        with cluster_of(shards, OLD) as old, pytest.raises(ConfigurationError) as refused:
            old.engine.connect().execute(select(USERS)).all()

        assert "shard 's2' has been added to the cluster, and this process" in str(refused.value)

    def test_one_of_a_single_shard_is_refused_at_once(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        with cluster_of(shards, OLD) as old, old.engine.connect() as holding:
            holding.execute(select(USERS)).all()
            with pytest.raises(ConfigurationError, match="older than"):
                join(shards)

        single = create_cluster({"s0": shards["s0"]}, name="shop", keyspaces={})
        try:
            with pytest.raises(ConfigurationError, match="'s2' has been added"):
                single.engine.connect().execute(select(COUNTRIES))
        finally:
            single.dispose()


class TestProcessesThatKnowIt:
    def test_what_they_write_meanwhile_is_on_it(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        with cluster_of(shards, OLD) as old, old.engine.connect() as holding:
            holding.execute(select(USERS)).all()
            with pytest.raises(ConfigurationError, match="older than"):
                join(shards)
        with cluster_of(shards, NEW) as new:
            with new.engine.begin() as connection:
                connection.execute(update(COUNTRIES).values(area=7))
                connection.execute(insert(COUNTRIES), [{"code": "za", "area": "3"}])
            join(shards)
            with new.engine.begin() as connection:
                connection.execute(insert(CITIES), [{"name": "Nice", "country": "fr"}])

        assert rows(shards["s2"]) == rows(shards["s0"])
        assert len(rows(shards["s2"])[0]) == 3

    def test_a_writer_that_is_under_way_is_waited_for(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        copied: list[dict[str, int]] = []
        with cluster_of(shards, NEW) as known:
            # So that the writer's connections are newer than the announcement.
            joining_module.announce_shard(known, "s2")
        with cluster_of(shards, NEW) as new:
            with new.engine.begin() as connection:
                connection.execute(insert(COUNTRIES), [{"code": "za", "area": "3"}])
                thread = threading.Thread(target=lambda: copied.append(join(shards)))
                thread.start()
                waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareLock'"
                eventually(lambda: ask(shards["s0"], waiting), "the copy waits")
                connection.execute(insert(CITIES), [{"name": "Cape Town", "country": "za"}])
            thread.join()

        assert copied == [{"countries": 3, "cities": 2}]
        assert rows(shards["s2"]) == rows(shards["s0"])

    def test_keys_may_not_be_placed_on_it_before(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        with cluster_of(shards, NEW) as known:
            joining_module.announce_shard(known, "s2")

            told = [str(each) for each in known.check().warnings if each.subject == "identity"]

        assert told == [
            "s2: identity: warning: shard 's2' of cluster 'shop', which has not joined yet; run "
            "`shards migrate join s2` until it says that it has"
        ]
        with (
            cluster_of(shards, NEW, is_placed=True) as hasty,
            hasty.engine.connect() as connection,
            pytest.raises(ConfigurationError, match="'s2' has not joined yet"),
        ):
            connection.execute(insert(USERS), [{"region": "za", "id": 2}])

        with (
            cluster_of(shards, NEW, is_placed=True) as hasty,
            pytest.raises(ConfigurationError, match="'s2' has not joined yet"),
        ):
            join_shard(hasty, "s2", METADATA)


class TestWhatCannotJoin:
    def test_the_first_shard_and_one_that_is_not_there(self, shards: dict[str, str]) -> None:
        with cluster_of(shards, NEW) as cluster:
            with pytest.raises(ConfigurationError, match="the first or the global one"):
                join_shard(cluster, "s0", METADATA)
            with pytest.raises(ConfigurationError, match="no shard 'other'"):
                join_shard(cluster, "other", METADATA)

    def test_one_of_a_hash_that_follows_the_list_of_shards(
        self, clean_shards: dict[str, str]
    ) -> None:
        urls = {name: clean_shards[name] for name in NEW}
        old = create_cluster({name: urls[name] for name in OLD}, name="shop")
        old.bootstrap()
        old.dispose()
        cluster = create_cluster(urls, name="shop")

        try:
            with pytest.raises(ConfigurationError, match="another placement"):
                join_shard(cluster, "s2", MetaData())
        finally:
            cluster.dispose()

    def test_one_with_rows_of_its_own(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        ask(shards["s2"], "INSERT INTO users VALUES ('za', 1)")

        with pytest.raises(ConfigurationError, match="users of shard 's2' has rows"):
            join(shards)

    def test_one_whose_tables_are_others(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        ask(shards["s2"], "ALTER TABLE cities ADD mayor text")

        with pytest.raises(ConfigurationError, match="cities does not have the same columns"):
            join(shards)

        assert ask(shards["s2"], "SELECT count(*) FROM countries") == [(0,)]

    def test_one_that_is_behind(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        for name, revision in {"s0": "r2", "s2": "r1"}.items():
            ask(shards[name], "CREATE TABLE alembic_version (version_num text)")
            ask(shards[name], f"INSERT INTO alembic_version VALUES ('{revision}')")

        with pytest.raises(ConfigurationError, match="'s2' is at revision r1, and 's0' at r2"):
            join(shards)


class TestOnceMore:
    def test_copies_are_compared_again(self, shards: dict[str, str]) -> None:
        make_tables(shards)
        join(shards)

        again = join(shards)
        ask(shards["s2"], "UPDATE countries SET area = 2 WHERE code = 'fr'")

        assert again == {"countries": 2, "cities": 1}
        with pytest.raises(ConfigurationError, match="countries: 2 rows against 2"):
            join(shards)

    def test_a_table_that_is_always_written_is_given_up(
        self, shards: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_tables(shards)
        with cluster_of(shards, NEW) as known:
            joining_module.announce_shard(known, "s2")
        monkeypatch.setattr(joining_module, "LOCK_ATTEMPTS", 1)
        with connect(shards["s0"]) as connection, connection.transaction():
            connection.execute("UPDATE cities SET name = name")
            with pytest.raises(ConfigurationError, match="being written all the time"):
                join(shards)

        assert join(shards) == {"countries": 2, "cities": 1}


def test_the_command_gives_it_tables_and_rows(project: Project) -> None:
    path = project.config_file
    (project.directory / "models.py").write_text(
        "import sqlalchemy as sa\n"
        "from sqlalchemy_shards import reference_table\n"
        "metadata = sa.MetaData()\n"
        "key = sa.Column('code', sa.String(5), primary_key=True)\n"
        "reference_table(sa.Table('colors', metadata, key))\n"
    )
    project.write("__import__('models').metadata")
    every = path.read_text().replace('"hash"\nbuckets = 64', '"range"\nbounds = [0]')
    every += 'placement = { "below 0" = "s0", "from 0" = "s1" }\n'
    path.write_text("".join(line for line in every.splitlines(True) if line[:2] != "s3"))
    column = 'sa.Column("code", sa.String(5), primary_key=True)'
    project.revise("r1", None, f'op.create_table("colors", {column})')
    cluster = Cluster.from_file(path)
    cluster.bootstrap()
    cluster.dispose()
    project.run("alembic", "upgrade", "head")
    for name in ("s0", "s1", "s2"):
        ask(project.urls[name], "INSERT INTO colors VALUES ('red'), ('blue')")
    path.write_text(every)

    early = project.run("sqlalchemy_shards", "migrate", "join", "s3")
    done = project.run("sqlalchemy_shards", "migrate", "join", "s3", "--ignore", TESTS[0])

    assert (early.returncode, done.returncode) == (1, 0)
    assert "older than the announcement of shard 's3'" in early.stderr
    assert done.stdout.splitlines() == [
        "✓ colors: 2 rows, as on s0",
        "Shard s3 has joined. Keys may be placed on it.",
    ]
    assert len(ask(project.urls["s3"], "SELECT * FROM colors")) == 2
