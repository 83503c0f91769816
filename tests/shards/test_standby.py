"""Asked over a standby of the decision shard, nobody is told what is not certain.

A standby may not have seen the decision yet, so that "no row" means nothing there. When it is
promoted it is the primary, and can be asked.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psycopg
import pytest

from sqlalchemy_shards.testing.account import Account
from sqlalchemy_shards.testing.binaries import find_binaries
from sqlalchemy_shards.testing.databases import ScratchDatabase
from sqlalchemy_shards.testing.servers import PostgresServers
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.gid import parse
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from tests.databases import libpq_url
from tests.shards.distributed import Shards
from tests.shards.test_recovery import crash
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND = os.environ.get("SHARDS_TEST_BACKEND", "auto")


class Pair:
    """Shards of which `s0`, which decides, lies on a server that has a standby."""

    def __init__(self, urls: dict[str, str], primary: PostgresServers, home: Path) -> None:
        self.urls = urls
        self.primary = primary
        self._home = home

    @contextmanager
    def standby(self) -> Iterator[dict[str, str]]:
        """The URLs with the standby in the primary's place; it has caught up."""
        copy_of(self.primary, self._home / "d0")
        with PostgresServers(1, backend=BACKEND, directory=self._home, keep=True) as standby:
            urls = {**self.urls, "s0": standby.url(0, "standby_s0")}
            wrote = ask(self.urls["s0"], "SELECT pg_current_wal_lsn()::text")
            caught_up = f"SELECT pg_last_wal_replay_lsn() >= '{wrote}'"
            eventually(lambda: ask(urls["s0"], caught_up), "the standby")
            yield urls


@pytest.fixture
def pair(clean_shards: dict[str, str]) -> Iterator[Pair]:
    # Not below a directory of pytest's, which the account of the servers cannot enter.
    with (
        TemporaryDirectory(prefix="standby-") as directory,
        PostgresServers(1, backend=BACKEND) as primary,
        ScratchDatabase(primary.url(0), "standby_s0") as database,
    ):
        home = Path(directory) / "home"
        home.parent.chmod(0o711)
        Account.choose().make_directory(home)
        yield Pair({**clean_shards, "s0": database.url}, primary, home)


def copy_of(primary: PostgresServers, target: Path) -> None:
    """A base backup that follows its server."""
    account = Account.choose()
    spare = target.parent.parent / "programs"
    programs = account.usable_binaries(find_binaries(BACKEND), spare)
    account.make_directory(target)
    source = libpq_url(primary.url(0))
    command = [programs / "pg_basebackup", "-D", target, "-d", source, "-R", "-X", "stream"]
    subprocess.run(
        [*command, "--checkpoint=fast"],
        check=True,
        cwd=target,
        capture_output=True,
        **account.process_arguments,
    )


def ask(url: str, sql: str) -> object:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        row = connection.execute(sql.encode()).fetchone()
    return row and row[0]


def left_on(shards: Shards, shard: str) -> str:
    """The transaction that is prepared there."""
    [prepared] = shards.prepared()[shard]
    part = parse(prepared)
    assert part is not None
    return str(part.of)


@pytest.mark.parametrize(
    ("died_at", "outcome", "amount"),
    [
        (fail_points.BEFORE_DECISION, Outcome.ABORTED, 100),
        (fail_points.AFTER_DECISION, Outcome.COMMITTED, 101),
    ],
)
def test_a_standby_settles_nothing_until_it_is_promoted(
    pair: Pair, died_at: str, outcome: Outcome, amount: int
) -> None:
    with Shards(pair.urls) as shards:
        crash(shards.create(), died_at)
    with pair.standby() as urls, Shards(urls) as over_standby:
        gid = left_on(over_standby, "s1")
        asked = over_standby.recovery().outcome(gid)
        report = over_standby.recovery().recover()
        left = set(over_standby.prepared())
        pair.primary.kill(0)
        ask(urls["s0"], "SELECT pg_promote()")
        asked_again = over_standby.recovery().outcome(gid)
        over_standby.recovery().recover()
        amounts = over_standby.amounts()
        prepared = over_standby.prepared()
        pair.primary.start(0)

    assert asked is Outcome.UNKNOWN
    assert not report.is_clean
    assert left == {"s1", "s2"}
    assert asked_again is outcome
    assert amounts == {"s0": amount, "s1": amount, "s2": amount, "s3": 100}
    assert prepared == {}
