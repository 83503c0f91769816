"""Migrating many databases, and looking at them, against a shell loop of Alembic's own command.

Both take databases from nothing to the last revision; then both tell how far these are. The loop
takes `LOOP` of them, and its time is reckoned up: each of its processes does the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import make_url

from .databases import shard_urls
from .report import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy_shards.testing.servers import PostgresServers

DATABASES = 200
LOOP = 40
REVISIONS = 20
RATIO_MAX = 0.25
LOOKING = ("check", "status")
LOOK_SECONDS = "300"
"""How long these wait for the shards: what they take is measured, on however slow a machine."""

REVISION = """\
import sqlalchemy as sa
from alembic import op

revision = "r{number}"
down_revision = {before!r}


def upgrade():
    op.create_table("t{number}", sa.Column("id", sa.BigInteger, primary_key=True))
    op.add_column("t{number}", sa.Column("name", sa.Text))


def downgrade():
    op.drop_table("t{number}")
"""

SHARDED_ENV = """\
from alembic import context
from sqlalchemy_shards import Cluster
from sqlalchemy_shards.migrations import run_migrations

run_migrations(context, Cluster.from_file("shards.toml"))
"""

STOCK_ENV = """\
import os
from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""

RUNNER = """
import json, resource, sys, time
from sqlalchemy_shards.cli import main
began = time.perf_counter()
sys.argv = ["shards", "migrate", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    seconds = time.perf_counter() - began
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps([end.code or 0, seconds, own, worker]), file=sys.stderr)
"""


_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = ANY(%s)"


@dataclass(frozen=True)
class Ran:
    """What one run took; memory is the most that was resident."""

    seconds: float
    parent_megabytes: float
    worker_megabytes: float
    connections: int


def measure(
    servers: PostgresServers, *, databases: int = DATABASES, loop: int = LOOP
) -> Iterator[Figure]:
    """Compare runs of one and of more workers with the loop.

    :param loop: over how many databases the loop runs.
    """
    with shard_urls(servers, loop, prefix="stock") as urls, project(urls, STOCK_ENV) as directory:
        by_loop = looped(directory, list(urls.values()), "upgrade head") * databases / loop
        by_looking = looped(directory, list(urls.values()), "current") * databases / loop
    for workers in (8, 2):
        with (
            shard_urls(servers, databases, prefix=f"by{workers}") as urls,
            project(urls, SHARDED_ENV) as directory,
        ):
            ran = migrated(directory, urls, "upgrade", "--parallel", str(workers))
            again = migrated(directory, urls, "upgrade", "--parallel", str(workers))
            looks = {
                name: migrated(directory, urls, name, "--timeout", LOOK_SECONDS)
                for name in (LOOKING if workers == 2 else ())
            }
        name = f"{databases} databases, {REVISIONS} revisions, {workers} workers"
        yield _figure(name, ran, by_loop, is_goal=workers == 8)
        yield _figure(f"{name}: again, nothing to do", again, by_loop, is_goal=False)
        for command, ran in looks.items():
            yield _figure(f"{databases} databases: {command}", ran, by_looking, is_goal=False)


@contextmanager
def project(urls: Mapping[str, str], env: str) -> Iterator[Path]:
    """A directory with a configuration, an environment and revisions."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        versions = directory / "migrations" / "versions"
        versions.mkdir(parents=True)
        (directory / "migrations" / "env.py").write_text(env)
        (directory / "alembic.ini").write_text(
            "[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n"
        )
        shards = "\n".join(f'{shard} = "{url}"' for shard, url in urls.items())
        (directory / "shards.toml").write_text(f'[cluster]\nname = "bench"\n[shards]\n{shards}\n')
        for number in range(REVISIONS):
            before = f"r{number - 1}" if number else None
            text = REVISION.format(number=number, before=before)
            (versions / f"r{number}.py").write_text(text)
        yield directory


def looped(directory: Path, urls: Sequence[str], command: str) -> float:
    """Seconds of a shell loop: one process of Alembic's for each database.

    :param command: of Alembic's own.
    """
    alembic = f"{sys.executable} -m alembic {command}"
    script = f'while read -r url; do DATABASE_URL="$url" {alembic} || exit 1; done'
    began = perf_counter()
    subprocess.run(
        ["sh", "-c", script],
        cwd=directory,
        input="".join(f"{url}\n" for url in urls),
        text=True,
        check=True,
        capture_output=True,
    )
    return perf_counter() - began


def migrated(directory: Path, urls: Mapping[str, str], *arguments: str) -> Ran:
    """Run ``shards migrate`` in a process of its own, and count its connections meanwhile."""
    with counted_connections(list(urls.values())) as most:
        ended = subprocess.run(
            [sys.executable, "-c", RUNNER, *arguments, "--json"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = ended.stderr.splitlines()
    code, seconds, own, worker = json.loads(lines[-1]) if lines else (1, 0.0, 0.0, 0.0)
    if code:
        raise RuntimeError(ended.stderr + ended.stdout)
    return Ran(seconds, own, worker, max(most))


@contextmanager
def counted_connections(urls: Sequence[str]) -> Iterator[list[int]]:
    """How many connections there were to these databases, again and again while this lasts."""
    names = [str(make_url(url).database) for url in urls]
    places = {
        make_url(url).set(drivername="postgresql", database="postgres").render_as_string(False)
        for url in urls
    }
    counts = [0]
    is_over = threading.Event()

    def count() -> None:
        with ExitStack() as stack:
            servers = [
                stack.enter_context(psycopg.connect(place, autocommit=True)) for place in places
            ]
            while not is_over.wait(0.02):
                rows = [server.execute(_CONNECTIONS, (names,)).fetchone() for server in servers]
                counts.append(sum(row[0] for row in rows if row))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        is_over.set()
        thread.join()


def _figure(name: str, ran: Ran, by_loop: float, *, is_goal: bool) -> Figure:
    ratio = ran.seconds / by_loop
    return Figure(
        name,
        "a loop of Alembic's own command",
        by_loop * 1e6,
        ran.seconds * 1e6,
        ratio,
        ratio,
        f"<= {RATIO_MAX:.2f}x" if is_goal else "",
        ratio <= RATIO_MAX if is_goal else None,
        {
            "connections": ran.connections,
            "parent_megabytes": round(ran.parent_megabytes, 1),
            "worker_megabytes": round(ran.worker_megabytes, 1),
        },
        goal_ratio=RATIO_MAX if is_goal else None,
    )
