from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete

from .app import app
from .models import Account, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(scope="session")
def _client(shard_urls: Mapping[str, str]) -> Iterator[TestClient]:
    for number, url in enumerate(shard_urls.values()):
        os.environ[f"SHARD_{number}"] = url
    with TestClient(app) as client:
        yield client


@pytest.fixture
def client(_client: TestClient) -> Iterator[TestClient]:
    """The running application on four shards; its tables are empty again after the test."""
    yield _client
    with app.state.cluster.engine.begin() as connection:
        for model in (Entry, Account):
            connection.execute(delete(model), execution_options={"shard": "*"})
