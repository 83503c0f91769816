"""Explains a statement: decides on it as an execution would, and stops there; or runs it, measured.

Invariants: nothing is left of a statement that was run to be measured but what no rollback undoes,
as a number that was taken from a sequence; a transaction that it ran in goes on as if it had not.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from sqlalchemy_shards.errors import ConfigurationError, UnsupportedStatement

from .explanation import explanation_of
from .measuring import Measuring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.cluster.dispatch.work import Dispatch
    from sqlalchemy_shards.routing.router import Locator

    from .explanation import Explanation
    from .observing import Observer

EXPLAINED_OPTIONS: Final = (
    "shard",
    "shard_key",
    "scatter",
    "gather_limit",
    "schema_translate_map",
)
"""The execution options that a decision depends on."""

_MARK: Final = "shards_decided"


def explain_statement(
    cluster: Cluster,
    statement: Any,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    locator: Locator | None = None,
) -> Explanation:
    """Decide on a statement exactly as an execution would, and stop before it is performed.

    :raises ConfigurationError: an option is none, or not available yet.
    """
    _check_options(options)
    with cluster.engine.connect() as connection:
        cluster_connection: Any = connection.connection.driver_connection
        cluster_connection.locator = locator
        try:
            with _observed_by(cluster_connection, _Stopping()):
                connection.execute(statement, dict(parameters), execution_options=options)
        except _Stop as stopped:
            return explanation_of(stopped.decided, cluster.workspace.place)
    raise AssertionError("the statement was not dispatched")


def analyze_statement(
    connection: Connection,
    statement: Any,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Explanation:
    """Run a statement, tell what each step took, and undo it.

    :param connection: of a cluster's engine; in its transaction, if it has begun one, the statement
        runs within a savepoint.
    :raises ConfigurationError: an option is none, or not available yet.
    :raises UnsupportedStatement: in AUTOCOMMIT mode nothing could be undone.
    """
    _check_options(options)
    cluster_connection: Any = connection.connection.driver_connection
    if cluster_connection.autocommit:
        raise UnsupportedStatement(
            "explain(analyze=True) runs the statement, and what it does in AUTOCOMMIT mode could "
            "not be undone",
            "use a transaction, or cluster.explain(), which has one of its own",
        )
    measuring = Measuring(tuple(cluster_connection.cluster.shards))
    # A rollback to a savepoint forgets all of them, also those from before.
    inserted = cluster_connection.inserted
    cluster_connection.inserted = inserted.copy()
    undone = connection.begin_nested() if connection.in_transaction() else connection.begin()
    try:
        with _observed_by(cluster_connection, measuring):
            measured = measuring.run(connection, statement, parameters, options)
    finally:
        undone.rollback()
        cluster_connection.inserted = inserted
    place = cluster_connection.cluster.workspace.place
    return explanation_of(measuring.decided[-1], place, measured)


def decide(connection: Connection, execute: Callable[[Mapping[str, Any]], Any]) -> Dispatch | None:
    """Decide on a statement within a connection's transaction, and do not perform it.

    :param execute: executes it, with more execution options. What else is executed by it, as by a
        listener, is performed.
    :returns: None: it was not executed on the connection.
    """
    cluster_connection: Any = connection.connection.driver_connection
    mark = object()

    def stop(
        _: Any, cursor: Any, statement: Any, parameters: Any, context: Any, is_many: Any
    ) -> None:
        if context is not None and context.execution_options.get(_MARK) is mark:
            cluster_connection.observer = _Stopping()

    before = cluster_connection.observer
    event.listen(connection, "before_cursor_execute", stop)
    try:
        execute({_MARK: mark}).close()
    except _Stop as stopped:
        return stopped.decided
    finally:
        cluster_connection.observer = before
        event.remove(connection, "before_cursor_execute", stop)
    return None


def _check_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in EXPLAINED_OPTIONS:
            raise ConfigurationError(
                f"explain() has no option {name!r}",
                f"use one of {', '.join(map(repr, EXPLAINED_OPTIONS))}",
            )


@contextmanager
def _observed_by(connection: Any, observer: Observer) -> Iterator[None]:
    before, connection.observer = connection.observer, observer
    try:
        yield
    finally:
        connection.observer = before


class _Stop(Exception):
    """Carries the decision out of an execution that goes no further."""

    def __init__(self, decided: Dispatch) -> None:
        super().__init__()
        self.decided = decided


class _Stopping:
    """Lets nothing be performed."""

    def on_dispatch(self, decided: Dispatch) -> None:
        raise _Stop(decided)

    def on_step(self, name: str, shard: str | None, seconds: float, answer: Any) -> None:
        """Nothing but what a decision needs is done."""
