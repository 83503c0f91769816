"""A migration of all shards or none, as what a client does while a fault happens.

It makes a table, fills it, and adds 1 to every account, so that what became of it can be told as of
any other transaction (`trial`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config

from sqlalchemy_shards.migrations.atomic.run import AtomicRun
from sqlalchemy_shards.migrations.turns.run import RUN_KEY
from sqlalchemy_shards.transactions import fail_points
from tests.faults.arrows import _COMMITTING, Arrow
from tests.faults.world import SHARDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.migrations.atomic.ending import Outcome
    from tests.faults.world import World

ENV: Final = """\
from alembic import context
from sqlalchemy_shards.migrations import run_migrations

run_migrations(context, context.config.attributes["cluster"])
"""

FIRST: Final = f"""\
from alembic import context, op
import sqlalchemy as sa
from sqlalchemy_shards.migrations.turns.place import place_of

revision, down_revision = "r1", None


def upgrade():
    place = place_of(op.get_context())
    reach = place.cluster.hooks.reach
    op.execute("UPDATE account SET amount = amount + 1")
    reach({fail_points.BEFORE_STATEMENT!r}, place.shard)
    op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))
    reach({fail_points.AFTER_STATEMENT!r}, place.shard)
    if context.config.attributes["in vain"] and place.shard == "s2":
        op.execute("INSERT INTO slot VALUES (1), (1)")
"""

SECOND: Final = """\
from alembic import op
import sqlalchemy as sa

revision, down_revision = "r2", "r1"


def upgrade():
    op.add_column("things", sa.Column("name", sa.Text))
    op.execute("INSERT INTO things VALUES (1, 'one')")
    op.create_index("ix_things", "things", ["name"])
"""

STATE: Final = """
SELECT (SELECT array_agg(version_num) FROM alembic_version),
    (SELECT array_agg(column_name::text ORDER BY column_name) FROM information_schema.columns
        WHERE table_name = 'things'),
    (SELECT array_agg(indexname::text ORDER BY indexname) FROM pg_indexes
        WHERE tablename = 'things')
"""
BEFORE: Final = (None, None, None)
AFTER: Final = (["r2"], ["id", "name"], ["ix_things", "things_pkey"])


def write_scripts(directory: Path) -> None:
    """Write the script directory."""
    (directory / "versions").mkdir()
    (directory / "env.py").write_text(ENV)
    (directory / "versions" / "r1.py").write_text(FIRST)
    (directory / "versions" / "r2.py").write_text(SECOND)


@dataclass
class Migrate:
    """Upgrades all shards or none; called with a cluster, in this process or another.

    :param in_vain: a constraint that `s2` looks at last is broken.
    """

    scripts: Path
    in_vain: bool = False
    runs: list[AtomicRun] = field(default_factory=list)

    def __call__(self, cluster: Cluster) -> None:
        run = AtomicRun(SHARDS)
        self.runs.append(run)
        config = Config()
        config.set_main_option("script_location", str(self.scripts))
        config.attributes.update({"cluster": cluster, "in vain": self.in_vain, RUN_KEY: run})
        command.upgrade(config, "head")

    @property
    def told(self) -> Outcome | None:
        """What the run says of its end, if it was this process that ran it."""
        return self.runs[-1].ending.outcome if self.runs else None


def arrows_of(scripts: Path) -> Iterator[Arrow]:
    """The arrows of the protocol, where what is committed is a migration."""
    patterns = {
        "statement": r"(?s)CREATE TABLE things",
        "round 0": r"SELECT pg_catalog\.pg_current_xact_id_if_assigned\(",
    }
    # Of what a migration has done it is not known whether the shard can decide.
    for arrow in (each for each in _COMMITTING if each.name != "early xid"):
        action = Migrate(scripts, in_vain=arrow.name == "rollback")
        yield replace(arrow, action=action, pattern=patterns.get(arrow.name, arrow.pattern))


def states(world: World) -> list[object]:
    """The migrations' traces on every shard; a version table is there everywhere."""
    return [world.ask(name, STATE)[0] for name in SHARDS]


def done(world: World) -> list[bool]:
    """Whether the ledger of every shard says that its migration is done."""
    is_done = "SELECT count(*) FROM shards.migrations WHERE outcome = 'done'"
    return [world.ask(name, is_done) == [(1,)] for name in SHARDS]


def begin(world: World) -> None:
    """No trace of a migration, but an empty version table."""
    for name in SHARDS:
        world.ask(name, "DELETE FROM shards.migrations")
        world.ask(name, "DROP TABLE IF EXISTS things, alembic_version")
        world.ask(name, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        # What comes before the migrations is committed by itself, and is no arrow of theirs.
        world.proxies[name].heed_from("^UPDATE account")


def end(world: World) -> None:
    """No trace at all."""
    for name in SHARDS:
        world.ask(name, "DROP TABLE IF EXISTS things, alembic_version")
