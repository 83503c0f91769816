"""``shards transactions``, on real shards with transactions in doubt."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from typer.testing import CliRunner

from sqlalchemy_shards.cli.main import create_app
from sqlalchemy_shards.transactions.gid import parse_transaction
from tests.databases import libpq_url
from tests.shards.distributed import Shards
from tests.shards.test_recovery_at_scale import leave_prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards.testing.servers import PostgresServers

    Command = Callable[..., Any]

NOW = ("--older-than", "0s")


@pytest.fixture
def shards(clean_shards: dict[str, str]) -> Iterator[Shards]:
    with Shards(clean_shards) as shards:
        shards.create()
        shards.everywhere("CREATE SEQUENCE ids START 100")
        yield shards


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_shards: Mapping[str, str]
) -> Command:
    """Runs ``shards transactions`` with arguments, on the four shards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    urls = "".join(f'{name} = "{url}"\n' for name, url in clean_shards.items())
    (tmp_path / "shards.toml").write_text(f'[cluster]\nname = "shop"\n[shards]\n{urls}')

    def run(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(create_app(), ["transactions", *arguments], **options)

    return run


def name_of(gid: str) -> str:
    transaction = parse_transaction(gid)
    assert transaction is not None
    return transaction.transaction.hex


class TestList:
    def test_nothing_in_doubt(self, shards: Shards, command: Command) -> None:
        done = command("list")

        assert done.exit_code == 0
        assert done.stdout == "Cluster shop: 0 transactions in doubt\n"

    def test_it_tells_what_is_prepared_where_and_changes_nothing(
        self, shards: Shards, command: Command
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)
        shards.enlist("s3").run("CREATE TABLE f ()").run("PREPARE TRANSACTION 'nightly import'")

        done = command("list")

        [row] = [line for line in done.stdout.splitlines() if name_of(gid) in line]
        assert row.split()[2:] == ["s0", "s1,", "s2", name_of(gid)]
        assert re.search(
            r"s3: 'nightly import', prepared \d+ s ago by postgres, is somebody else's", done.stdout
        )
        assert done.exit_code == 0
        assert set(shards.prepared()) == {"s1", "s2", "s3"}

    def test_json_has_the_whole_gid(self, shards: Shards, command: Command) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)

        done = command("list", "--json")

        [listed] = json.loads(done.stdout)["in_doubt"]
        assert (listed["gid"], listed["decision_shard"]) == (gid, "s0")
        assert listed["prepared"] == ["s1", "s2"]
        assert listed["age_seconds"] > 0

    def test_a_shard_that_is_down_makes_it_fail_after_the_rest_is_told(
        self, shards: Shards, command: Command, servers: PostgresServers
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)
        servers.stop(0)

        done = command("list")
        servers.start(0)

        assert done.exit_code == 1
        assert f"s0? (no answer)  s1, s2       {name_of(gid)}" in done.stdout
        assert "s0 does not answer: " in done.stdout


class TestRecover:
    def test_it_finishes_what_is_settled(self, shards: Shards, command: Command) -> None:
        leave_prepared(shards, 2, committed=True)
        leave_prepared(shards, 1, committed=False)

        done = command("recover", *NOW)

        assert done.exit_code == 0
        assert "committed 2 transactions (4 parts on s1, s2)" in done.stdout
        assert "rolled back 1 transaction (2 parts on s1, s2)" in done.stdout
        assert shards.prepared() == {}

    def test_the_young_are_left_alone(self, shards: Shards, command: Command) -> None:
        leave_prepared(shards, 1, committed=True)

        done = command("recover")

        assert done.exit_code == 0
        assert "left alone: 1 transaction younger than 1 min" in done.stdout
        assert set(shards.prepared()) == {"s1", "s2"}

    def test_json_tells_which_were_left_alone_for_their_age(
        self, shards: Shards, command: Command
    ) -> None:
        leave_prepared(shards, 1, committed=True)

        done = command("recover", "--json")

        [left] = json.loads(done.stdout)["in_doubt"]
        assert (left["is_young"], left["prepared"]) == (True, ["s1", "s2"])
        assert done.exit_code == 0

    def test_one_transaction_can_be_named_by_the_beginning_of_its_name(
        self, shards: Shards, command: Command
    ) -> None:
        first, second = leave_prepared(shards, 2, committed=True)

        done = command("recover", "--gid", name_of(first)[:12])
        whole = command("recover", "--gid", second)

        assert "committed 1 transaction (2 parts on s1, s2)" in done.stdout
        assert (done.exit_code, whole.exit_code) == (0, 0)
        assert shards.prepared() == {}

    def test_what_cannot_be_finished_makes_it_fail_and_says_what_to_do(
        self, shards: Shards, command: Command, servers: PostgresServers
    ) -> None:
        leave_prepared(shards, 1, committed=True)
        servers.stop(0)

        done = command("recover", *NOW)
        as_json = command("recover", *NOW, "--json")
        servers.start(0)

        assert done.exit_code == as_json.exit_code == 1
        assert "1 transaction in doubt still" in done.stdout
        assert "see shards transactions resolve --help" in done.stdout
        assert list(json.loads(as_json.stdout)["unreachable"]) == ["s0"]
        assert [one["is_young"] for one in json.loads(as_json.stdout)["in_doubt"]] == [False]

    @pytest.mark.parametrize(
        "arguments",
        [("--older-than", "soon"), ("--gid", "abc"), ("--older-then", "1m")],
        ids=" ".join,
    )
    def test_what_cannot_be_understood_is_a_usage_error(
        self, command: Command, arguments: tuple[str, ...]
    ) -> None:
        assert command("recover", *arguments).exit_code == 2

    def test_a_name_that_no_transaction_has_fails(self, shards: Shards, command: Command) -> None:
        done = command("recover", "--gid", uuid4().hex)

        assert done.exit_code == 1
        assert "no transaction in doubt is called" in done.stderr


class TestResolve:
    def test_it_is_refused_while_the_decision_shard_tells(
        self, shards: Shards, command: Command
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)

        done = command("resolve", "--gid", name_of(gid), "--rollback", "--yes")

        assert done.exit_code == 1
        assert "the decision shard answers: the transaction is committed" in done.stderr
        assert set(shards.prepared()) == {"s1", "s2"}

    def test_the_name_must_be_typed(
        self, shards: Shards, command: Command, servers: PostgresServers
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)
        servers.stop(0)

        refused = command("resolve", "--gid", gid, "--commit", input=f"{name_of(gid)[:8]}\n")
        left = set(prepared_on(shards, "s1", "s2"))
        done = command("resolve", "--gid", gid, "--commit", input=f"{name_of(gid)}\n")
        after = prepared_on(shards, "s1", "s2")
        servers.start(0)

        assert "If that shard comes back and says otherwise" in refused.stderr
        assert "That is not its whole name: nothing was done." in refused.stderr
        assert (refused.exit_code, left) == (1, {"s1", "s2"})
        assert (done.exit_code, after) == (0, [])
        assert "committed 1 transaction (2 parts on s1, s2)" in done.stdout
        assert shards.ask("s1", "SELECT count(*) FROM account") == [(2,)]

    def test_yes_asks_nothing_and_json_is_alone_on_stdout(
        self, shards: Shards, command: Command, servers: PostgresServers
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=False)
        servers.stop(0)

        done = command("resolve", "--gid", gid, "--rollback", "--yes", "--json")
        servers.start(0)

        assert done.exit_code == 0
        finished = json.loads(done.stdout)["finished"]
        assert {(one["shard"], one["outcome"]) for one in finished} == {
            ("s1", "aborted"),
            ("s2", "aborted"),
        }

    def test_it_is_refused_while_the_decision_shard_is_hidden_by_swapped_urls(
        self, shards: Shards, command: Command
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)
        config = Path("shards.toml")
        s0, s3 = (line for line in config.read_text().splitlines() if line[:2] in ("s0", "s3"))
        swapped = config.read_text().replace(s0[5:], "?").replace(s3[5:], s0[5:])
        config.write_text(swapped.replace("?\n", f"{s3[5:]}\n"))

        done = command("resolve", "--gid", gid, "--rollback", "--yes")

        assert done.exit_code == 1
        assert "which may be the decision shard, is not lost" in done.stderr
        assert set(shards.prepared()) == {"s1", "s2"}

    def test_it_is_refused_while_the_decision_shards_server_lives_and_lets_nobody_in(
        self, shards: Shards, command: Command, one_database_url: str
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)
        with closed_to_all(one_database_url, "s0"):
            done = command("resolve", "--gid", gid, "--rollback", "--yes")

        assert done.exit_code == 1
        assert "not currently accepting connections" in done.stderr
        assert set(shards.prepared()) == {"s1", "s2"}

    def test_a_decision_shard_that_was_replaced_counts_as_gone(
        self, shards: Shards, command: Command
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)
        shards.ask("s0", "UPDATE shards.identity SET shard_uuid = gen_random_uuid()")

        listed = command("list")
        done = command("resolve", "--gid", gid, "--commit", "--yes")

        assert "no shard of this cluster" in listed.stdout
        assert done.exit_code == 0
        assert shards.prepared() == {}

    def test_what_another_shard_has_committed_cannot_be_rolled_back(
        self, shards: Shards, command: Command, servers: PostgresServers
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)
        transaction = parse_transaction(gid)
        assert transaction is not None
        shards.ask(
            "s3",
            f"INSERT INTO shards.markers VALUES ('{transaction.decision_shard}',"
            f" '{transaction.decision_xid}', '{gid}')",
        )
        servers.stop(0)

        refused = command("resolve", "--gid", gid, "--rollback", "--yes")
        done = command("resolve", "--gid", gid, "--commit", "--yes")
        servers.start(0)

        assert refused.exit_code == 1
        assert "committed on 's3', so that it must not be rolled back" in refused.stderr
        assert done.exit_code == 0

    def test_what_is_prepared_nowhere_cannot_be_resolved(
        self, shards: Shards, command: Command, servers: PostgresServers
    ) -> None:
        [gid] = leave_prepared(shards, 1, committed=True)
        servers.stop(0)
        first = command("resolve", "--gid", gid, "--commit", "--yes")
        second = command("resolve", "--gid", gid, "--rollback", "--yes")
        servers.start(0)

        assert (first.exit_code, second.exit_code) == (0, 1)
        assert "nothing of the transaction is prepared" in second.stderr

    @pytest.mark.parametrize("how", [(), ("--commit", "--rollback")], ids=str)
    def test_commit_or_rollback_must_be_said(self, command: Command, how: tuple[str, ...]) -> None:
        assert command("resolve", "--gid", "abcdef", *how).exit_code == 2


@contextmanager
def closed_to_all(url: str, database: str) -> Iterator[None]:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        alter = f"ALTER DATABASE {database} WITH ALLOW_CONNECTIONS".encode()
        connection.execute(alter + b" false")
        try:
            yield
        finally:
            connection.execute(alter + b" true")


def prepared_on(shards: Shards, *names: str) -> list[str]:
    return [name for name in names if shards.ask(name, "SELECT 1 FROM pg_prepared_xacts")]
