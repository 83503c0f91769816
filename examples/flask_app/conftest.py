from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import create_app
from .models import db

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flask import Flask
    from flask.testing import FlaskClient


@pytest.fixture
def app(shard_urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The application, with empty tables on four shards."""
    for number, url in enumerate(shard_urls.values()):
        monkeypatch.setenv(f"SHARD_{number}", url)
    app = create_app()
    app.test_cli_runner().invoke(args=["create-tables"], catch_exceptions=False)
    yield app
    with app.app_context():
        db.session.remove()
        db.drop_all()
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
