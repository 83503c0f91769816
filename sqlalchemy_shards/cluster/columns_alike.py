"""Whether several shards gave the same columns, where SQL does not name them one by one.

``SELECT *`` gives a table's columns in the order in which they were added, which may be another one
on each shard. What SQLAlchemy has written names its columns, and is not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.postgres import types

from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.plan import FirstCopy
from sqlalchemy_shards.routing.route import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .dispatch.work import Dispatch

_SAME_FOR_PYTHON: Final = {
    types[name].oid: group
    for group in ("int2 int4 int8", "float4 float8", "bpchar name text varchar")
    for name in group.split()
}
_BUILTIN_END: Final = 16384
"""Oids from here on are an own matter of each database."""


def check_columns_alike(decided: Dispatch, cursors: Sequence[Any]) -> None:
    """Refuse rows of several shards that do not have the same columns in one order.

    :raises UnsupportedStatement: with the columns that differ.
    """
    sql = decided.works[0].sql
    is_named = decided.route.reason is not Reason.OPTION and "*" not in str(sql)
    if is_named or isinstance(decided.merge, FirstCopy):
        return
    first, mine = decided.works[0].shard, cursors[0].description or ()
    for work, cursor in zip(decided.works[1:], cursors[1:], strict=True):
        others = cursor.description or ()
        if [column.name for column in mine] != [column.name for column in others]:
            _refuse(first, work.shard, *_differing(_names(mine), _names(others)), sql)
        for own, other in zip(mine, others, strict=True):
            if not _is_same(own.type_code, other.type_code):
                _refuse(first, work.shard, _typed(own), _typed(other), sql)


def _refuse(first: str, shard: str, mine: str, other: str, sql: Any) -> None:
    raise UnsupportedStatement(
        f"the shards give other columns: {mine} on {first!r}, {other} on {shard!r}",
        "name the columns that are wanted, each by its name; `shards check` tells where tables "
        "differ",
        statement=sql if isinstance(sql, str) else None,
    )


def _names(columns: Sequence[Any]) -> list[str]:
    return [column.name for column in columns]


def _differing(mine: Sequence[str], others: Sequence[str]) -> tuple[str, str]:
    """The names at the first place where they differ, with that place."""
    pairs = zip(mine, others, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(mine), len(others)))

    def told(names: Sequence[str]) -> str:
        return f"{names[same]!r} as column {same + 1}" if same < len(names) else f"{same} columns"

    return told(mine), told(others)


def _typed(column: Any) -> str:
    found = types.get(column.type_code)
    return f"{column.name!r} of type {found.name if found else 'its own'}"


def _is_same(one: int, other: int) -> bool:
    if max(one, other) >= _BUILTIN_END:
        return True
    return _SAME_FOR_PYTHON.get(one, one) == _SAME_FOR_PYTHON.get(other, other)
