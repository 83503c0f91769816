"""Raw SQL that would begin or end a transaction on one shard, beside the cluster's own.

What one shard commits or rolls back alone is lost to the atomic commit of the others, so it must be
seen before it runs. A statement is known by its first words.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy_shards.sql_text import beginnings

_ONE_WORD: Final = frozenset({"commit", "end", "abort", "begin"})
_TWO_WORDS: Final = frozenset({("start", "transaction"), ("prepare", "transaction")})
_ANY: Final = (*_ONE_WORD, "rollback", "start", "prepare")
"""Without one of these there is nothing to look for, which is quickly told of a long text."""

_OF_A_ROLLBACK: Final = frozenset({"work", "transaction"})


def transaction_control(sql: str) -> str | None:
    """Return the first words of a statement that begins or ends a transaction, or None.

    Savepoints are none: they stay within the transaction.

    >>> transaction_control("UPDATE t SET note = 'COMMIT'; /* now */ commit")
    'COMMIT'
    >>> transaction_control("PREPARE TRANSACTION 'mine'")
    'PREPARE TRANSACTION'
    >>> transaction_control("ROLLBACK TO SAVEPOINT a")
    """
    lowered = sql.lower()
    if not any(word in lowered for word in _ANY):
        return None
    for words in beginnings(sql):
        control = _control(words)
        if control is not None:
            return control.upper()
    return None


def _control(words: tuple[str, ...]) -> str | None:
    first, second = (*words, "", "")[:2]
    if second == "prepared":
        # It finishes another transaction, and no server runs it within one.
        return None
    if first == "rollback":
        following = next((word for word in words[1:] if word not in _OF_A_ROLLBACK), "")
        return None if following == "to" else first
    if first in _ONE_WORD:
        return first
    return f"{first} {second}" if (first, second) in _TWO_WORDS else None
