"""In how many things a shard differs from those that are at the same revisions. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .comparing import compare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .looking import Defined


def unlike_peers(
    seen: Mapping[str, Defined], revisions: Mapping[str, tuple[str, ...]], global_shard: str
) -> dict[str, int]:
    """Count what shards have otherwise than most of those at the same revisions.

    Shards that are alone at theirs are left out: others may well differ from them.

    :param seen: what is defined on each, in the cluster's order.
    :param revisions: of each of these, and maybe of others.
    """
    peers: dict[frozenset[str], dict[str, Defined]] = {}
    for shard, defined in seen.items():
        peers.setdefault(frozenset(revisions[shard]), {})[shard] = defined
    counts: dict[str, int] = {}
    for group in peers.values():
        if len(group) < 2:
            continue
        counts.update(dict.fromkeys(group, 0))
        for difference in compare(group, global_shard, None).differences:
            for shard in difference.shards:
                counts[shard] += 1
    return counts
