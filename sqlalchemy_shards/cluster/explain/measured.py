"""What an execution took, step by step, as data and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PLAN, READ = "plan", "read"
"""Names of steps: compiling, routing and planning; the client reads an answer as it is."""


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """What one step took.

    :param name: ``"plan"`` until it was decided what runs where, ``"connect"`` to a shard that had
        no part in the transaction yet, ``"keys"``, ``"run"``, ``"ship"`` or ``"ship again"`` on a
        shard, ``"merge"`` or ``"read"`` in the client, ``"workspace"``.
    :param shard: None: it was not done on a shard.
    :param rows: how many it gave or changed; None: it has none.
    :param bytes: of their values, as the server sent them; None: not measured.
    :param seconds: by the clock on the wall; steps of several shards run at once.
    """

    name: str
    shard: str | None
    rows: int | None
    bytes: int | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "step": self.name,
            "shard": self.shard,
            "rows": self.rows,
            "bytes": self.bytes,
            "milliseconds": _milliseconds(self.seconds),
        }

    def __str__(self) -> str:
        found = [_spoken_rows(self.rows)] if self.rows is not None else []
        found += [_spoken_bytes(self.bytes)] if self.bytes is not None else []
        return ", ".join([*found, _spoken_time(self.seconds)])


@dataclass(frozen=True, slots=True)
class Measured:
    """What an execution took.

    :param steps: in the order in which they were begun.
    :param rows: of the answer, or changed; None: it has none.
    :param seconds: from the beginning to the last row, without what SQLAlchemy makes of rows.
    """

    steps: tuple[MeasuredStep, ...]
    rows: int | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "rows": self.rows,
            "milliseconds": _milliseconds(self.seconds),
            "steps": [step.as_dict() for step in self.steps],
        }

    def __str__(self) -> str:
        rows = [] if self.rows is None else [_spoken_rows(self.rows)]
        return ", ".join([*rows, _spoken_time(self.seconds)])


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _spoken_time(seconds: float) -> str:
    return f"{seconds * 1000:,.2f} ms"


def _spoken_rows(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"


def _spoken_bytes(count: int) -> str:
    if count < 10_000:
        return "1 byte" if count == 1 else f"{count:,} bytes"
    return f"{count / 1000:,.0f} kB" if count < 10_000_000 else f"{count / 1_000_000:,.0f} MB"
