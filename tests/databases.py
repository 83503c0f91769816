"""Databases of one module's own, for clusters and the one database that they are held against."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

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
