"""Rows that the shards make of a block, as partners of rows that are shipped as they are.

SQL before:  SELECT ... FROM (SELECT id FROM users ORDER BY score LIMIT 5) AS best
             LEFT JOIN events ON events.user_id = best.id
SQL shipped: WITH shards_groups_1 AS (SELECT id AS c0 FROM users ORDER BY score LIMIT 5)
             SELECT ... FROM shards_groups_1
             UNION ALL SELECT ... FROM events WHERE user_id IN (SELECT c0 FROM shards_groups_1)

The head of the block shows no row but of these. They are a CTE in what a shard runs, so that they
are made once: where the order has ties, made twice they could be others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, tuple_

from sqlalchemy_shards.routing.beside import lies_beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql.selectable import CTE, FromClause

    from sqlalchemy_shards.routing.scopes import Occurrence

    from .parts import Part


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What the shards make of a block.

    :param shown: for each column of the block, which column of the part it is.
    :param rows: the part's rows, for all who read them on a shard.
    """

    part: Part
    shown: Sequence[str | None]
    rows: CTE

    @property
    def part_read_once(self) -> Part:
        """The part, read from what others read."""
        return self.part._replace(rows=select(*self.rows.c))

    def has_partner(self, target: FromClause, pairs: Sequence[tuple[str, str]]) -> Any:
        """The condition that one of the rows equals a row of the target.

        :param pairs: keys of columns of the target, and the names of the part's that equal them.
        """
        values = [target.c[mine] for mine, _ in pairs]
        found = select(*(self.rows.c[its] for _, its in pairs))
        return (values[0] if len(values) == 1 else tuple_(*values)).in_(found)


def made_of(part: Part, shown: Sequence[str | None]) -> Made:
    """The rows of the part that a block is answered from."""
    return Made(part, shown, part.rows.cte(part.name))


def is_made_beside(own: Occurrence, inside: Sequence[tuple[Occurrence, tuple[str, str]]]) -> bool:
    """Whether the rows that equal an occurrence's are made on the shard of these.

    :param inside: what the equal columns of the block are: columns of rows that it is made of.
    """
    others = {other for other, _ in inside if other.source is not None}
    return own.source is not None and any(
        other.source is not None
        and lies_beside(own.source, other.source, [pair for each, pair in inside if each is other])
        for other in others
    )
