"""A registry per test, disposed of, so that a refused class cannot trouble the next test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.orm import DeclarativeBase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Dialect


@pytest.fixture
def base() -> Iterator[Any]:
    class Base(DeclarativeBase):
        pass

    yield Base
    Base.registry.dispose()


@pytest.fixture
def dialect() -> Dialect:
    return psycopg.dialect()
