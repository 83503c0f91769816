"""How much a cluster brings together for one statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy_shards.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class GatherLimit:
    """The most that one statement may bring to the workspace.

    :param rows: of all shards and tables together.
    :param bytes: of these rows, as COPY writes them as text.
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
