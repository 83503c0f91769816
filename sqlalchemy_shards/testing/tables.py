"""An application's tables in the databases of its tests: made once, emptied between two tests.

They are made again only where a test changed them, or another `MetaData` or other arguments of
`create_cluster` are asked for; or each time, where making them stores rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import MetaData

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.testing.databases import ScratchDatabase


class ShardTables:
    """The tables in `databases`, which nothing else may own."""

    def __init__(self, databases: Mapping[str, ScratchDatabase]) -> None:
        self._databases = databases
        # What the tables were made for, and the state of each database then.
        self._made_for: tuple[Any, ...] | None = None
        self._states: list[str] = []

    def provide(
        self, cluster: Cluster, metadata: MetaData | None, arguments: Mapping[str, Any]
    ) -> None:
        """Let the cluster's databases have the tables of `metadata`, and no rows."""
        names = () if metadata is None else tuple(metadata.tables)
        wanted = (metadata, names, dict(arguments))
        if self._made_for is not None and wanted == self._made_for and self.empty():
            return
        self._drop()
        cluster.bootstrap()
        if metadata is not None:
            cluster.create_all(metadata)
        # Rows that came with the tables would not come back after they were deleted.
        if not any(database.has_rows() for database in self._databases.values()):
            self._made_for, self._states = wanted, self._current_states()

    def empty(self) -> bool:
        """Delete all rows; return whether the tables are kept, else everything is dropped."""
        is_kept = self._made_for is not None and self._delete_rows()
        if not is_kept:
            self._drop()
        return is_kept

    def _delete_rows(self) -> bool:
        try:
            for database in self._databases.values():
                database.delete_rows()
        except psycopg.Error:  # a trigger forbids it, say
            return False
        # Triggers may have written rows while others were deleted.
        is_empty = not any(database.has_rows() for database in self._databases.values())
        return is_empty and self._current_states() == self._states

    def _drop(self) -> None:
        self._made_for = None
        for database in self._databases.values():
            database.empty()

    def _current_states(self) -> list[str]:
        return [database.schema_state() for database in self._databases.values()]
