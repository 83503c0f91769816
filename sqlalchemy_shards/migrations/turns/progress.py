"""What a shard's migrations have committed, as seen from their connection.

Alembic commits a revision together with the version table. What is committed apart from it, by
``autocommit_block()`` or by the revision itself, leaves the shard *torn* until the version table
has that revision: to run it again would do its first part twice.

- Torn is what may be torn: a statement that is not known to change nothing is taken to.
- A function that a SELECT calls is not looked into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from sqlalchemy_shards.routing.transaction_control import transaction_control
from sqlalchemy_shards.sql_text import beginnings

if TYPE_CHECKING:
    from sqlalchemy import Connection

_CHANGE_NOTHING: Final = frozenset({"select", "show", "set", "reset", "table", "values"})


class Progress:
    """Counts the steps over a connection, and tells whether a revision is torn.

    :param connection: of one shard's turn; it is listened to as long as it lives.
    :param version_table: its name; Alembic makes it in a transaction of its own.
    """

    def __init__(self, connection: Connection, version_table: str) -> None:
        self.steps = 0
        self.is_torn = False
        self._version_table = version_table
        self._is_within_revision = False
        event.listen(connection, "before_cursor_execute", self._on_statement)
        event.listen(connection, "commit", self._on_commit)

    def restart(self) -> None:
        """Begin anew, after everything that was not committed was rolled back."""
        self._is_within_revision = False

    def on_version_apply(self, **step: Any) -> None:
        """Note a step, as Alembic tells of each when the version table has it."""
        del step
        self.steps += 1
        self._is_within_revision = False

    def _on_statement(self, connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if transaction_control(statement) is not None:
            self.is_torn = True
        elif self._may_change(statement):
            self._is_within_revision = True
            if cursor.connection.autocommit:
                self.is_torn = True

    def _on_commit(self, connection: Connection) -> None:
        self.is_torn = self._is_within_revision

    def _may_change(self, statement: str) -> bool:
        if self._version_table in statement:
            return False
        return any(words[:1] and words[0] not in _CHANGE_NOTHING for words in beginnings(statement))
