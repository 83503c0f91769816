from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, event

from sqlalchemy_shards.connections.engines import create_shard_engine, instrument_engine
from sqlalchemy_shards.connections.shard import Shard
from sqlalchemy_shards.errors import ConfigurationError, ShardUnavailable

if TYPE_CHECKING:
    from pathlib import Path


def test_engine_arguments_go_to_sqlalchemy() -> None:
    engine = create_shard_engine("s0", "postgresql://app@db0/app", pool_size=3, echo=False)

    assert engine.pool.size() == 3  # type: ignore[attr-defined]
    assert engine.url.drivername == "postgresql+psycopg"


def test_an_unknown_engine_argument_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="engine arguments of shard 's0'"):
        create_shard_engine("s0", "postgresql://app@db0/app", pool_sise=3)


def test_engines_of_other_drivers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="only psycopg 3"):
        instrument_engine(create_engine("sqlite://"))


def test_an_unreachable_shard_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://app:s3cret@/app?host={tmp_path}"
    shard = Shard("s7", create_shard_engine("s7", url))

    with pytest.raises(ShardUnavailable, match=r"shard 's7' at .* cannot be reached") as caught:
        shard.acquire()

    assert caught.value.shard == "s7"
    assert caught.value.is_retryable
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "app:***@" in str(caught.value)


def test_a_password_that_the_driver_quotes_is_not_shown(tmp_path: Path) -> None:
    shard = Shard("s7", create_shard_engine("s7", f"postgresql://app:s3cret@/app?host={tmp_path}"))

    @event.listens_for(shard.engine, "do_connect")
    def put_password_where_it_is_quoted(
        _dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]
    ) -> None:
        parameters["sslmode"] = "s3cret"

    with pytest.raises(ShardUnavailable, match=r"\*\*\*") as caught:
        shard.acquire()

    shown = "".join(str(error) for error in (caught.value, caught.value.__cause__))
    assert "s3cret" not in shown
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__suppress_context__
