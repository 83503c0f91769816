"""Targets that are relative to where a shard is, as ``+1`` and ``branch@-2``. Pure."""

from __future__ import annotations

import re
from typing import Final

_RELATIVE: Final = re.compile(r"(.+@)?[+-]\d")


def is_relative(target: str) -> bool:
    """Whether ``upgrade`` and ``downgrade`` count from the revision that a database has.

    Alembic's ``head-1`` and ``ae10+2`` count from a revision that is the same everywhere; its
    ``stamp`` counts from none.

    >>> [is_relative(target) for target in ("+1", "-2", "shop@-1", "head-1", "ae10+2", "heads")]
    [True, True, True, False, False, False]
    """
    return _RELATIVE.match(target) is not None
