"""UNION ALL whose members add up: each shard gives the rows of all members that it has.

SQL before:  SELECT id FROM users UNION ALL SELECT user_id FROM orders ORDER BY id LIMIT 10 OFFSET 5
per shard:   SELECT id FROM users UNION ALL SELECT user_id FROM orders ORDER BY id LIMIT 15
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.selectable import CompoundSelect

from sqlalchemy_shards import _compat
from sqlalchemy_shards.routing.scopes import ungrouped_query, unlabelled

from .draft import plain_type
from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .draft import Draft


def check_union(statement: Any) -> None:
    """Refuse a set operation that looks at rows of all shards.

    :raises Refusal: it is no UNION ALL.
    """
    if not isinstance(statement, CompoundSelect) or statement.keyword.value != "UNION ALL":
        raise Refusal("UNION, INTERSECT and EXCEPT put rows of all shards together")


def places_of_keys(draft: Draft) -> list[int]:
    """Which columns the keys of ORDER BY are.

    :raises Refusal: one of them is none.
    """
    columns = _compat.column_list(draft.statement)
    found = [_place_of(each.expression, columns, draft) for each in draft.orderings]
    places = [index for index in found if index is not None]
    if len(places) < len(found):
        raise Refusal("ORDER BY names what SELECT DISTINCT does not show")
    return places


def columns_of_members(draft: Draft) -> list[Any]:
    """What the keys of ORDER BY are in each member of a UNION ALL.

    :raises Refusal: they are of different types, and so of another one together.
    """
    members = [_compat.column_list(each) for each in _members(draft.statement)]
    found = []
    for place in places_of_keys(draft):
        columns = [unlabelled(member[place]) for member in members]
        if len({type(plain_type(each)) for each in columns}) > 1:
            raise Refusal("UNION ALL puts values of several types into one column")
        found += columns
    return found


def _place_of(expression: Any, columns: list[Any], draft: Draft) -> int | None:
    # What a name stands for in a set operation is a column of all members.
    if isinstance(draft.statement, CompoundSelect):
        if len({getattr(each, "name", None) for each in columns}) < len(columns):
            return None  # a name in ORDER BY may be that of another column
        named = list(_compat.label_meanings(draft.compiled).values())
        for place, each in enumerate(named if len(named) == len(columns) else ()):
            if each is expression:
                return place
    return draft.index_of(expression, columns)


def _members(statement: Any) -> Iterator[Any]:
    for each in statement.selects:
        member = ungrouped_query(each)
        if isinstance(member, CompoundSelect):
            yield from _members(member)
        else:
            yield member
