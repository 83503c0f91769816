from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, func, select, text

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture
def configuration(clean_shards: Mapping[str, str], tmp_path: Path) -> Path:
    path = tmp_path / "shards.toml"
    shards = "".join(f'{name} = "{url}"\n' for name, url in clean_shards.items())
    path.write_text(f"[shards]\n{shards}", encoding="utf-8")
    return path


def test_a_url_that_names_a_file_is_the_whole_cluster(configuration: Path) -> None:
    engine = create_engine(f"postgresql+shards:///{configuration}")

    try:
        with engine.connect() as connection:
            statement = select(func.current_database())
            found = [
                connection.scalar(statement, execution_options={"shard": f"s{number}"})
                for number in range(4)
            ]
    finally:
        engine.dispose()

    assert found == ["s0", "s1", "s2", "s3"]


def test_disposing_of_the_engine_closes_the_connections_of_the_shards(configuration: Path) -> None:
    engine = create_engine(f"postgresql+shards:///{configuration}")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"), execution_options={"shard": "*"})
    cluster = engine.dialect.cluster  # type: ignore[attr-defined]
    open_before = [shard.engine.pool.checkedin() for shard in cluster.shards.values()]

    engine.dispose()

    open_after = [shard.engine.pool.checkedin() for shard in cluster.shards.values()]
    assert min(open_before) >= 1
    assert open_after == [0, 0, 0, 0]


def test_an_engine_can_be_used_after_it_was_disposed_of(configuration: Path) -> None:
    engine = create_engine(f"postgresql+shards:///{configuration}")
    engine.dispose()

    try:
        with engine.connect() as connection:
            found = connection.scalar(text("SELECT 1"), execution_options={"shard": "s2"})
    finally:
        engine.dispose()

    assert found == 1


def test_a_url_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="names no configuration file"):
        create_engine("postgresql+shards://")


def test_an_isolation_level_of_the_engine_comes_back_after_that_of_a_connection(
    configuration: Path,
) -> None:
    engine = create_engine(f"postgresql+shards:///{configuration}", isolation_level="SERIALIZABLE")
    current = text("SELECT current_setting('transaction_isolation')")

    try:
        with engine.connect() as connection:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
            changed = connection.scalar(current, execution_options={"shard": "s1"})
        with engine.connect() as connection:
            found = connection.scalar(current, execution_options={"shard": "s1"})
    finally:
        engine.dispose()

    assert (changed, found) == ("repeatable read", "serializable")
