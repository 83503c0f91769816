"""How SQL is written that runs on another server or at another time than it was asked on.

`now()` and its kin tell when the session's transaction began; elsewhere that moment is a parameter.
On the workspace tables stand under their bare names, whatever schema they have on the shards.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import TIMESTAMP as PLAIN_TIMESTAMP
from sqlalchemy import Date, bindparam, cast
from sqlalchemy.dialects.postgresql import TIME, TIMESTAMP
from sqlalchemy.schema import Table

from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sqlalchemy.engine import Dialect

NOW: Final = bindparam("shards_now", type_=PLAIN_TIMESTAMP(timezone=True))
"""When the session's transaction began."""

TIMES: Final = frozenset(
    """
    current_date current_time current_timestamp localtime localtimestamp now transaction_timestamp
    """.split()
)
"""Functions that tell nothing but that moment, in the session's time zone."""


def asks_for_the_time(compiled: Any) -> bool:
    """Whether a statement calls one of `TIMES`.

    :param compiled: a `ShardsCompiler`, which knows what it has rendered.
    :raises Refusal: it calls a namesake, or has a parameter of the name that `NOW` has.
    """
    called = compiled.rendered_functions
    if TIMES.isdisjoint(name.rpartition(".")[2] for name in called):
        return False
    check_no_namesake(called)
    if NOW.key in compiled.bind_names.values():
        raise Refusal(f"its parameter {NOW.key!r} has a name that stands for the time")
    return True


def check_no_namesake(names: Iterable[str]) -> None:
    """Refuse functions of the application's that are called as one of `TIMES`, in a schema.

    :raises Refusal: with the first of them.
    """
    for name in names:
        if "." in name and name.rpartition(".")[2] in TIMES:
            raise Refusal(f"{name}() is not PostgreSQL's own function of that name")


class _GivenTime:
    """What a compiler writes for the functions in `TIMES`."""

    process: Any

    def visit_now_func(self, _function: Any, **_: Any) -> Any:
        return self.process(NOW)

    visit_transaction_timestamp_func = visit_now_func

    def visit_current_timestamp_func(self, function: Any, **_: Any) -> Any:
        return self._rounded(function, partial(TIMESTAMP, timezone=True))

    def visit_localtimestamp_func(self, function: Any, **_: Any) -> Any:
        return self._rounded(function, TIMESTAMP)

    def visit_current_time_func(self, function: Any, **_: Any) -> Any:
        return self._rounded(function, partial(TIME, timezone=True))

    def visit_localtime_func(self, function: Any, **_: Any) -> Any:
        return self._rounded(function, TIME)

    def visit_current_date_func(self, _function: Any, **_: Any) -> Any:
        return self.process(cast(NOW, Date()))

    def _rounded(self, function: Any, type_: Callable[..., Any]) -> Any:
        """That moment, with as many digits of the second as the function is asked for."""
        if not function.clauses.clauses:
            return self.process(cast(NOW, type_()))
        precision = self.process(function.clauses)
        if not precision.isdecimal():
            raise Refusal(f"the precision of {function.name}() is no literal number")
        return self.process(cast(NOW, type_(precision=int(precision))))


def at_given_time(dialect: Dialect) -> Any:
    """A dialect that writes `NOW` where SQL would ask for the time."""
    derived: Any = copy.copy(dialect)
    compiler = dialect.statement_compiler
    derived.statement_compiler = type(f"GivenTime{compiler.__name__}", (_GivenTime, compiler), {})
    return derived


def at_workspace(dialect: Dialect, stay: Collection[Table] = ()) -> Any:
    """The same, with bare names of tables.

    :param stay: tables that keep their schemas.
    """
    derived = at_given_time(dialect)
    derived.identifier_preparer = derived.preparer(derived)

    def schema_of(named: Any) -> str | None:
        is_bare = isinstance(named, Table) and named not in stay
        return None if is_bare else named.schema

    derived.identifier_preparer.schema_for_object = schema_of
    return derived
