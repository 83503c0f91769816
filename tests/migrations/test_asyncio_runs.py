"""``shards migrate`` with an ``env.py`` that has an asyncio cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards.migrations.workers.runner import STOP_SECONDS
from tests.databases import ask
from tests.migrations.atomic import PREPARED
from tests.migrations.project import Project
from tests.migrations.runs import WAITING, all_heads, things
from tests.migrations.turns import CREATE, DROP, holding, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIGRATE = ("sqlalchemy_shards", "migrate")
ENV = """\
from alembic import context
from sqlalchemy_shards import HashPartitioner, Keyspace, create_async_cluster
from sqlalchemy_shards.migrations import run_migrations

keyspaces = {{"default": Keyspace(HashPartitioner(buckets=64))}}
async_cluster = create_async_cluster(%s, name="app", keyspaces=keyspaces)
run_migrations(context, async_cluster, {metadata})
"""


@pytest.fixture
def three(tmp_path: Path, clean_shards: Mapping[str, str]) -> Project:
    """A project on three shards, whose ``env.py`` creates an asyncio cluster."""
    urls = {name: clean_shards[name] for name in ("s0", "s1", "s2")}
    project = Project(tmp_path, urls)
    project.write(env=ENV % repr(urls).replace("{", "{{").replace("}", "}}"))
    project.revise("r1", None, CREATE, DROP)
    project.revise("r2", "r1", 'op.add_column("things", sa.Column("more", sa.Integer))')
    return project


def test_workers_bring_all_shards_to_the_heads_once(three: Project) -> None:
    first = three.run(*MIGRATE, "upgrade", "--parallel", "2", "--canary", "s1")
    again = three.run(*MIGRATE, "upgrade", "--json")
    status = three.run(*MIGRATE, "status", "--json")

    assert (first.returncode, first.stderr) == (0, "")
    assert "3 migrated  base → r2 (2 revisions): s0, s1, s2" in first.stdout
    assert {shard["outcome"] for shard in json.loads(again.stdout)["shards"]} == {"already there"}
    assert all_heads(three) == [["r2"]] * 3
    told = json.loads(status.stdout)["shards"]
    assert status.returncode == 0, status.stderr
    assert [(one["standing"], one["last_run"]["after"]) for one in told] == [
        ("at_head", ["r2"])
    ] * 3


@pytest.mark.slow
def test_what_failed_on_one_shard_goes_on_there(three: Project) -> None:
    ask(three.urls["s1"], "CREATE TABLE things ()")

    failed = three.run(*MIGRATE, "upgrade", "--on-failure", "continue")
    heads_then = all_heads(three)
    ask(three.urls["s1"], "DROP TABLE things")
    ended = three.run(*MIGRATE, "upgrade")

    assert failed.returncode == 1
    assert '1 failed    s1, at base: relation "things" already exists' in failed.stdout
    assert heads_then == [["r2"], None, ["r2"]]
    assert ended.returncode == 0, ended.stdout
    assert all_heads(three) == [["r2"]] * 3


def test_all_shards_or_none(three: Project) -> None:
    ended = three.run(*MIGRATE, "upgrade", "--atomic")
    back = three.run(*MIGRATE, "downgrade", "--atomic", "base")

    assert (ended.returncode, ended.stdout) == (0, "All 3 shards were migrated together.\n")
    assert (back.returncode, back.stdout) == (0, "All 3 shards were migrated together.\n")
    assert all_heads(three) == [[]] * 3


def test_all_shards_or_none_where_one_fails(three: Project) -> None:
    ask(three.urls["s2"], "CREATE TABLE things ()")

    ended = three.run(*MIGRATE, "upgrade", "--atomic")

    assert ended.returncode == 1
    assert "Nothing was migrated: revision 'r1' failed on shard 's2'" in ended.stdout
    assert all_heads(three) == [None] * 3
    assert [ask(url, PREPARED) for url in three.urls.values()] == [[(0,)]] * 3


@pytest.mark.parametrize("options", [(), ("--atomic",)])
def test_whoever_stops_it_stops_it_soon(three: Project, options: tuple[str, ...]) -> None:
    three.revise("r3", "r2", things("held", WAITING))
    # Workers wait for other advisory locks, too: who makes the tables of the ledger.
    waits = "SELECT count(*) > 0 FROM pg_locks WHERE objid = 4711 AND NOT granted"
    with holding(three.urls["s0"], "SELECT pg_advisory_xact_lock(4711)"):
        process = subprocess.Popen(
            [sys.executable, "-m", *MIGRATE, "upgrade", "--lock-timeout", "1m", *options],
            cwd=three.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: bool(ask(three.urls["s0"], waits) == [(True,)]))
        began = monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert monotonic() - began < STOP_SECONDS, "workers had to be killed"
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err
    assert all_heads(three)[0] in (None, [])
    outcome = "SELECT outcome, error FROM shards.migrations"
    assert ask(three.urls["s0"], outcome) == [("interrupted", "interrupted")]
