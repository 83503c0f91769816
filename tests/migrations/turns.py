"""What tests of shards' turns have in common."""

from __future__ import annotations

import re
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from tests.databases import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from tests.migrations.project import Project

CREATE = 'op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))'
DROP = 'op.drop_table("things")'
ADD = 'op.add_column("things", sa.Column("more", sa.Integer))'
LEDGER = (
    "SELECT command, target, outcome, revisions_before, revisions_after, error"
    " FROM shards.migrations ORDER BY id"
)
REVISIONS = "SELECT version_num FROM alembic_version"
BOUNDS = "bounds=Bounds(lock_timeout=0.1, lock_tries=3, runner_timeout=0.2)"
WAITS = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"


def give_bounds(project: Project, bounds: str) -> None:
    """Let ``env.py`` say how long to wait, and whatever else it says to `run_migrations`."""
    env = (project.scripts / "env.py").read_text()
    env = env.replace("import run_migrations", "import Bounds, run_migrations")
    (project.scripts / "env.py").write_text(re.sub(r"(, None.*)\)", rf"\1, {bounds})", env))


@contextmanager
def holding(url: str, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that holds locks, until the end of the block or of the transaction."""
    with connect(url) as holder:
        holder.execute("BEGIN")
        holder.execute(statement.encode())
        yield holder


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition, for a minute."""
    until = monotonic() + 60
    while not is_so():
        assert monotonic() < until, "waited in vain"
        sleep(0.01)
