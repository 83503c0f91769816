"""Chooses where the PostgreSQL servers of a test run come from, and starts them.

In this order: the servers that `SHARDS_TEST_URLS` names, containers where a Docker engine answers,
PostgreSQL's programs on this machine, the `embedded` extra. `SHARDS_TEST_BACKEND` picks one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing.docker import docker_servers, is_docker_available

if TYPE_CHECKING:
    from collections.abc import Iterator

URLS_VARIABLE = "SHARDS_TEST_URLS"
BACKEND_VARIABLE = "SHARDS_TEST_BACKEND"


class Backend(Enum):
    """Where servers come from; the values are those of `SHARDS_TEST_BACKEND`."""

    AUTO = "auto"
    URLS = "urls"
    DOCKER = "docker"
    SYSTEM = "system"
    EMBEDDED = "embedded"


@contextmanager
def start_shards(count: int = 4) -> Iterator[list[str]]:
    """Yield SQLAlchemy URLs of `count` PostgreSQL servers, one database each; stop them after.

    The databases are those that the servers came with: make your own on them.

    :raises ConfigurationError: there is no PostgreSQL to be had, or a variable has a bad value.
    """
    backend = chosen_backend()
    if backend is Backend.URLS:
        yield _urls_from_environment(count)
    elif backend is Backend.DOCKER:
        with docker_servers(count) as urls:
            yield urls
    else:
        # Here, since it needs modules that only Unix has.
        from sqlalchemy_shards.testing.servers import PostgresServers

        with PostgresServers(count, backend=backend.value) as servers:
            yield [servers.url(number) for number in range(count)]


def chosen_backend() -> Backend:
    """Return what `SHARDS_TEST_BACKEND` says; for ``auto``, the first that can be had.

    ``AUTO`` is returned where it is left to the programs on this machine.

    :raises ConfigurationError: the value is unknown.
    """
    value = os.environ.get(BACKEND_VARIABLE) or Backend.AUTO.value
    try:
        backend = Backend(value)
    except ValueError:
        raise ConfigurationError(
            f"{BACKEND_VARIABLE} is {value!r}",
            f"set it to one of {', '.join(known.value for known in Backend)}",
        ) from None
    if backend is not Backend.AUTO:
        return backend
    if os.environ.get(URLS_VARIABLE):
        return Backend.URLS
    return Backend.DOCKER if is_docker_available() else Backend.AUTO


def _urls_from_environment(count: int) -> list[str]:
    urls = [url.strip() for url in os.environ.get(URLS_VARIABLE, "").split(",") if url.strip()]
    if len(urls) < count:
        raise ConfigurationError(
            f"{URLS_VARIABLE} names {len(urls)} databases, but {count} are needed",
            "separate the URLs by commas; a server may be named several times",
        )
    return [_with_driver(url, number) for number, url in enumerate(urls[:count])]


def _with_driver(text: str, number: int) -> str:
    try:
        url = make_url(text)
    except ArgumentError:
        # Its own message would show the text, with the password in it.
        raise ConfigurationError(
            f"URL number {number + 1} in {URLS_VARIABLE} cannot be read as a URL",
            "write it like postgresql://user:password@host:5432/database",
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)
