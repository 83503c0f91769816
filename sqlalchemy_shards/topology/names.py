"""What shards, keyspaces and clusters may be called, and which name was probably meant.

Names stand in error messages, metrics, option values (where ``"*"`` means all shards) and
identifiers of distributed transactions, so they are short and plain.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME_LENGTH_MAX: Final = 40
"""Characters that the name of a shard, keyspace or cluster may have."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def name_fault(what: str, name: object) -> str | None:
    """Return what is wrong with the name of a ``what``, or None if nothing is.

    >>> name_fault("shard", "*")
    "'*' cannot be the name of a shard: letters, digits, '_', '-' and '.' only, at most 40"
    """
    if isinstance(name, str) and len(name) <= NAME_LENGTH_MAX and _NAME.fullmatch(name):
        return None
    return (
        f"{name!r} cannot be the name of a {what}: "
        f"letters, digits, '_', '-' and '.' only, at most {NAME_LENGTH_MAX}"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that proposes a known name like this one, if there is one.

    >>> did_you_mean("bucket", ["buckets", "partitioner"])
    ", did you mean 'buckets'?"
    """
    close = get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
