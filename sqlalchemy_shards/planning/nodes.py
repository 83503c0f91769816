"""Everything that a statement is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat

if TYPE_CHECKING:
    from collections.abc import Iterator


def nodes_of(statement: Any, compiled: Any) -> Iterator[Any]:
    """The statement and all within it; of an UPDATE or DELETE, its FROM list too.

    :param compiled: the compiled statement, which alone knows that list.
    """
    yield from iterate(statement)
    for element in _compat.extra_froms(compiled):
        yield from iterate(element)
