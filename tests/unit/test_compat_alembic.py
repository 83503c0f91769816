"""Each private name of Alembic that is read still means what it did when it was chosen."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command, context
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from sqlalchemy_shards._compat.alembic import command_of, environment_of, has_plugin, target_of
from sqlalchemy_shards._compat.alembic_errors import let_alembic_print
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENV = """
from alembic import context

context.config.attributes["seen"](context)
"""


@pytest.mark.parametrize(
    ("run", "name", "target"),
    [
        (lambda config: command.upgrade(config, "head"), "upgrade", "head"),
        (lambda config: command.upgrade(config, "+2"), "upgrade", "+2"),
        (lambda config: command.downgrade(config, "base"), "downgrade", "base"),
        (lambda config: command.stamp(config, ["a", "b"]), "stamp", "a b"),
        (lambda config: command.ensure_version(config), "ensure_version", None),
        (lambda config: command.current(config), "display_version", None),
    ],
)
def test_which_command_runs_is_told_from_the_environment(
    tmp_path: Path, run: Callable[[Config], None], name: str, target: str | None
) -> None:
    seen: list[Any] = []
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    config = Config(stdout=StringIO())
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    config.attributes["seen"] = lambda context: seen.append(
        (command_of(environment_of(context)), target_of(environment_of(context)))
    )

    run(config)

    assert seen == [(name, target)]


def test_the_environment_stands_behind_the_module_that_an_env_py_imports(tmp_path: Path) -> None:
    with EnvironmentContext(Config(), ScriptDirectory(tmp_path), tag="x") as environment:
        found = environment_of(context)

        assert found is environment
        assert found.context_opts == {"tag": "x"}


def test_an_environment_is_taken_as_it_is(tmp_path: Path) -> None:
    environment = EnvironmentContext(Config(), ScriptDirectory(tmp_path))

    assert environment_of(environment) is environment


def test_whether_a_plugin_is_registered_is_known() -> None:
    assert has_plugin("alembic.autogenerate.tables")
    assert not has_plugin("nobody's")


def test_an_error_is_alembics_too_while_it_runs_an_env_py(tmp_path: Path) -> None:
    error = ConfigurationError("it is so:", "mend it", faults=["a", "b"], shard="s0")

    let_alembic_print(error)
    before = isinstance(error, CommandError)
    with EnvironmentContext(Config(), ScriptDirectory(tmp_path)):
        let_alembic_print(error)

    assert not before
    assert isinstance(error, CommandError)
    assert isinstance(error, ConfigurationError)
    assert (error.faults, error.shard, type(error).__name__) == (
        ("a", "b"),
        "s0",
        "ConfigurationError",
    )
    assert str(error) == "it is so: a, b; mend it"
