"""The beginning of the transaction, told to what runs elsewhere or later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy_shards.planning.elsewhere import NOW

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy_shards.cluster.connection import ClusterConnection


class Timed(Protocol):
    """What has parameters."""

    parameters: Any


def tell_time(connection: ClusterConnection, steps: Iterable[Timed]) -> None:
    """Give its value to the parameter that stands for the beginning of the transaction."""
    asking = [step for step in steps if NOW.key in step.parameters]
    if asking:
        moment = connection.began_at()
        for step in asking:
            step.parameters[NOW.key] = moment
