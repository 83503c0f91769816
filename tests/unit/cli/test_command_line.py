from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from alembic.config import Config

from sqlalchemy_shards.topology.config import parse_config

if TYPE_CHECKING:
    from pathlib import Path

Shards = Callable[..., Any]


class TestBeginningAndEnding:
    def test_no_command_is_a_usage_error_that_lists_the_commands(self, shards: Shards) -> None:
        result = shards()

        assert result.exit_code == 2
        for command in ("init", "check", "explain", "demo", "map"):
            assert f"\n  {command} " in result.output

    def test_an_unknown_command_is_a_usage_error(self, shards: Shards) -> None:
        assert shards("migrat").exit_code == 2

    def test_the_version_is_that_of_the_package(self, run_python: Callable[..., Any]) -> None:
        result = run_python("-m", "sqlalchemy_shards", "--version")

        assert result.returncode == 0
        assert result.stdout.startswith("0.")

    @pytest.mark.parametrize("module", ["typer", "rich"])
    def test_without_the_extra_one_sentence_says_what_to_install(
        self, run_python: Callable[..., Any], module: str
    ) -> None:
        result = run_python(
            "-c",
            f"import sys; sys.modules[{module!r}] = None\n"
            "from sqlalchemy_shards.cli import main; main()",
        )

        assert result.returncode == 2
        assert "pip install 'sqlalchemy-shards[cli]'" in result.stderr
        assert result.stderr.count("\n") == 1


class TestInit:
    def test_it_writes_a_file_that_is_a_configuration(
        self, shards: Shards, directory: Path
    ) -> None:
        result = shards("init")

        config = parse_config((directory / "shards.toml").read_text(), {}, source="shards.toml")
        assert result.exit_code == 0
        assert list(config.shards) == ["s0", "s1"]

    def test_what_it_comments_out_is_right_too(self, shards: Shards, directory: Path) -> None:
        shards("init")

        lines = (directory / "shards.toml").read_text().splitlines()
        bare = [line.removeprefix("# ") for line in lines if " = " in line or "[" in line]
        config = parse_config("\n".join(bare), {"DB_PASSWORD": "x"}, source="shards.toml")
        assert list(config.shards) == ["s0", "s1", "s2"]
        assert list(config.keyspaces) == ["default", "by_year", "by_region"]

    def test_a_file_that_is_there_stays_as_it_is(self, shards: Shards, directory: Path) -> None:
        (directory / "mine.toml").write_text("precious")

        result = shards("--config", "mine.toml", "init")

        assert result.exit_code == 0
        assert "left as it is" in result.stdout
        assert (directory / "mine.toml").read_text() == "precious"

    def test_an_alembic_environment_is_written_that_knows_the_file(
        self, shards: Shards, directory: Path
    ) -> None:
        result = shards("--config", "mine.toml", "init")

        assert "Wrote alembic.ini and migrations." in result.stdout
        options = Config(directory / "alembic.ini")
        assert options.get_main_option("shards_config") == str(directory / "mine.toml")
        assert "script_location = %(here)s/migrations" in (directory / "alembic.ini").read_text()
        names = {path.name for path in (directory / "migrations").iterdir()}
        assert names == {"README", "env.py", "script.py.mako", "versions"}

    def test_a_file_in_another_directory_has_its_environment_beside_it(
        self, shards: Shards, directory: Path
    ) -> None:
        (directory / "deep").mkdir()

        shards("--config", str(directory / "deep" / "shards.toml"), "init")

        text = (directory / "deep" / "alembic.ini").read_text()
        assert "script_location = %(here)s/migrations" in text

    @pytest.mark.parametrize("name", ["alembic.ini", "pyproject.toml"])
    def test_an_alembic_environment_that_is_there_stays_as_it_is(
        self, shards: Shards, directory: Path, name: str
    ) -> None:
        (directory / name).write_text("[tool.alembic]\n")

        result = shards("init")

        assert result.exit_code == 0
        assert f"{name} is there already" in result.stdout
        assert sorted(path.name for path in directory.iterdir()) == sorted([name, "shards.toml"])

    def test_a_directory_that_is_not_there_is_a_message(self, shards: Shards) -> None:
        result = shards("--config", "no/where/shards.toml", "init")

        assert result.exit_code == 1
        assert "No such file" in result.stderr


class TestConfigurationFaults:
    def test_a_missing_file_is_named_with_what_to_do(self, shards: Shards) -> None:
        result = shards("map", "show")

        assert result.exit_code == 1
        assert "'shards.toml' cannot be read" in result.stderr
        assert "shards init" in result.stderr

    def test_every_fault_is_told_at_once_without_passwords(
        self, shards: Shards, directory: Path
    ) -> None:
        (directory / "shards.toml").write_text(
            """
            [cluster]
            nam = "shop"
            global_shard = "s9"
            [shards]
            s0 = "mysql://app:hunter2@db0/app"
            s1 = "postgresql+psycopg://app:${NO_SUCH_VARIABLE}@db1/app"
            [keyspaces.default]
            partitioner = "hsah"
            """
        )

        result = shards("check")

        assert result.exit_code == 1
        assert "has 5 faults" in result.stderr
        assert "hunter2" not in result.output
        assert "Traceback" not in result.output


def test_a_placement_is_shown_as_the_file_takes_it(shards: Shards, directory: Path) -> None:
    (directory / "shards.toml").write_text(
        """
        [shards]
        s0 = "postgresql://db0/app"
        s1 = "postgresql://db1/app"
        [keyspaces.default]
        partitioner = "hash"
        """
    )
    before = shards("map", "show", "--json").stdout
    placement = shards("map", "show", "--toml").stdout
    with (directory / "shards.toml").open("a") as file:
        file.write(placement)

    assert placement.startswith("# under [keyspaces.default]\nplacement = {")
    assert shards("map", "show", "--json").stdout == before


@pytest.mark.usefixtures("config")
class TestMapShow:
    def test_each_keyspace_has_its_partitioner_and_the_buckets_of_each_shard(
        self, shards: Shards
    ) -> None:
        result = shards("map", "show")

        assert result.exit_code == 0
        assert "Keyspace default: hash into 64 buckets" in result.stdout
        assert "0-31" in result.stdout
        assert "west" in result.stdout
        assert "1999 is pinned to s1" in result.stdout
        assert "hunter2" not in result.stdout

    def test_as_json_it_has_the_whole_placement(self, shards: Shards) -> None:
        shown = json.loads(shards("map", "show", "--json").stdout)

        assert shown["shards"] == ["s0", "s1"]
        assert shown["keyspaces"]["default"]["placement"] == [
            {"buckets": "0-31", "shard": "s0"},
            {"buckets": "32-63", "shard": "s1"},
        ]
        assert shown["keyspaces"]["year"]["pins"] == [{"key": ["1999"], "shard": "s1"}]


@pytest.mark.usefixtures("config")
class TestMapLookup:
    def test_the_bucket_and_the_shard_are_told(self, shards: Shards) -> None:
        result = shards("map", "lookup", "region", "Gujarat")

        assert result.exit_code == 0
        assert result.stdout == "Gujarat (str): bucket west, shard s0\n"

    def test_text_and_number_are_two_keys(self, shards: Shards) -> None:
        number = json.loads(shards("map", "lookup", "default", "42", "--json").stdout)
        text = json.loads(
            shards("map", "lookup", "default", "42", "--type", "str", "--json").stdout
        )

        assert (number["types"], text["types"]) == (["int"], ["str"])
        assert number["bucket"] != text["bucket"]

    def test_a_negative_key_stands_behind_two_dashes(self, shards: Shards) -> None:
        assert shards("map", "lookup", "--", "default", "-5").exit_code == 0

    def test_a_pinned_key_is_said_to_be_pinned(self, shards: Shards) -> None:
        result = shards("map", "lookup", "year", "1999")

        assert result.stdout.endswith("bucket below 2024, shard s1 (the key is pinned there)\n")

    def test_an_unknown_keyspace_is_a_message(self, shards: Shards) -> None:
        result = shards("map", "lookup", "nope", "1")

        assert result.exit_code == 1
        assert "there is no keyspace 'nope'" in result.stderr

    def test_a_key_without_a_bucket_is_a_message(self, shards: Shards) -> None:
        result = shards("map", "lookup", "region", "Kerala")

        assert result.exit_code == 1
        assert "Traceback" not in result.output

    def test_a_key_of_another_type_than_said_is_a_usage_error(self, shards: Shards) -> None:
        assert shards("map", "lookup", "default", "x", "--type", "int").exit_code == 2


@pytest.mark.usefixtures("config")
class TestExplain:
    def test_a_module_that_cannot_be_imported_is_a_message(self, shards: Shards) -> None:
        result = shards("explain", "--models", "no_such_module", "select(1)")

        assert result.exit_code == 1
        assert "no module named 'no_such_module'" in result.stderr.lower()

    @pytest.mark.parametrize(
        ("expression", "said"),
        [("select(Nope)", "NameError"), ("select(", "SyntaxError"), ("1 + 1", "not a statement")],
    )
    def test_what_is_no_statement_is_a_usage_error(
        self, shards: Shards, expression: str, said: str
    ) -> None:
        result = shards("explain", "--models", "sqlalchemy_shards.cli.demo.models", expression)

        assert result.exit_code == 2
        assert said in result.stderr

    def test_an_option_that_routes_nothing_is_a_usage_error(self, shards: Shards) -> None:
        models = ("--models", "sqlalchemy_shards.cli.demo.models")
        result = shards("explain", *models, "select(State)", "--option", "shrad=s0")

        assert result.exit_code == 2
        assert "shard=" in result.stderr


def test_a_demo_of_one_shard_is_a_usage_error(shards: Shards) -> None:
    assert shards("demo", "--shards", "1").exit_code == 2
