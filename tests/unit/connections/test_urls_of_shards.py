from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url

from sqlalchemy_shards.connections.urls import mask_url, parse_url
from sqlalchemy_shards.errors import ConfigurationError


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://app:secret@db0/app",
        "postgresql+psycopg://app:se@cret:secret@db0/app",
        "postgresql+psycopg://app@db0/app?password=secret",
        "postgresql+psycopg://app@db0/app?sslmode=require&sslpassword=secret",
        "postgresql://app:secret@db0:port/app",
        "nonsense://:secret@",
    ],
)
def test_a_masked_url_has_no_password(url: str) -> None:
    assert "secret" not in mask_url(url)


def test_a_masked_url_keeps_the_rest() -> None:
    url = make_url("postgresql+psycopg://app:secret@db0:5433/app?connect_timeout=3")

    assert mask_url(url) == "postgresql+psycopg://app:***@db0:5433/app?connect_timeout=3"
    assert mask_url("postgresql+psycopg://app@db0/app") == "postgresql+psycopg://app@db0/app"


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_psycopg_is_the_driver_of_a_url_that_names_none(scheme: str) -> None:
    assert parse_url("s0", f"{scheme}://app@db0/app").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://app:secret@db0/app",
        "mysql://app:secret@db0/app",
        "sqlite://",
    ],
)
def test_another_driver_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"only psycopg 3 is supported") as caught:
        parse_url("s0", url)

    assert caught.value.shard == "s0"


def test_asyncpg_is_refused_and_why() -> None:
    with pytest.raises(ConfigurationError, match=r"no pipelines.*for asyncio, too") as caught:
        parse_url("s0", "postgresql+asyncpg://app:secret@db0/app")

    assert "secret" not in str(caught.value)


def test_the_asyncio_name_of_psycopg_means_psycopg() -> None:
    parsed = parse_url("s0", "postgresql+psycopg_async://app@db0/app")

    assert parsed.drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url", ["no url:secret@", "postgresql://app:secret@db0:port/app", "", None, 5]
)
def test_what_is_no_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="URL of shard 's0' cannot be read") as caught:
        parse_url("s0", url)

    assert ":secret" not in str(caught.value) or "://" not in url
    assert caught.value.__suppress_context__
