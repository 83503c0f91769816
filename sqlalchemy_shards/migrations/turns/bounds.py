"""How long migrations wait, and how they are told: by ``env.py``, by ``-x``, or by a runner. Pure.

Who says nothing gets what PostgreSQL has for the role, the database or the server. Only a lock is
waited for shortly by default: as long as a migration queues for one, every query of that table
queues behind the migration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCK_TIMEOUT_DEFAULT: Final = 5.0
"""Seconds that a migration waits for one lock, where nobody says anything."""

LOCK_TRIES_DEFAULT: Final = 20
"""How often a shard's migrations are begun: with pauses, for some minutes."""

RUNNER_TIMEOUT_DEFAULT: Final = 60.0
"""Seconds that another migration of the same shard is waited for."""

_PAUSE_SECONDS_MIN: Final = 0.25
_PAUSE_SECONDS_MAX: Final = 10.0
_SECONDS_MAX: Final = 2_147_483
"""PostgreSQL counts its timeouts in milliseconds of 32 bits."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long the migrations of a shard wait. None: what is said elsewhere, or the default.

    :param lock_timeout: seconds that a statement waits for one lock; then the migrations are
        rolled back and begun again. 0: for ever. By default 5, unless the role, the database, the
        server or ``options`` in the URL have a value.
    :param lock_tries: how often they are begun, at most. By default 20.
    :param statement_timeout: seconds for one statement; 0: no bound. By default what the role, the
        database or the server has.
    :param runner_timeout: seconds that another migration of the shard is waited for. By default 60.
    :raises ConfigurationError: with every value that is none.
    """

    lock_timeout: float | None = None
    lock_tries: int | None = None
    statement_timeout: float | None = None
    runner_timeout: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no bound."""
        faults = [
            f"{field.name}={value!r}: {fault}"
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
            and (fault := _fault(field.name, value)) is not None
        ]
        if faults:
            raise ConfigurationError(
                "the bounds of migrations cannot be kept:",
                "give seconds, as in 2.5, and a number of tries",
                faults=faults,
            )

    def or_else(self, other: Bounds) -> Bounds:
        """These; where they say nothing, those of ``other``.

        >>> Bounds(lock_timeout=1).or_else(Bounds(lock_timeout=5, lock_tries=3))
        Bounds(lock_timeout=1, lock_tries=3, statement_timeout=None, runner_timeout=None)
        """
        return Bounds(
            *(
                getattr(other, field.name) if (own := getattr(self, field.name)) is None else own
                for field in fields(self)
            )
        )

    @property
    def tries(self) -> int:
        """How often a shard's migrations are begun, at most."""
        return LOCK_TRIES_DEFAULT if self.lock_tries is None else self.lock_tries

    @property
    def runner_seconds(self) -> float:
        """How long another migration of the shard is waited for."""
        return RUNNER_TIMEOUT_DEFAULT if self.runner_timeout is None else self.runner_timeout


def pause_seconds(attempt: int, chance: float) -> float:
    """How long to leave a shard alone after an attempt, twice as long each time.

    :param attempt: the number of the one that failed, from 1.
    :param chance: 0 to 1: who began together is not to go on together.

    >>> [pause_seconds(attempt, 1) for attempt in (1, 2, 3, 20)]
    [0.25, 0.5, 1.0, 10.0]
    """
    longest: float = min(_PAUSE_SECONDS_MIN * 2.0 ** min(attempt - 1, 30), _PAUSE_SECONDS_MAX)
    return longest * (1 + chance) / 2


def read_bounds(arguments: Iterable[str]) -> Bounds:
    """Read what stands behind each ``-x`` of Alembic: ``lock_timeout=2s``, ``lock_tries=5``.

    Other ``-x`` arguments are left to others.

    :raises ConfigurationError: a value is none.

    >>> read_bounds(["lock_timeout=500ms", "statement_timeout=1h", "tenant=a"])
    Bounds(lock_timeout=0.5, lock_tries=None, statement_timeout=3600.0, runner_timeout=None)
    """
    values: dict[str, float | int] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in _DURATIONS:
            values[name] = _seconds(name, value)
        elif name == "lock_tries":
            if not value.strip().isdecimal():
                raise _unreadable(name, value, "a number, as 5")
            values[name] = int(value)
    return Bounds(**values)  # type: ignore[arg-type]


_DURATIONS: Final = ("lock_timeout", "statement_timeout", "runner_timeout")


def _seconds(name: str, value: str) -> float:
    duration = parse_duration(value.strip())
    if duration is None:
        raise _unreadable(name, value, "a duration, as 500ms, 5s or 2m")
    return duration.total_seconds()


def _unreadable(name: str, value: str, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"-x {name}={value} cannot be read", f"give {wanted}")


def _fault(name: str, value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return f"it is a {type(value).__name__}, not a number"
    if name == "lock_tries":
        return None if isinstance(value, int) and value >= 1 else "it must be 1 or more"
    if not 0 <= value <= _SECONDS_MAX:
        return f"it must be from 0 to {_SECONDS_MAX}"
    return None
