"""Durations as people write them, "500ms", "90s", "30m", "36h", "7d", and read them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_DURATION: Final = re.compile(r"([0-9]{1,6})(ms|[smhd])")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> timedelta | None:
    """Return the duration, or None where it is none.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = _DURATION.fullmatch(text)
    return None if match is None else int(match[1]) * timedelta(seconds=_SECONDS[match[2]])


def shown_duration(seconds: float) -> str:
    """Return a duration in its largest unit.

    >>> shown_duration(7200)
    '2 h'
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
