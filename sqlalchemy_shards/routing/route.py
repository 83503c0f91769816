"""The shards a statement goes to, and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reason(enum.Enum):
    """Why a statement goes where it goes; the value completes "because ..."."""

    ONLY_SHARD = "the cluster has one shard"
    OPTION = "the execution option names it"
    KEY = "the shard key says so"
    RANGE = "a range of the shard key says so"
    PART = "a part of the shard key says so"
    BUCKET = "the id carries its bucket"
    LOCATOR = "the session knows where the object lives"
    REFERENCE = "a reference table is the same on every shard"
    LOCKED_COPY = "the rows of a reference table are locked on the first shard"
    GLOBAL = "a global table lives there"
    NO_TABLE = "it reads no table"
    NO_MATCH = "no shard can hold a matching row"
    UNKNOWN_KEY = "the shard key is not known"
    EVERY_COPY = "every copy of a reference table is written"
    EVERY_SHARD = "it concerns every shard"
    SETTING = "what is set for the transaction is set on each shard as it joins"


@dataclass(frozen=True, slots=True)
class Route:
    """Where one execution of a statement goes.

    :param shards: names, in the cluster's order. Empty: no shard can hold a matching row.
    :param reason: why.
    :param spare: for an empty route, the shard that answers where even no rows take a statement,
        as ``count(*)`` does.
    """

    shards: tuple[str, ...]
    reason: Reason
    spare: str | None = None

    @property
    def is_single(self) -> bool:
        """Whether one shard answers alone."""
        return len(self.shards) == 1

    @property
    def is_empty(self) -> bool:
        """Whether no shard can hold a matching row."""
        return not self.shards

    def asked(self) -> Route:
        """The route of a statement that must be run somewhere, even if no row matches."""
        return self if self.spare is None or self.shards else Route((self.spare,), self.reason)
