"""Ctrl-C in the middle of a scatter: nothing runs on, and the session goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import psycopg

from tests.databases import libpq_url
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = textwrap.dedent(
    """
    import json, sys
    from sqlalchemy import text
    from sqlalchemy_shards import ShardedSession, create_cluster

    cluster = create_cluster(json.loads(sys.argv[1]))
    with ShardedSession(cluster) as session:
        everywhere = {"shard": "*"}
        session.execute(text("select 1"), execution_options=everywhere)
        try:
            sleep = text("select pg_sleep(60) -- interrupted")
            session.execute(sleep, execution_options=everywhere)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        session.rollback()
        rows = session.execute(text("select 1"), execution_options=everywhere).all()
        print("then", len(rows), flush=True)
    """
)


def test_ctrl_c_in_a_scatter_cancels_everywhere_and_leaves_a_usable_session(
    clean_shards: Mapping[str, str],
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(dict(clean_shards))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(
        lambda: sum(map(_sleepers, clean_shards.values())) == len(clean_shards),
        "the statement on every shard",
    )

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)

    assert output.split("\n")[:2] == ["interrupted", "then 4"], errors
    assert process.returncode == 0, errors
    assert sum(map(_sleepers, clean_shards.values())) == 0


def _sleepers(url: str) -> int:
    with psycopg.connect(libpq_url(url)) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity "
            "where state = 'active' and query like '% -- interrupted'"
            " and datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])
