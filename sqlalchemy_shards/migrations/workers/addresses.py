"""Where the shards of a cluster are, in a form that two processes can compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL

    from sqlalchemy_shards.cluster.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Addresses:
    """The shards of a cluster, in its order.

    :param cluster: its name.
    :param shards: shard -> server and database, without users, passwords and drivers.
    """

    cluster: str
    shards: Mapping[str, str]


def addresses_of(cluster: Cluster) -> Addresses:
    """Where the shards of a cluster are."""
    shards = {name: address_of(shard.engine.url) for name, shard in cluster.shards.items()}
    return Addresses(cluster.name, shards)


def address_of(url: URL) -> str:
    """Server and database of a URL.

    >>> from sqlalchemy import make_url
    >>> address_of(make_url("postgresql+psycopg://app:secret@db1/shop"))
    'db1:5432/shop'
    """
    host = url.host or _text(url.query.get("host")) or ""
    port = url.port or _text(url.query.get("port")) or 5432
    return f"{host}:{port}/{url.database or ''}"


def difference(own: Addresses, others: Addresses) -> str | None:
    """How the cluster of ``env.py`` differs from the one at hand; None: it does not.

    >>> difference(Addresses("a", {"s0": "db0:5432/a"}), Addresses("a", {"s0": "db9:5432/a"}))
    "shard 's0' is db0:5432/a in the configuration, and db9:5432/a in env.py"
    """
    if own.cluster != others.cluster:
        return _unlike("the cluster", repr(own.cluster), repr(others.cluster))
    for shard in (*own.shards, *others.shards):
        if shard not in others.shards:
            return f"env.py has no shard {shard!r}, which the configuration has"
        if shard not in own.shards:
            return f"env.py has a shard {shard!r}, which the configuration has not"
        if own.shards[shard] != others.shards[shard]:
            return _unlike(f"shard {shard!r}", own.shards[shard], others.shards[shard])
    return None


def _unlike(what: str, own: str, others: str) -> str:
    return f"{what} is {own} in the configuration, and {others} in env.py"


def _text(value: str | tuple[str, ...] | None) -> str | None:
    return ",".join(value) if isinstance(value, tuple) else value
