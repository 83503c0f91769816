"""A grouped block -> what each shard makes of its own rows, and what is made of that.

The *body* of the block, FROM, WHERE and GROUP BY, runs on each shard. Its groups are shipped as one
relation to the workspace, which runs the *head* over them (`heads`): HAVING, windows, grouping
sets, DISTINCT, ORDER BY and LIMIT, as PostgreSQL does them.

Fails closed: the body must add up, as it must for a scatter; every expression of it must be the
same on every shard; and before the plan is used, PostgreSQL is shown the head over an empty
relation: if it does not take it, or would return other types, the block is not split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.sql.elements import ColumnClause, FunctionFilter

from sqlalchemy_shards import _compat
from sqlalchemy_shards.catalog.functions import DRAWN
from sqlalchemy_shards.plan import ShippedRows
from sqlalchemy_shards.routing.calls import function_of
from sqlalchemy_shards.routing.scopes import conditions_of, unlabelled

from .heads import Head, has_aggregate, values_in
from .names import columns_at_hand
from .splits import ON_SHARD, Split, check_adds_up, check_block, part_of
from .splitting import NotSplittable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards.catalog.columns import ColumnType

    from .splits import Piece, Whole


def split_groups(piece: Piece, whole: Whole) -> Split:
    """Split a block into the groups of the shards and a head over them.

    :raises Refusal: it cannot be answered from these.
    """
    shape = check_block(piece)
    if shape.distinct_on:
        raise NotSplittable("DISTINCT ON picks rows, not groups")
    return _Groups(piece, whole, shape).split()


class _Groups:
    """One block on its way."""

    def __init__(self, piece: Piece, whole: Whole, shape: _compat.SelectShape) -> None:
        self.piece = piece
        self.whole = whole
        self.shape = shape
        self.final = piece.block.final
        sums = piece.alone.compiled.rendered_functions & {"avg", "sum"}
        if sums - frozenset(whole.facts.builtin(sums)):
            raise NotSplittable("not only PostgreSQL's own aggregates have these names")

    def split(self) -> Split:
        """What is shipped, and the head."""
        self._check_names_in_group_by()
        head, _ = self._head(None)
        rows = self._rows(head)
        body = self.whole.written(rows)
        check_adds_up(self.whole.facts.sources_of(body.compiled))
        tables = self.whole.relations(self.piece.alone.tables)
        values = {each.shown.name: each.value for each in head.shipped}
        types = self.whole.types_shipped(rows, values, tables)
        head, statement = self._head(types)
        # A cast of a grouped expression may be another expression to PostgreSQL.
        apart = select(rows.subquery(ON_SHARD))
        part = part_of(self.piece, apart, types, self._kind(head), body.tables)
        shown = list(map(_column_alone, _compat.column_list(statement)))
        found = Split(part, statement, body.tables, shown)
        dependent = [each.value for each in head.dependent.values()]
        block = _compat.without_orm(self.final.group_by(*dependent))
        self.whole.check_head(self.piece, block, found, tables)
        return found

    def _kind(self, head: Head) -> ShippedRows:
        if not head.grouped:
            return ShippedRows.TOTALS
        return ShippedRows.GROUPS if head.pieces or self.shape.group_by else ShippedRows.DISTINCT

    def _head(self, types: Mapping[str, ColumnType] | None) -> tuple[Head, Any]:
        """The head: what it needs, and its SELECT."""
        head = Head(
            self.whole.spelled,
            self.piece.block.names,
            frozenset(self.whole.scalar),
            name=self.piece.name,
            stands_alone=self.piece.around.stands_alone,
            types=types,
        )
        head.group_by(self.shape.group_by)
        columns = _compat.column_list(self.final)
        is_grouped = bool(self.shape.group_by or self.shape.having)
        is_grouped = is_grouped or any(map(has_aggregate, columns))
        if self.shape.distinct and not is_grouped:
            for each in columns:
                head.key(head.meant(each))
        shown = [
            head.of(head.meant(each)).label(name)
            for each, name in zip(columns, self.piece.labels, strict=True)
        ]
        statement = select(*shown).select_from(head.relation)
        having = [head.of(each) for each in self.shape.having]
        order_by = [head.of(each) for each in self.shape.order_by]
        group_by = [head.of(head.meant(each)) for each in self.shape.group_by]
        dependent = [each.shown for each in head.dependent.values()]
        if not (is_grouped or self.shape.distinct):
            raise NotSplittable("it has no groups")
        if self.shape.group_by and not head.keys:
            raise NotSplittable("it groups by nothing that its rows hold")
        statement = statement.group_by(*group_by, *dependent).having(*having).order_by(*order_by)
        return head, self._limited(statement)

    def _limited(self, statement: Any) -> Any:
        if self.shape.distinct:
            statement = statement.distinct()
        return _compat.without_orm(_compat.with_window_of(statement, self.final))

    def _rows(self, head: Head) -> Any:
        """The statement of each shard; its columns are those that the head is shown."""
        if not head.shipped:
            raise NotSplittable("it has no groups")
        self._check_row_wise([*conditions_of(self.final), *_inside(head)])
        rows = select(*(each.value.label(each.shown.name) for each in head.shipped))
        rows = rows.select_from(*_compat.from_list(self.final))
        if self.final.whereclause is not None:
            rows = rows.where(self.final.whereclause)
        if head.grouped:
            rows = rows.group_by(*(each.value for each in head.grouped))
        return _compat.without_orm(rows)

    def _check_row_wise(self, expressions: Sequence[Any]) -> None:
        if self.piece.alone.compiled.rendered_functions & DRAWN:
            raise NotSplittable("it draws values for its rows")
        self.whole.check_row_wise(expressions)

    def _check_names_in_group_by(self) -> None:
        """A bare name in GROUP BY is a column of the tables before it is one of the answer."""
        names = {
            clause.element
            for clause in self.shape.group_by
            if clause.__visit_name__ == "textual_label_reference"
        }
        at_hand = (
            columns_at_hand(self.final, self.piece.alone.compiled, self.whole.facts.columns_of)
            if names
            else set()
        )
        if names & at_hand:
            raise NotSplittable("a name in GROUP BY is also that of a column of a table")


def _column_alone(shown: Any) -> str | None:
    """The column of the groups that a column of the head is."""
    value = unlabelled(shown)
    return value.name if isinstance(value, ColumnClause) else None


def _inside(head: Head) -> list[Any]:
    """What must be the same on every shard: keys, and what aggregates are over."""
    found = [each.value for each in head.grouped]
    for piece in head.pieces.values():
        found += [value for each in function_of(piece.value).clauses for value in values_in(each)]
        if isinstance(piece.value, FunctionFilter):
            found.append(piece.value.criterion)
    return found
