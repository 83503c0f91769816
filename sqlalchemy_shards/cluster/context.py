"""SQLAlchemy's execution contexts: they make the cursor, and may lend the one of a shard.

A context makes its cursor when the statement and its parameters are known, and nothing has run.
Where a statement that was seen before reads by key from a shard that takes part in the transaction
already, its cursor is that shard's own: the cluster's would be made first, and be one step more in
all that SQLAlchemy does with it. An error in a row still names its shard (`enlisted.shard_of`).

Invariant: a cursor that was lent runs only while its shard is enlisted as it was then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.psycopg import PGExecutionContext_psycopg

from sqlalchemy_shards import _compat

from .dispatch.by_key import enlisted_by_key

if TYPE_CHECKING:
    from .connection import ClusterConnection
    from .enlistment.enlisted import EnlistedShard


class ShardsExecutionContext(PGExecutionContext_psycopg):
    """One execution on a cluster connection."""

    lent: EnlistedShard | None = None
    """The shard whose own cursor this execution has."""

    def create_default_cursor(self) -> Any:
        """The cursor of the shard that alone is read from, else one over all shards."""
        connection: ClusterConnection = _compat.driver_connection(self)
        if connection.enlisted and connection.observer is None:
            self.lent = lent = enlisted_by_key(self, connection)
            if lent is not None:
                return lent.driver.cursor()
        return connection.cursor()

    def run_lent(self, lent: EnlistedShard, cursor: Any, sql: str, parameters: Any) -> bool:
        """Run the statement by the cursor that was lent; False: it is to go the ordinary way.

        A listener to SQLAlchemy's events may have ended the transaction meanwhile.
        """
        connection: ClusterConnection = _compat.driver_connection(self)
        connection.check_usable()
        if (
            connection.enlisted.get(lent.name) is not lent
            or connection.cluster.hooks.fail_points is not None
        ):
            return False
        try:
            cursor.execute(sql, parameters)
        except BaseException as error:
            connection.note_error(lent.name, error, is_shared=False)
            raise
        return True
