"""Pools, tables and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.dialects.postgresql import ExcludeConstraint
    from sqlalchemy.orm import InstanceState, Session


def distrust_pool(pool: Any, pooled: Any, error: BaseException) -> None:
    """Let a pool check out no connection that it opened before one of them was found dead."""
    pool._invalidate(pooled, error, _checkin=False)


def pool_bound(pool: Any) -> int | None:
    """Connections that a pool may have open at once, None: any number, or it does not say."""
    size, overflow = getattr(pool, "size", None), getattr(pool, "_max_overflow", None)
    if size is None or overflow is None or overflow < 0 or size() == 0:
        return None
    return cast("int", size() + overflow)


def exclusion_elements(constraint: ExcludeConstraint) -> list[tuple[Any, str]]:
    """The expressions that an exclusion constraint compares, each with its operator.

    Its public ``operators`` names the first column of an expression as if it were compared itself.
    """
    elements: Any = constraint._render_exprs
    return [(expression, operator) for expression, _, operator in elements]


def switch_identity(session: Session, state: InstanceState[Any], key: Any) -> None:
    """Let an object of a session have another identity key, until a rollback.

    As the session does it when an UPDATE has changed a primary key.
    """
    transaction: Any = session._transaction
    if transaction is None or state.key == key:
        return
    switches = transaction._key_switches
    first = switches[state][0] if state in switches else state.key
    session.identity_map.safe_discard(state)
    switches[state] = (first, key)
    state.key = key
    session.identity_map.replace(state)


def raise_as_sqlalchemy(connection: Connection, statement: str, error: Exception) -> NoReturn:
    """Raise a driver's error as SQLAlchemy raises those of a statement: wrapped, listeners told."""
    connection._handle_dbapi_exception(error, statement, None, None, None)
