"""The statement that shards run in place of the one given: more rows, sort keys, one moment.

SQL before:  SELECT name FROM users ORDER BY id DESC LIMIT 10 OFFSET 20
SQL after:   SELECT name, id AS shards_sort_0 FROM users ORDER BY id DESC LIMIT 30

`now()` and its kin are a parameter, so that all shards are told one moment.

Fails closed: compiled as it is, the statement must give the SQL that SQLAlchemy made of it (what
ORM options add while compiling could be missing here), and sort keys must add no table.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, bindparam
from sqlalchemy.sql.selectable import Join

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.routing.scopes import leaves

from .derived import Derived, check_compiled_alike, compiled_with
from .elsewhere import NOW, at_given_time
from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import Select

    from sqlalchemy_shards.plan import Window

ROWS_MAX: Final = 2**63 - 1
"""LIMIT and OFFSET are bigints."""


class Rewritten:
    """The statement that shards run, and how many rows they are asked for."""

    def __init__(
        self, compiled: SQLCompiler, original: SQLCompiler, window: Window, limit: Any
    ) -> None:
        own = [NOW] if limit is None else [NOW, limit]
        self._derived = Derived(compiled, original.bind_names, own)
        self._limits = [name for name in self._derived.own if name != NOW.key]
        self._window = window

    @property
    def is_timed(self) -> bool:
        """Whether it is to be told the moment: `NOW` is among its parameters."""
        return NOW.key in self._derived.own

    @property
    def sql(self) -> str:
        """Its SQL, with names where values go."""
        return str(self._derived.compiled.string)

    def render(
        self, context: DefaultExecutionContext, values: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """SQL text and driver parameters for one execution.

        :raises UnsupportedStatement: LIMIT or OFFSET is no number of rows.
        """
        needed = rows_needed(self._window, values)
        return self._derived.render(context, values, dict.fromkeys(self._limits, needed))


def rewrite(
    select: Select[Any],
    compiled: SQLCompiler,
    more: Sequence[Any],
    window: Window,
    *,
    keeps_window: bool = True,
    is_timed: bool = False,
) -> Rewritten:
    """Add columns, and let each shard give all rows that may be needed.

    :param more: the columns, with their labels.
    :param keeps_window: a row that is beyond the limit on its shard is not needed.
    :param is_timed: it asks for the time.
    :raises Refusal: the derived statement would not be the same but for that.
    """
    check_compiled_alike(select, compiled)
    statement: Any = _compat.with_more_columns(select, more) if more else select
    limit: Any = None
    if not keeps_window:
        statement = statement.order_by(None).limit(None).offset(None)
    elif window.limit is not None:
        limit = bindparam("shards_limit", type_=BigInteger(), unique=True)
        statement = statement.limit(limit)  # also in place of FETCH
    if window.offset is not None:
        statement = statement.offset(None)
    dialect = at_given_time(compiled.dialect) if is_timed else None
    derived = compiled_with(statement, compiled, dialect)
    if more and _names_in_from(statement) != _names_in_from(select):
        raise Refusal("GROUP BY or ORDER BY names a table that is not in its FROM list")
    return Rewritten(derived, compiled, window, limit)


def _names_in_from(select: Select[Any]) -> set[Any]:
    elements = (leaf for element in _compat.from_list(select) for leaf in leaves(element))
    return {each for each in elements if not isinstance(each, Join)}


def rows_needed(window: Window, values: Mapping[str, Any]) -> int | None:
    """How many rows of each shard can be part of the answer; None: all.

    :raises UnsupportedStatement: LIMIT or OFFSET is no number of rows.
    """
    limit = None if window.limit is None else _row_count(values[window.limit])
    offset = None if window.offset is None else _row_count(values[window.offset])
    return None if limit is None else min(limit + (offset or 0), ROWS_MAX)


def _row_count(value: Any) -> int | None:
    if value is None:
        return None
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None or not 0 <= count <= ROWS_MAX:
        # PostgreSQL rounds what is no integer; Python does not round alike.
        raise UnsupportedStatement(
            f"LIMIT and OFFSET over several shards must be integers from 0 to {ROWS_MAX}",
            "give whole numbers of rows",
        )
    return count
