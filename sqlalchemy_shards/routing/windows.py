"""The window functions in expressions: where they are, and what their windows are made by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Exists, ScalarSelect, SelectBase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def windows_in(expressions: Iterable[Any]) -> Iterator[Any]:
    """The windows of expressions, without those of subqueries in them."""
    pending = list(expressions)
    while pending:
        node = pending.pop()
        if node.__visit_name__ == "over":
            yield node
        is_function = isinstance(node, FunctionElement)
        is_query = isinstance(node, (SelectBase, ScalarSelect, Exists))
        if is_function or not (is_query or getattr(node, "is_selectable", False)):
            pending.extend(node.get_children())


def partition_of(window: Any) -> Sequence[Any]:
    """What PARTITION BY names."""
    return () if window.partition_by is None else tuple(window.partition_by)


def parts_of_window(over: Any) -> list[Any]:
    """What a window is made by, without the function that looks at it: its rows and its frame."""
    return [child for child in over.get_children() if child is not over.element]
