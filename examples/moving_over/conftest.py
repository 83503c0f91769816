"""Runs the tests of the help desk as it was before, and on its way to a cluster.

pytest examples/moving_over --stage before        plain SQLAlchemy, one database
pytest examples/moving_over --stage undeclared    the old models on a cluster of one shard
pytest examples/moving_over --stage one-shard     the new models on a cluster of one shard
pytest examples/moving_over --stage four-shards   the new models on four shards (the default)
pytest examples/moving_over --stage back          the new models by plain SQLAlchemy again
"""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.orm import Session

HERE = Path(__file__).parent


class Stage(NamedTuple):
    """Which of the two models.py and of the two database.py the application is made of."""

    models: str
    database: str
    shards_file: str = ""


STAGES = {
    "before": Stage("before", "before"),
    "undeclared": Stage("before", "after", "one-shard.toml"),
    "one-shard": Stage("after", "after", "one-shard.toml"),
    "four-shards": Stage("after", "after", "four-shards.toml"),
    "back": Stage("after", "before"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stage", choices=list(STAGES), default="four-shards")


def pytest_configure(config: pytest.Config) -> None:
    sys.path.insert(0, str(HERE / "shared"))
    _load("models", STAGES[config.getoption("--stage")].models)


@pytest.fixture(scope="session")
def database(shard_urls: Mapping[str, str], pytestconfig: pytest.Config) -> Iterator[Any]:
    """The application's module `helpdesk.database`, with its tables made."""
    stage = STAGES[pytestconfig.getoption("--stage")]
    os.environ["DATABASE_URL"] = shard_urls["s0"]
    os.environ["SHARDS_FILE"] = str(HERE / stage.shards_file)
    for number, url in enumerate(shard_urls.values()):
        os.environ[f"SHARD_{number}"] = url
    module = _load("database", stage.database)
    module.create_tables()
    with module.Session.begin() as session:
        from helpdesk.models import Plan

        session.add_all([Plan(code="small", seats=2, cents_a_month=900)])
        session.add_all([Plan(code="large", seats=50, cents_a_month=9900)])
    yield module
    module.engine.dispose()


@pytest.fixture
def session(database: Any) -> Iterator[Session]:
    """A session that may commit; nothing of it stays after the test."""
    with database.engine.connect() as connection, connection.begin() as outer:
        arguments = {"bind": connection, "join_transaction_mode": "create_savepoint"}
        with database.Session(**arguments) as session:
            yield session
        outer.rollback()


def _load(name: str, directory: str) -> Any:
    path = HERE / directory / "helpdesk" / f"{name}.py"
    spec = spec_from_file_location(f"helpdesk.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
