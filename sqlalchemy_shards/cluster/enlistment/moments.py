"""The beginning of the transaction, told to what runs elsewhere or later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy_shards.planning.elsewhere import NOW

from .on_shards import failing_alike

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy_shards.cluster.connection import ClusterConnection


class Timed(Protocol):
    """What has parameters."""

    parameters: Any


def tell_time(
    connection: ClusterConnection, steps: Iterable[Timed], shard: str | None = None
) -> None:
    """Give its value to the parameter that stands for the beginning of the transaction.

    :param shard: is asked where none takes part yet; None: the global shard.
    """
    asking = [step for step in steps if NOW.key in step.parameters]
    if asking:
        with failing_alike(connection, shard or connection.cluster.global_shard):
            moment = connection.began_at(shard)
        for step in asking:
            step.parameters[NOW.key] = moment
