"""PostgreSQL servers in containers, where a Docker engine answers and testcontainers is installed.

Each shard is a container of its own, removed at the end; testcontainers' reaper removes those of
a killed run.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy_shards.testing.settings import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "postgres:18-alpine"
PROBE_SECONDS = 1.0

_DEFAULT_HOST = "unix:///var/run/docker.sock"
_DEFAULT_PORT = 2375


def is_docker_available() -> bool:
    """Return whether testcontainers is installed and a Docker engine takes connections."""
    return importlib.util.find_spec("testcontainers") is not None and _engine_answers()


@contextmanager
def docker_servers(count: int) -> Iterator[list[str]]:
    """Run `count` PostgreSQL containers; yield their SQLAlchemy URLs, passwords included."""
    from testcontainers.community.postgres import PostgresContainer

    settings = " ".join(f"-c {name}={value}" for name, value in DEFAULT_SETTINGS.items())
    with ExitStack() as stack:
        containers = [
            stack.enter_context(
                PostgresContainer(IMAGE, driver="psycopg")
                .with_env("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --no-locale")
                .with_command(f"postgres {settings}")
            )
            for _ in range(count)
        ]
        yield [container.get_connection_url() for container in containers]


def _engine_answers() -> bool:
    # docker.from_env().ping() leaks a socket when nobody answers.
    url = urlsplit(os.environ.get("DOCKER_HOST") or _DEFAULT_HOST)
    address: str | tuple[str, int]
    if url.scheme == "unix" and hasattr(socket, "AF_UNIX"):
        family, address = socket.AF_UNIX, url.path
    elif url.scheme in ("tcp", "http", "https") and url.hostname:
        family, address = socket.AF_INET, (url.hostname, url.port or _DEFAULT_PORT)
    else:
        return False
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True
