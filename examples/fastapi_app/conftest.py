from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from .app import app
from .models import Base

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture
def client(shard_urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The running application, with empty tables on four shards."""
    for number, url in enumerate(shard_urls.values()):
        monkeypatch.setenv(f"SHARD_{number}", url)
    with TestClient(app) as client:
        yield client
        app.state.cluster.drop_all(Base.metadata)
