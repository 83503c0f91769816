"""What a statement gives, made comparable: rows with the types of their values, or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sqlalchemy_shards.errors import ShardsError, UnsupportedStatement

if TYPE_CHECKING:
    from sqlalchemy import Engine


def answer(bind: Engine, statement: Any, *settings: Any) -> Any:
    """Rows, sorted unless they come in order; or the classes of the error.

    :param settings: statements that run before it in the same transaction.
    """
    try:
        with Session(bind) as session:
            for setting in settings:
                session.execute(setting)
            rows = [
                tuple((type(value).__name__, repr(value)) for value in row)
                for row in session.execute(statement)
            ]
    except ShardsError as error:
        return type(error)
    except DBAPIError as error:
        return type(error), type(error.orig)
    return rows if statement._order_by_clauses else sorted(rows)


def is_refusal(found: Any) -> bool:
    """Whether an answer is that there is none."""
    return isinstance(found, type) and issubclass(found, UnsupportedStatement)
