"""The shard keys of rows that a transaction inserted, for the rows that are to lie beside them.

Invariants: it lasts as long as the transaction, and no longer than to a rollback of a savepoint,
which may have undone any of the rows; it holds at most `INSERTED_ROWS_MAX` of them, the last ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.models.distribution import Sharded, anchor_of, distribution_of, identity_of

if TYPE_CHECKING:
    from sqlalchemy import Table

INSERTED_ROWS_MAX: Final = 100_000
"""About 30 MB. More rows than these between a base's row and its child's are refused."""


class InsertedRows:
    """Anchor's name and the identity of its row -> shard key."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, tuple[Any, ...]], tuple[Any, ...]] = {}

    def copy(self) -> InsertedRows:
        """The same, to go on by itself."""
        copied = InsertedRows()
        copied._keys.update(self._keys)
        return copied

    def clear(self) -> None:
        """Forget all."""
        self._keys.clear()

    def note(self, anchor: str, identity: tuple[Any, ...], key: tuple[Any, ...]) -> None:
        """Take note of a row that is being inserted."""
        try:
            self._keys[anchor, identity] = key
        except TypeError:  # a value that cannot be hashed
            return
        if len(self._keys) > INSERTED_ROWS_MAX:
            del self._keys[next(iter(self._keys))]

    def key_of_anchor(self, anchor: str, identity: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The shard key of a row of an anchor; None: it is not known."""
        try:
            return self._keys.get((anchor, identity))
        except TypeError:
            return None

    def key_of(self, table: Table, primary_key: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The shard key of a row by its table's primary key; None: it is not known."""
        if not self._keys:
            return None
        sharded = distribution_of(table)
        if not isinstance(sharded, Sharded):
            return None
        values = dict(zip((each.key for each in table.primary_key), primary_key, strict=True))
        identity = tuple(values.get(name) for name in identity_of(table, sharded))
        return self.key_of_anchor(anchor_of(table, sharded).key, identity)
