"""How much a cluster brings together for one statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ConfigurationError, GatherLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class GatherLimit:
    """The most that one statement may bring to the workspace.

    :param rows: of all shards and tables together.
    :param bytes: of these rows, as COPY writes them as text; of rows that are only put in order
        there, of their sort keys.
    :raises ConfigurationError: one of them is no positive whole number.
    """

    rows: int = 1_000_000
    bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("rows", "bytes"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigurationError(
                    f"GatherLimit({name}={value!r}) is no number of {name}",
                    "give a whole number above 0",
                )


def checked_gather_limit(value: Any) -> GatherLimit:
    """The value of ``gather_limit``, if it is one; None stands for the default."""
    if value is None:
        return GatherLimit()
    if not isinstance(value, GatherLimit):
        raise ConfigurationError(
            f"gather_limit={value!r} is no limit",
            "give it as gather_limit=GatherLimit(rows=..., bytes=...)",
        )
    return value


def asked_gather_limit(options: Mapping[str, Any], default: GatherLimit) -> GatherLimit:
    """The limit that the options of an execution ask for, else the cluster's."""
    asked = options.get("gather_limit")
    return default if asked is None else checked_gather_limit(asked)


def limit_exceeded(limit: GatherLimit, what: str, arrived: Iterable[str]) -> GatherLimitExceeded:
    """The error for too many rows.

    :param what: would be done with them.
    :param arrived: what had arrived by then, the largest first.
    """
    return GatherLimitExceeded(
        f"more than {limit.rows} rows or {limit.bytes} bytes would have to be {what}; when they "
        f"were stopped, {', '.join(arrived)} had arrived",
        "narrow the statement by conditions on its tables, name one shard key, or raise the "
        "limit with execution_options(gather_limit=GatherLimit(rows=..., bytes=...))",
    )
