"""One shard's connection in a run of all or nothing: ordinary, but it cannot end its transaction.

Alembic and the migrations see SQLAlchemy's own `Connection` of the shard's own engine, so that
whatever they do means what it always means. Below it is the driver connection that the cluster
connection has enlisted.

Invariants:

- What ends the transaction on the shard alone is refused before it runs, where it can be seen;
  where it cannot (a migration took the driver's own connection), it is seen after the step.
- What PostgreSQL would not prepare is refused after the step that did it, where the server tells of
  it; else PREPARE TRANSACTION finds it, and nothing was committed so far.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from psycopg.pq import TransactionStatus
from psycopg.rows import class_row
from sqlalchemy import Connection, event

from sqlalchemy_shards.errors import ConfigurationError, TransactionAborted
from sqlalchemy_shards.routing.transaction_control import transaction_control
from sqlalchemy_shards.sql_text import beginnings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import PoolProxiedConnection

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.connections.shard import Shard

# A lock on a temporary object tells that this transaction has touched one.
_STANDING = """
SELECT pg_catalog.now()::text AS began_at,
    current_user::text AS role,
    CASE WHEN pg_catalog.pg_my_temp_schema() = 0 THEN false ELSE EXISTS (
        SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
        WHERE l.pid = pg_catalog.pg_backend_pid()
            AND c.relnamespace = pg_catalog.pg_my_temp_schema())
    END AS has_temporary,
    EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) AS has_held_cursor
"""

_OF_MESSAGES = frozenset({"listen", "unlisten", "notify"})
_WITHOUT_ATOMIC = "run it without --atomic"


class Refusal(Exception):
    """A migration did what a run of all or nothing cannot do.

    :param problem: what, without its shard and revision.
    :param statement: its SQL.
    """

    def __init__(
        self, problem: str, advice: str = _WITHOUT_ATOMIC, *, statement: str | None = None
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.advice = advice
        self.statement = statement


class HeldConnection:
    """A pooled connection of a shard that refuses to end its transaction.

    :param pooled: what the cluster connection has enlisted.
    """

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        self._pooled = pooled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pooled, name)

    def commit(self) -> NoReturn:
        """Refuse: one shard would have what the others do not have yet."""
        raise _ending("commit()")

    def rollback(self) -> NoReturn:
        """Refuse: one shard would go on without what the others have done."""
        raise _ending("rollback()")

    def close(self) -> None:
        """Do nothing: it goes back to its pool when all shards are done."""

    def invalidate(self, *_: Any, **__: Any) -> None:
        """Close what is lost; its pool hears of it when all shards are rolled back."""
        self._pooled.driver_connection.close()  # type: ignore[union-attr]


class _Standing(NamedTuple):
    began_at: str
    role: str
    has_temporary: bool
    has_held_cursor: bool


class HeldShard:
    """A shard within the run.

    :param all_shards: the connection whose commit is everybody's.
    :raises ConfigurationError: the shard cannot take part in a distributed transaction.
    """

    def __init__(self, all_shards: ClusterConnection, shard: Shard) -> None:
        self.name = shard.name
        self.driver = all_shards.shard(shard.name)
        """The driver's connection: idle, until `begin`."""
        if self.driver.autocommit:
            raise ConfigurationError(
                f"the engine of shard {self.name!r} is in AUTOCOMMIT mode, in which nothing can be "
                "rolled back",
                "create it without isolation_level, or run without --atomic",
                shard=self.name,
            )
        held: Any = HeldConnection(all_shards.enlisted[shard.name].pooled)
        self.connection = Connection(shard.engine, cast("PoolProxiedConnection", held))
        """What Alembic is given, with a transaction that is not Alembic's to commit."""

    def begin(self) -> None:
        """Begin the transaction that is everybody's."""
        self._root = self.connection.begin()
        self._began = self._standing()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Refuse what would be committed apart from the others, while migrations run."""
        pool = self.connection.engine.pool
        event.listen(self.connection, "before_cursor_execute", _look_at)
        event.listen(pool, "checkout", _refuse_connection)
        try:
            yield
        finally:
            event.remove(pool, "checkout", _refuse_connection)
            event.remove(self.connection, "before_cursor_execute", _look_at)

    def check_step(self) -> None:
        """Refuse what a step has left that cannot be prepared, or is over already.

        :raises Refusal: PostgreSQL would not prepare it.
        :raises TransactionAborted: it has ended the transaction on this shard.
        """
        if self.driver.info.transaction_status == TransactionStatus.INERROR:
            return  # whatever follows is refused by the server
        standing = self._standing()
        if standing.began_at != self._began.began_at:
            raise TransactionAborted(
                f"a migration has ended the transaction on shard {self.name!r} over the driver's "
                "own connection: what it did there before is what that end says, and the rest is "
                "rolled back on every shard",
                "leave commit() and rollback() to the run, and look at that shard's tables",
                shard=self.name,
            )
        if standing.has_temporary:
            raise Refusal("PostgreSQL does not prepare a transaction with temporary objects")
        if standing.has_held_cursor:
            raise Refusal("PostgreSQL does not prepare a transaction with cursors WITH HOLD")
        if standing.role != self._began.role:
            # Who prepares it must be who writes the decision, and finishes it.
            self.driver.execute("RESET SESSION AUTHORIZATION; RESET ROLE")

    def _standing(self) -> _Standing:
        with self.driver.cursor(row_factory=class_row(_Standing)) as cursor:
            found = cursor.execute(_STANDING).fetchone()
        assert found is not None
        return found


def _ending(what: str, statement: str | None = None) -> Refusal:
    return Refusal(
        f"{what} would end the transaction on one shard alone",
        "leave it to the run, or run it without --atomic",
        statement=statement,
    )


def _look_at(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
    control = transaction_control(statement)
    if control is not None:
        raise _ending(f"{control} in SQL text", statement)
    lowered = statement.lower()
    if not any(word in lowered for word in _OF_MESSAGES):
        return
    for words in beginnings(statement):
        if words and words[0] in _OF_MESSAGES:
            raise Refusal(
                f"PostgreSQL does not prepare a transaction with {words[0].upper()}",
                statement=statement,
            )


def _refuse_connection(*_: Any) -> NoReturn:
    raise Refusal(
        "what is done over another connection to the shard is not part of its transaction",
        "use op.get_bind(), or run it without --atomic",
    )
