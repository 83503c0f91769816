"""Telling which shard is meant: in Alembic's log, and in the errors of migrations.

A cluster of one shard is told nothing: there it is as with stock Alembic.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.cluster.readiness.report import some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy_shards.cluster.cluster import Cluster

NAMES_SHOWN_MAX: Final = 12
"""How many shards a message names."""

# Below `alembic`: whatever an application says of Alembic's log holds for these lines too, and
# `fileConfig()` switches off loggers that it does not know.
log = logging.getLogger("alembic.shards")


@contextmanager
def named(cluster: Cluster, shard: str) -> Iterator[None]:
    """Log whose turn it is, and add the shard to an error."""
    with naming(cluster) as begin:
        begin(shard)
        yield


@contextmanager
def naming(cluster: Cluster) -> Iterator[Callable[[str], None]]:
    """The same, for who learns only within whose turn it is, and says it there."""
    begun: list[str] = []

    def begin(shard: str) -> None:
        if len(cluster.shards) > 1:
            log.info("shard %s", shard)
            begun.append(shard)

    try:
        yield begin
    except BaseException as error:
        for shard in begun:
            log.error("failed on shard %s", shard)  # noqa: TRY400  the error itself goes on
            if hasattr(error, "add_note"):  # Python 3.11
                error.add_note(f"on shard {shard!r}")
        raise


def shards_named(names: Sequence[str]) -> str:
    """The names as a phrase; of many the first ones.

    >>> shards_named(["s0"]), shards_named(["s0", "s2"])
    ('shard s0', 'shards s0, s2')
    """
    return f"shard{'s' if len(names) > 1 else ''} {some(names, shown_max=NAMES_SHOWN_MAX)}"


def selecting(names: Sequence[str], cluster: Cluster) -> str:
    """What an ``alembic`` that means these shards has before its command, with a space behind it.

    It is empty where all shards are meant.
    """
    if len(names) == len(cluster.shards):
        return ""
    return f"-x shard{'s' if len(names) > 1 else ''}={','.join(names)} "
