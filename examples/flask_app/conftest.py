from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from . import create_app
from .models import Post, SignUp, User, db

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flask import Flask
    from flask.testing import FlaskClient


@pytest.fixture(scope="session")
def _app(shard_urls: Mapping[str, str]) -> Iterator[Flask]:
    for number, url in enumerate(shard_urls.values()):
        os.environ[f"SHARD_{number}"] = url
    app = create_app()
    yield app
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


@pytest.fixture
def app(_app: Flask) -> Iterator[Flask]:
    """The application on four shards; its tables are empty again after the test."""
    yield _app
    with _app.app_context():
        for model in (SignUp, Post, User):
            db.session.execute(db.delete(model), execution_options={"shard": "*"})
        db.session.commit()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
