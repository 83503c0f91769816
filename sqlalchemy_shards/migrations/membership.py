"""Which shards of a configuration have not joined their cluster yet, by what the shards say. Pure.

- A shard's own word on whether it has joined wins, as it notes that in the transaction that copies.
- Who is not announced anywhere is taken for new only where others are a cluster already, and have
  recorded nothing on it: a shard of the beginning that holds nothing cannot be told from one that
  was added later, and is told of as what it may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy_shards.catalog.identity import Identity


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A shard that has not joined, or may have not.

    :param is_announced: the others were told of it.
    :param is_configured: the configuration at hand names it.
    :param has_schema: it has the schema ``shards``; None: it does not answer.
    :param has_keys: keys are placed on it, by the configuration.
    """

    shard: str
    is_announced: bool
    is_configured: bool
    has_schema: bool | None
    has_keys: bool

    @property
    def is_certain(self) -> bool:
        """Whether it has certainly not joined, and cannot be a shard of the beginning."""
        return self.is_announced or not (self.has_schema or self.has_keys)

    def sentence(self) -> str:
        """What is so, and what to do, without a full stop.

        >>> Newcomer("s3", True, True, True, False).sentence()
        's3 is announced and has not joined yet; go on with shards migrate join s3'
        """
        name = self.shard
        if not self.is_configured:
            return (
                f"{name} is announced and has not joined yet, and this configuration does not name"
                " it; add it at the end of the shards"
            )
        join = f"shards migrate join {name}"
        if self.is_announced and self.has_keys:
            return (
                f"{name} has not joined yet, and keys are placed on it; take them off it, then"
                f" {join}"
            )
        if self.is_announced:
            return f"{name} is announced and has not joined yet; go on with {join}"
        if self.has_keys:
            return (
                f"keys are placed on {name}, which the other shards do not know; if they have data,"
                f" take the keys off it, then {join}"
            )
        if self.has_schema:
            return (
                f"{name} holds no keys; if it was added to shards that have data, it has to join"
                f" before it gets some: {join}"
            )
        return f"{name} is new, and has not joined yet; {join} brings it in"


def newcomers(
    seen: Mapping[str, Identity | None],
    shards: Collection[str],
    *,
    founders: Collection[str],
    holding: Collection[str],
) -> tuple[Newcomer, ...]:
    """Those that have not joined: of the configuration in its order, then others.

    :param seen: shard -> who it says it is, of those that answer; None: it has no schema.
    :param shards: those of the configuration.
    :param founders: those of them that never join: the first, and the global one.
    :param holding: those of them on which the configuration places keys.
    """
    known = [identity for identity in seen.values() if identity is not None]
    announced = {name for identity in known for name in identity.newcomers}
    recorded = {name for identity in known for name in _recorded(identity)}
    found = []
    for shard in (*shards, *sorted(announced.difference(shards))):
        own = seen.get(shard)
        if shard in announced:
            is_out = not _has_joined(shard, own, known)
        else:
            is_new = own is None and shard in seen
            is_out = (
                bool(known)
                and shard not in recorded
                and shard not in founders
                and (is_new or (own is not None and shard not in holding))
            )
        if is_out:
            has_schema = own is not None if shard in seen else None
            is_announced, is_configured = shard in announced, shard in shards
            found.append(Newcomer(shard, is_announced, is_configured, has_schema, shard in holding))
    return tuple(found)


def _has_joined(shard: str, own: Identity | None, known: Collection[Identity]) -> bool:
    if own is not None and shard in own.newcomers:
        return own.newcomers[shard]
    return any(identity.newcomers.get(shard, False) for identity in known)


def _recorded(identity: Identity) -> set[str]:
    """The shards on which an identity's record places anything."""
    return {
        shard for keyspace in identity.placement.values() for shard in keyspace["buckets"].values()
    }
