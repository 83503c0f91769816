"""What a SELECT names, for certain or maybe: what must be there where the workspace runs it.

The compiler has noted what it wrote; here is added what others wrote: raw SQL text, and constructs
of the application's own. Fails closed: text that is not understood is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import AliasedReturnsRows, Exists, Select
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.routing.calls import Call
from sqlalchemy_shards.routing.raw_names import raw_names
from sqlalchemy_shards.routing.raw_text import why_unreadable
from sqlalchemy_shards.routing.row_wise import ROW_WISE_FUNCTIONS, text_of
from sqlalchemy_shards.routing.scopes import unwrapped_query

from .elsewhere import TIMES, check_no_namesake
from .nodes import nodes_of
from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence, Set

    from sqlalchemy_shards.catalog.functions import Doubt
    from sqlalchemy_shards.routing.raw_names import RawNames

    Depending = Callable[[Iterable[Call]], Sequence[Doubt]]

SYNTAX: Final = frozenset(
    "all any array cube exists grouping grouping_sets rollup row some".split()
)
"""What looks like a function, and is a part of the language."""

SYSTEM_COLUMNS: Final = frozenset("cmax cmin ctid tableoid xmax xmin".split())

_NUMBER_OF_NAME: Final = re.compile(r"_\d+$")


class Names(NamedTuple):
    """What a statement names besides the columns of tables that SQLAlchemy wrote.

    :param bare: names without a table, which PostgreSQL looks up among all columns at hand.
    :param calls: whatever is called.
    :param whole: full names of tables whose rows are used whole.
    :param is_all_whole: the rows of any table may be.
    :param has_records: a row may itself be a value, whose type is the table's.
    :param groups_by_text: what it groups by is not known.
    """

    bare: frozenset[str]
    calls: frozenset[Call]
    whole: frozenset[str]
    is_all_whole: bool
    has_records: bool
    groups_by_text: bool


def names_in(statement: Any, compiled: Any) -> Names:
    """Find what a statement names.

    :param compiled: a `ShardsCompiler`, which knows what it has rendered.
    :raises Refusal: it holds text or constructs that are not understood.
    """
    nodes = list(nodes_of(statement, compiled))
    texts = [_read(text) for text in compiled.raw_texts]
    texts += [_read_own(node, compiled) for node in nodes if _compat.compiles_itself(node)]
    bare = frozenset(compiled.bare_names).union(*(text.names for text in texts))
    found = bare & SYSTEM_COLUMNS
    if found:
        raise Refusal(f"it names {min(found)}, a system column")
    elements = {_NUMBER_OF_NAME.sub("", name) for name in _names_of_elements(nodes, compiled)}
    alone = {_NUMBER_OF_NAME.sub("", name) for text in texts for name in text.alone}
    has_row = not elements.isdisjoint(alone)
    return Names(
        bare,
        frozenset(compiled.rendered_calls).union(*(map(Call, text.functions) for text in texts)),
        frozenset(compiled.whole_rows),
        has_row or _has_star(nodes) or any(text.has_star for text in texts),
        has_row or bool(compiled.whole_rows),
        any(_groups_by_text(node) for node in nodes),
    )


def columns_at_hand(
    statement: Any, compiled: Any, columns_of: Callable[[Any], Iterable[str]]
) -> set[str]:
    """The names by which PostgreSQL finds a column before it looks for a label.

    :param columns_of: the columns of a table, also those that its model does not have.
    """
    names = {column.name for each in _compat.from_list(statement) for column in each.c}
    for table in compiled.rendered_tables:
        names.update(columns_of(table))
    return names


def check_functions(calls: Set[Call], depending: Depending) -> None:
    """Refuse functions that may give something else at the workspace, or are not there at all.

    :param depending: of calls, those that depend on when or where they run.
    """
    check_no_namesake(call.name for call in calls)
    known = TIMES | ROW_WISE_FUNCTIONS | SYNTAX
    found = depending(call for call in calls if call.name not in known)
    if not found:
        return
    name, arity, is_missing = found[0]
    if is_missing:
        arguments = "" if arity is None else f" that takes {arity} argument{'s' * (arity != 1)}"
        raise Refusal(
            f"the shards have no function {name}(){arguments}",
            "check its name, or create it on all shards",
        )
    raise Refusal(
        f"the function {name}() may give something else on another server or at another time",
        "compute its value first and pass it as a parameter",
    )


def _read(text: str) -> RawNames:
    found = raw_names(text)
    if found is None:
        raise Refusal(
            "it holds raw SQL text that is not understood where rows are brought together",
            "say it with SQLAlchemy's expressions",
        )
    if found.names_moment or found.functions & TIMES:
        raise Refusal(
            "it holds raw SQL text that asks for the time, which is another one where rows are "
            "brought together",
            "use func.now() and its kin",
        )
    return found


def _read_own(node: Any, compiled: Any) -> RawNames:
    """Read what a construct writes that has a compiler of the application's own."""
    refusal = Refusal(
        f"it holds a {type(node).__name__}, an SQL construct of your own that is not understood",
        "write what it stands for with SQLAlchemy's expressions",
    )
    if not isinstance(node, ColumnElement):
        raise refusal
    try:
        text = str(node.compile(dialect=compiled.dialect))
    except SQLAlchemyError:
        raise refusal from None
    if why_unreadable(text) is not None:
        raise refusal
    return _read(text)


def _names_of_elements(nodes: Sequence[Any], compiled: Any) -> Iterator[str]:
    """Names that FROM elements have, as far as they are known; "anon" for the others."""
    yield "anon"
    for table in compiled.rendered_tables:
        yield table.name
    for node in nodes:
        if isinstance(node, AliasedReturnsRows):
            yield str(node.name)


def _has_star(nodes: Sequence[Any]) -> bool:
    """Whether a SELECT outside EXISTS has all columns of its FROM list."""
    in_exists = {id(unwrapped_query(node)) for node in nodes if isinstance(node, Exists)}
    return any(
        text_of(column) == "*"
        for node in nodes
        if isinstance(node, Select) and id(node) not in in_exists
        for column in _compat.column_list(node)
    )


def _groups_by_text(node: Any) -> bool:
    if not isinstance(node, Select):
        return False
    return any(
        text_of(each) is not None
        for expression in _compat.select_shape(node).group_by
        for each in iterate(expression)
    )
