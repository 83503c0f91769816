"""Four shards with an account each, made once and put back after each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from tests.databases import ask
from tests.shards.distributed import Shards

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy_shards.testing.databases import ScratchDatabase

_IDENTITY = "SELECT to_jsonb(i)::text FROM shards.identity i"


class Accounts:
    """Databases whose tables are made again only where a test has changed more than rows."""

    def __init__(self, databases: Mapping[str, ScratchDatabase]) -> None:
        self.urls = {name: database.url for name, database in databases.items()}
        self._databases = databases
        self._state: list[str] | None = None

    def provide(self) -> None:
        """Let each account hold 100, and nothing else be there."""
        if self._state is not None and self._emptied() and self._current_state() == self._state:
            for url in self.urls.values():
                ask(url, "INSERT INTO account VALUES (1, 100)")
            return
        self._state = None  # until all is made
        for database in self._databases.values():
            database.empty()
        with Shards(self.urls) as shards:
            shards.create()
        self._state = self._current_state()

    def roll_back_prepared(self) -> None:
        """Leave no prepared transaction, whose gid or locks another test could meet."""
        for database in self._databases.values():
            database.roll_back_prepared()

    def _emptied(self) -> bool:
        try:
            for name, url in self.urls.items():
                if ask(url, "SELECT to_regclass('shards.identity')") == [(None,)]:
                    return False
                self._databases[name].delete_rows()
        except psycopg.Error:  # a trigger forbids it, say
            return False
        return True

    def _current_state(self) -> list[str]:
        return [
            f"{database.schema_state()} {ask(database.url, _IDENTITY)}"
            for database in self._databases.values()
        ]
