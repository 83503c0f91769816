"""Databases of our own on a server, and how they are emptied between two tests.

Only databases that were created here are ever emptied or dropped, never the one that a URL names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from sqlalchemy_shards.testing.rows import delete_rows, has_rows, schema_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

LOCK_MILLISECONDS = 2_000
APPLICATION_NAME = "shards-test-database"

_EMPTY = """
DO $$
DECLARE schemas text;
BEGIN
    SELECT string_agg(quote_ident(nspname), ', ') INTO schemas FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema';
    IF schemas IS NOT NULL THEN
        EXECUTE 'DROP SCHEMA ' || schemas || ' CASCADE';
    END IF;
    CREATE SCHEMA public;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
    IF current_setting('server_version_num')::int < 150000 THEN
        GRANT CREATE ON SCHEMA public TO PUBLIC;
    END IF;
END
$$
"""

_END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class ScratchDatabase:
    """``with ScratchDatabase(server_url, "s0") as database: create_engine(database.url)``.

    :param server_url: SQLAlchemy URL of any database on the server; its user may create databases.
    :param name: of the database that is created, and dropped at the end.
    """

    def __init__(self, server_url: str, name: str) -> None:
        self._server_url = server_url
        self.name = name
        self.url = make_url(server_url).set(database=name).render_as_string(hide_password=False)
        self._connection: psycopg.Connection | None = None

    def roll_back_prepared(self) -> None:
        """Roll back every prepared transaction of this database."""
        connection = self._connect()
        gids = connection.execute(
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        ).fetchall()
        for (gid,) in gids:
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))

    def empty(self) -> None:
        """Roll back prepared transactions and drop every schema, leaving an empty `public`.

        Sessions that were left open with locks are ended.
        """
        self.roll_back_prepared()
        connection = self._connect()
        _over_locks(connection, lambda: connection.execute(_EMPTY))

    def delete_rows(self) -> None:
        """Roll back prepared transactions, delete all rows, and let sequences start anew.

        Of the schema `shards`, what names the shard stays. Sessions that were left open with locks
        are ended. Nothing is deleted where an error is raised.

        :raises psycopg.Error: rows cannot be deleted, because of a trigger or a policy, say.
        """
        self.roll_back_prepared()
        connection = self._connect()
        _over_locks(connection, lambda: delete_rows(connection))

    def has_rows(self) -> bool:
        """Return whether a table holds a row, but for what names the shard."""
        return has_rows(self._connect())

    def schema_state(self) -> str:
        """Return what changes with each change of a schema, a table or what belongs to them."""
        return schema_state(self._connect())

    def __enter__(self) -> ScratchDatabase:
        with _connect(self._server_url) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.name)))
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # FORCE ends sessions, but a prepared transaction would still forbid the drop.
        self.roll_back_prepared()
        self._connect().close()
        with _connect(self._server_url) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name))
            )

    def _connect(self) -> psycopg.Connection:
        """Return the connection that is kept, made anew where the server was restarted."""
        if self._connection is not None:
            try:
                self._connection.execute("")
            except psycopg.OperationalError:
                self._connection.close()
            else:
                return self._connection
        self._connection = _connect(self.url)
        return self._connection


def _over_locks(connection: psycopg.Connection, work: Callable[[], object]) -> None:
    try:
        work()
    except psycopg.errors.LockNotAvailable:
        connection.execute(_END_OTHER_SESSIONS)
        work()


def _connect(url: str) -> psycopg.Connection:
    libpq_url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(
        libpq_url,
        autocommit=True,
        application_name=APPLICATION_NAME,
        # A database's own defaults, which a test may have set, must not stop its cleaning.
        options=f"-c lock_timeout={LOCK_MILLISECONDS} -c default_transaction_read_only=off"
        " -c client_min_messages=warning",
        prepare_threshold=None,
    )
