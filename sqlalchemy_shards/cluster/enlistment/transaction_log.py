"""What a shard must be told when it joins a transaction that has begun without it.

Savepoints and settings, in the order in which they were made, so that a savepoint that is rolled
back to undoes the same settings on a shard that joined early and on one that joins late.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


_OF_THE_TRANSACTION: Final = re.compile(
    r"^\s*SET\s+(TRANSACTION|CONSTRAINTS)\b|\btransaction_(isolation|read_only|deferrable)\b", re.I
)


class Told(NamedTuple):
    """One statement.

    :param savepoint: name of the savepoint that it opens, quoted; None: it is a setting.
    """

    sql: str | bytes
    parameters: Any = None
    savepoint: str | None = None

    @property
    def is_for_statements(self) -> bool:
        """Whether it sets how statements are understood, not how the transaction runs."""
        return self.savepoint is None and _OF_THE_TRANSACTION.search(_text(self.sql)) is None

    @property
    def may_change_search_path(self) -> bool:
        """Whether names may mean other tables after it."""
        text = f"{_text(self.sql)} {self.parameters!r}".lower()
        return "search_path" in text or "schema" in text


class TransactionLog:
    """The savepoints and settings of one transaction that still hold.

    It holds each open savepoint, and between two of them a setting only once however often it is
    repeated: a session's ``after_begin`` listeners run again for each ``begin_nested()``.
    """

    def __init__(self) -> None:
        self._told: list[Told] = []

    def __iter__(self) -> Iterator[Told]:
        return iter(self._told)

    def savepoint(self, name: str) -> None:
        """A savepoint was opened."""
        self._told.append(Told(f"SAVEPOINT {name}".encode(), None, name))

    def setting(self, sql: str, parameters: Any) -> None:
        """A setting was made; it takes the place of its like in the same savepoint."""
        self._told.append(Told(sql, parameters))
        self._drop_repeated(self._innermost())

    def roll_back_to(self, name: str) -> None:
        """All that came after a savepoint is undone; the savepoint stays."""
        del self._told[self._index(name) + 1 :]

    def release(self, name: str) -> None:
        """A savepoint and those within it are no more; what was set within them stays."""
        index = self._index(name)
        self._told[index:] = [each for each in self._told[index:] if each.savepoint is None]
        self._drop_repeated(self._innermost())

    def clear(self) -> None:
        """The transaction ended."""
        self._told.clear()

    def _innermost(self) -> int:
        """Where the entries of the innermost open savepoint begin."""
        for index in range(len(self._told), 0, -1):
            if self._told[index - 1].savepoint is not None:
                return index
        return 0

    def _drop_repeated(self, first: int) -> None:
        kept: list[Told] = []
        for told in reversed(self._told[first:]):
            if told not in kept:
                kept.append(told)
        self._told[first:] = reversed(kept)

    def _index(self, name: str) -> int:
        # The innermost of that name, as PostgreSQL takes it.
        for index in range(len(self._told) - 1, -1, -1):
            if self._told[index].savepoint == name:
                return index
        raise ValueError(f"there is no savepoint {name}")


def _text(sql: str | bytes) -> str:
    return sql.decode() if isinstance(sql, bytes) else sql
