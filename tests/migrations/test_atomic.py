"""All shards or none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy.exc import IntegrityError, ProgrammingError

from sqlalchemy_shards.errors import (
    ConfigurationError,
    MigrationBlocked,
    ScatterNotAllowed,
    ShardUnavailable,
    TransactionAborted,
)
from sqlalchemy_shards.migrations.atomic.ending import Outcome
from sqlalchemy_shards.migrations.atomic.run import AtomicRun
from sqlalchemy_shards.migrations.env.selection import read_selection
from sqlalchemy_shards.migrations.turns.bounds import Bounds
from sqlalchemy_shards.migrations.turns.run import RUN_KEY
from sqlalchemy_shards.migrations.turns.turn import TurnOptions
from sqlalchemy_shards.testing.servers import PostgresServers
from tests.databases import ask, libpq_url, own_urls
from tests.migrations.atomic import (
    CREATE,
    DEFERRED,
    DROP,
    HAS_VERSIONS,
    LEDGER,
    LOOK,
    PREPARED,
    REVISIONS,
    SESSIONS,
    SHARDS,
    TABLES,
    assert_nothing_migrated,
    bootstrap,
    refused,
    upgrade,
)
from tests.migrations.project import Project

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = [
    (
        "r1",
        None,
        """\
mood = sa.Enum("sad", "glad", name="mood")
op.create_table(
    "people",
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.String(50), nullable=False, index=True),
    sa.Column("mood", mood, server_default="glad"),
    sa.Column("tags", sa.ARRAY(sa.Text)),
    sa.CheckConstraint("length(name) > 0", name=op.f("ck_name")),
    comment="who is there",
)
people = sa.table("people", sa.column("name"), sa.column("mood", mood))
op.bulk_insert(people, [{"name": "ann", "mood": "sad"}, {"name": "bob", "mood": "glad"}])
op.execute("CREATE SEQUENCE numbers START 7")
op.execute("CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n'")
op.execute("CREATE VIEW moods AS SELECT mood FROM people")
""",
    ),
    (
        "r2",
        "r1",
        """\
op.create_table(
    "pets",
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("owner", sa.Integer, sa.ForeignKey("people.id", deferrable=True)),
)
op.create_index("ix_pets", "pets", ["owner"], postgresql_where=sa.text("owner > 1"))
op.create_unique_constraint("uq_pets", "pets", ["owner", "id"])
with op.batch_alter_table("people") as batch:
    batch.add_column(sa.Column("age", sa.Integer, server_default=sa.text("twice(9)")))
    batch.alter_column("name", type_=sa.Text, existing_type=sa.String(50))
op.execute(sa.text("INSERT INTO pets VALUES (:id, 1)").bindparams(id=5))
op.execute("ALTER TYPE mood ADD VALUE 'bored'")
assert [c["name"] for c in sa.inspect(op.get_bind()).get_columns("people")][-1] == "age"
""",
    ),
    (
        "r3",
        "r2",
        """\
from sqlalchemy import orm
bind = op.get_bind()
Base = orm.declarative_base()
class Person(Base):
    __tablename__ = "people"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text)
with orm.Session(bind=bind) as session:
    session.add(Person(name="cat"))
    session.query(Person).filter_by(name="ann").update({"name": "anna"})
    session.commit()
with orm.Session(bind=bind) as session:
    session.add(Person(name="dan"))
    session.flush()
try:
    with bind.begin_nested():
        bind.execute(sa.text("INSERT INTO people (name) VALUES ('')"))
except sa.exc.IntegrityError:
    op.execute("INSERT INTO people (name) VALUES ('eve')")
with bind.begin_nested() as savepoint:
    op.execute("DELETE FROM pets")
    savepoint.rollback()
cursor = bind.connection.cursor()
with cursor.copy("COPY people (name) FROM STDIN") as copy:
    copy.write_row(("fay",))
cursor.close()
late = sa.Table("late", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
late.create(bind, checkfirst=True)
late.create(bind, checkfirst=True)
op.drop_constraint("uq_pets", "pets")
op.rename_table("late", "later")
op.execute("SET LOCAL lock_timeout = '3s'; SET search_path = public")
op.execute("LOCK TABLE people")
op.execute("DO $$ BEGIN PERFORM pg_advisory_xact_lock(5); END $$")
""",
    ),
]

ENV = """\
from alembic import context
from sqlalchemy import event
from sqlalchemy_shards import Cluster, HashPartitioner, Keyspace, create_cluster
from sqlalchemy_shards.migrations import run_migrations

cluster = Cluster.from_file({config!r})
try:
    run_migrations(context, cluster, {metadata}, transaction_per_migration=True)
finally:
    cluster.dispose()
"""


DESCRIPTION = """
SELECT 'column', table_name, column_name, data_type, column_default, is_nullable, is_identity
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '', '' FROM pg_indexes
WHERE schemaname = 'public'
UNION ALL
SELECT 'label', enumtypid::regtype::text, enumlabel, enumsortorder::text, '', '', '' FROM pg_enum
UNION ALL
SELECT 'function', proname, prosrc, '', '', '', '' FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'class', relname, relkind::text, obj_description(oid), '', '', '' FROM pg_class
WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'person', id::text, name, mood::text, age::text, '', '' FROM people
UNION ALL
SELECT 'pet', id::text, owner::text, '', '', '', '' FROM pets
UNION ALL
SELECT 'version', version_num, '', '', '', '', '' FROM alembic_version
"""


def described(url: str) -> list[object]:
    """What is in a database."""
    return sorted(map(repr, ask(url, DESCRIPTION)))


class TestMigrating:
    def test_all_shards_are_upgraded_together(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)
        ready.revise("r2", "r1", 'op.add_column("things", sa.Column("name", sa.Text))')

        run = upgrade(ready)

        assert run.ending.outcome is Outcome.MIGRATED
        assert run.ending.migrated == SHARDS
        assert run.ending.gid
        for url in ready.urls.values():
            assert (ask(url, REVISIONS), ask(url, TABLES)) == ([("r2",)], [(1,)])
            assert ask(url, PREPARED) == [(0,)]

    def test_they_are_downgraded_together(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)
        upgrade(ready)
        config = ready.config()
        config.attributes[RUN_KEY] = AtomicRun(SHARDS)

        command.downgrade(config, "base")

        for url in ready.urls.values():
            assert (ask(url, REVISIONS), ask(url, TABLES)) == ([], [(0,)])

    def test_shards_that_are_there_take_no_part(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)
        upgrade(ready, shards=("s1", "s3"))

        run = upgrade(ready)

        assert run.ending.migrated == ("s0", "s2")

    def test_nothing_due_is_told(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)
        upgrade(ready)

        run = upgrade(ready)

        assert run.ending.outcome is Outcome.NOTHING_DUE
        assert run.ending.sentence() == "every shard is there already"

    def test_shards_without_the_schema_of_ours_get_it_first(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)
        ask(ready.urls["s1"], "DROP SCHEMA shards CASCADE")

        run = upgrade(ready)

        assert run.ending.outcome is Outcome.MIGRATED
        assert ask(ready.urls["s1"], LEDGER) == [("done", ["r1"], None)]

    def test_migrations_bootstrap_shards_that_are_bootstrapped(self, ready: Project) -> None:
        ready.revise("r1", None, f"op.bootstrap_shards()\n{CREATE}", DROP)

        run = upgrade(ready)

        assert run.ending.outcome is Outcome.MIGRATED

    def test_they_leave_markers_for_consistent_reads(self, ready: Project) -> None:
        ready.write(cluster="consistent_reads = true")
        bootstrap(ready)
        ready.revise("r1", None, CREATE, DROP)

        run = upgrade(ready)

        markers = "SELECT count(*) FROM shards.markers"
        assert run.ending.outcome is Outcome.MIGRATED
        assert [ask(url, markers) for url in ready.urls.values()] == [[(3,)]] * 4

    def test_one_shard_alone_needs_no_two_phase_commit(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)

        run = upgrade(ready, shards=("s2",))

        assert (run.ending.outcome, run.ending.gid) == (Outcome.MIGRATED, None)
        assert ask(ready.urls["s2"], REVISIONS) == [("r1",)]

    def test_alembics_own_commands_do_it_when_they_are_told_to(self, ready: Project) -> None:
        ask(ready.urls["s3"], "CREATE TABLE things ()")
        ready.revise("r1", None, CREATE, DROP)

        ended = ready.run("alembic", "-x", "atomic=1", "upgrade", "head")

        assert "nothing was migrated" in ended.stderr
        assert [ask(url, HAS_VERSIONS) for url in ready.urls.values()] == [[(False,)]] * 4

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["atomic=yes"], "-x atomic=yes means nothing; write -x atomic=1"),
            (["atomic"], "-x atomic= names nothing; write -x atomic=1"),
        ],
    )
    def test_what_else_alembic_is_told_means_nothing(
        self, arguments: list[str], reason: str
    ) -> None:
        with pytest.raises(CommandError, match=reason):
            read_selection(arguments, SHARDS)

    def test_a_script_is_not_atomic(self) -> None:
        with pytest.raises(CommandError, match="is not for --sql"):
            read_selection(["atomic=1"], SHARDS, is_offline=True)

    def test_it_is_seen_on_no_shard_before_all_are_done(self, ready: Project) -> None:
        ready.revise("r1", None, f"{CREATE}\n{LOOK}", DROP)
        seen = []
        config = ready.config()
        config.attributes[RUN_KEY] = AtomicRun(SHARDS)
        config.attributes["look"] = lambda: seen.append(
            [ask(url, TABLES) for url in ready.urls.values()]
        )

        command.upgrade(config, "head")

        assert seen == [[[(0,)]] * 4] * 4

    def test_whatever_a_migration_does_means_what_it_always_means(self, ready: Project) -> None:
        ready.write("None", cluster="", env=ENV)
        for revision, down, lines in EVERYTHING:
            ready.revise(revision, down, lines)
        command.upgrade(ready.config(), "head")
        ordinary = [described(url) for url in ready.urls.values()]
        for url in ready.urls.values():
            ask(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")

        upgrade(ready)

        assert [described(url) for url in ready.urls.values()] == ordinary
        assert len(ordinary[0]) > 40


@pytest.mark.slow
def test_forty_databases_of_one_server_need_a_connection_each(
    tmp_path: Path, servers: PostgresServers
) -> None:
    names = tuple(f"a{number:02}" for number in range(40))
    with own_urls(servers, "forty", names) as urls:
        project = Project(tmp_path, urls)
        project.write()
        bootstrap(project)
        project.revise("r1", None, f"{CREATE}\n{LOOK}")
        most = []
        config = project.config()
        config.attributes[RUN_KEY] = run = AtomicRun(names)
        config.attributes["look"] = lambda: most.append(ask(urls["a00"], SESSIONS)[0][0])

        command.upgrade(config, "head")

        found = [(ask(url, REVISIONS), ask(url, PREPARED)) for url in urls.values()]
    assert found == [([("r1",)], [(0,)])] * 40
    assert run.ending.migrated == names
    assert max(most) == 40


class TestFailing:
    def test_a_failure_on_a_later_shard_leaves_every_shard_where_it_was(
        self, ready: Project
    ) -> None:
        ask(ready.urls["s2"], "CREATE TABLE taken (id int)")
        ready.revise("r1", None, CREATE, DROP)
        ready.revise("r2", "r1", 'op.create_table("taken", sa.Column("id", sa.Integer))')
        run = AtomicRun(SHARDS)

        with pytest.raises(ProgrammingError):
            upgrade(ready, run=run)

        assert_nothing_migrated(ready)
        ending = run.ending
        assert (ending.outcome, ending.shard, ending.revision) == (
            Outcome.NOTHING_MIGRATED,
            "s2",
            "r2",
        )

    def test_whoever_stops_it_leaves_every_shard_where_it_was(self, ready: Project) -> None:
        stopped = "if op.get_bind().engine.url.database == 's2':\n    raise KeyboardInterrupt"
        ready.revise("r1", None, f"{CREATE}\n{stopped}", DROP)

        with pytest.raises(KeyboardInterrupt):
            upgrade(ready)

        assert_nothing_migrated(ready)
        assert ask(ready.urls["s2"], LEDGER) == [("interrupted", [], "interrupted")]

    def test_writes_on_several_shards_that_are_refused_are_refused_here(
        self, ready: Project
    ) -> None:
        ready.write(cluster='multi_shard_writes = "refuse"')
        ready.revise("r1", None, CREATE, DROP)

        said = refused(ready, error=ScatterNotAllowed)

        assert "writes on several shards are refused" in said

    def test_what_is_checked_at_commit_leaves_every_shard_where_it_was(
        self, standing: Project
    ) -> None:
        standing.revise("r1", None, f"{CREATE}\n{DEFERRED}", DROP)
        run = AtomicRun(SHARDS)

        with pytest.raises(IntegrityError):
            upgrade(standing, run=run)

        assert_nothing_migrated(standing)
        assert run.ending.outcome is Outcome.NOTHING_MIGRATED

    def test_a_lock_that_is_held_ends_it_in_time(self, ready: Project) -> None:
        for url in ready.urls.values():
            ask(url, "CREATE TABLE busy (id int)")
        ready.revise("r1", None, CREATE + '\nop.execute("ALTER TABLE busy ADD COLUMN x int")')
        waits: list[tuple[str, int, str]] = []
        bounds = Bounds(lock_timeout=0.1, lock_tries=2)
        run = AtomicRun(SHARDS, TurnOptions(bounds=bounds, tell=lambda *wait: waits.append(wait)))

        with psycopg.connect(libpq_url(ready.urls["s3"]), application_name="report") as other:
            other.execute("SELECT * FROM busy")
            pid = other.info.backend_pid
            said = refused(ready, error=MigrationBlocked, run=run)

        holder = rf"process {pid} \(report\) for [\d.]+ m?s with locks on busy"
        assert re.search(
            "shard 's3' could not be migrated: a lock was not to be had in revision 'r1', tried 2 "
            f"times; every shard is where it was; open there are the transactions of {holder}; run",
            said,
        )
        assert [wait[:2] for wait in waits] == [("s3", 1)]
        assert re.search(f"lock timeout; all .* tried again .1 of 2.; .* {holder}$", waits[0][2])
        ending = run.ending
        assert (ending.outcome, ending.shard, ending.revision) == (
            Outcome.NOTHING_MIGRATED,
            "s3",
            "r1",
        )

    def test_it_goes_on_when_the_lock_is_to_be_had(self, ready: Project) -> None:
        for url in ready.urls.values():
            ask(url, "CREATE TABLE busy (id int)")
        ready.revise("r1", None, CREATE + '\nop.execute("ALTER TABLE busy ADD COLUMN x int")')
        with psycopg.connect(libpq_url(ready.urls["s3"])) as other:
            other.execute("SELECT * FROM busy")
            options = TurnOptions(bounds=Bounds(lock_timeout=0.1), tell=lambda *_: other.commit())

            run = upgrade(ready, run=AtomicRun(SHARDS, options))

        assert (run.ending.outcome, run.ending.migrated) == (Outcome.MIGRATED, SHARDS)
        for url in ready.urls.values():
            assert (ask(url, REVISIONS), ask(url, PREPARED)) == ([("r1",)], [(0,)])
            assert ask(url, LEDGER) == [("done", ["r1"], None)]

    def test_who_stops_it_between_two_tries_leaves_every_shard_where_it_was(
        self, ready: Project
    ) -> None:
        for url in ready.urls.values():
            ask(url, "CREATE TABLE busy (id int)")
        ready.revise("r1", None, CREATE + '\nop.execute("ALTER TABLE busy ADD COLUMN x int")')

        def stop(shard: str, attempt: int, reason: str) -> None:
            raise KeyboardInterrupt

        run = AtomicRun(SHARDS, TurnOptions(bounds=Bounds(lock_timeout=0.1), tell=stop))

        with psycopg.connect(libpq_url(ready.urls["s3"])) as other:
            other.execute("SELECT * FROM busy")
            with pytest.raises(KeyboardInterrupt):
                upgrade(ready, run=run)

        assert_nothing_migrated(ready)

    def test_a_shard_that_is_down_leaves_the_others_where_they_were(
        self, standing: Project
    ) -> None:
        standing.revise("r1", None, CREATE, DROP)
        down = {**standing.urls, "s3": standing.urls["s3"].replace("port=", "port=1")}
        Project(standing.directory, down).write()

        refused(standing, error=ShardUnavailable)

    def test_a_server_that_cannot_prepare_leaves_every_shard_where_it_was(
        self, standing: Project
    ) -> None:
        standing.revise("r1", None, CREATE, DROP)
        with PostgresServers(1, settings={"max_prepared_transactions": 0}) as other:
            Project(standing.directory, {**standing.urls, "s3": other.url(0)}).write()
            bootstrap(standing)

            said = refused(standing, error=TransactionAborted)

        assert "max_prepared_transactions is 0" in said

    def test_an_engine_in_autocommit_mode_is_refused(self, standing: Project) -> None:
        standing.revise("r1", None, CREATE, DROP)
        standing.write(cluster='[engine]\nisolation_level = "AUTOCOMMIT"')

        said = refused(standing, error=ConfigurationError)

        assert "AUTOCOMMIT" in said
