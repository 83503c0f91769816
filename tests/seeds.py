"""What random tests follow from: always the same, or what a variable of the environment says."""

from __future__ import annotations

import os
from datetime import datetime, timezone

ALWAYS = "always"
TODAY = "today"
"""The value of a variable that stands for the date, so that each day something new is tried."""


def seed_of(variable: str) -> str:
    """The seed that a variable of the environment gives; without one, the same in each run."""
    given = os.environ.get(variable) or ALWAYS
    return str(datetime.now(timezone.utc).date()) if given == TODAY else given
