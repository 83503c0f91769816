"""Databases of one module's own, and SQL that is run beside SQLAlchemy."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import make_url

from sqlalchemy_shards.testing.databases import ScratchDatabase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers


@contextmanager
def own_urls(
    servers: PostgresServers, prefix: str, names: Iterable[str], *, spread: bool = False
) -> Iterator[dict[str, str]]:
    """Name -> URL of a new database, dropped at the end; the servers run then, too.

    :param spread: they lie on one server after the other; else all on the first.
    """
    numbers = {name: place % servers.count * spread for place, name in enumerate(names)}
    used = sorted(set(numbers.values()))
    for number in used:
        servers.start(number)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(ScratchDatabase(servers.url(number), f"{prefix}_{name}")).url
            for name, number in numbers.items()
        }
        for number in used:
            servers.start(number)


def libpq_url(url: str) -> str:
    """The same URL as psycopg takes it, without SQLAlchemy."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection in autocommit mode, without SQLAlchemy."""
    # Never prepared: a query may be several statements.
    return psycopg.connect(libpq_url(url), autocommit=True, prepare_threshold=None)


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    """Run SQL over a connection of its own."""
    with connect(url) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []
