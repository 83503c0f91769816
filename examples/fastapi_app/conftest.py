from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from . import app, async_app

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(scope="session", params=["threads", "asyncio"])
def _client(shard_urls: Mapping[str, str], request: pytest.FixtureRequest) -> Iterator[TestClient]:
    for number, url in enumerate(shard_urls.values()):
        os.environ[f"SHARD_{number}"] = url
    with TestClient(app if request.param == "threads" else async_app) as client:
        yield client


@pytest.fixture
def client(_client: TestClient, shard_urls: Mapping[str, str]) -> Iterator[TestClient]:
    """The running application on four shards; its tables are empty again after the test."""
    yield _client
    for url in shard_urls.values():
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE entries, accounts"))
        engine.dispose()
