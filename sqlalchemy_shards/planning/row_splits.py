"""A block whose rows are those of one shard each -> the rows of each shard, and a head over them.

So it is where its groups, distinct rows or windows are those of one shard key each, where it takes
the first rows of an order, or the first rows of each key, by DISTINCT ON. Each shard answers the
block as it is, with the sort keys and as many rows as may be needed; the head sorts and counts off
once more.

SQL before:  SELECT name FROM users ORDER BY score LIMIT 10 OFFSET 5
per shard:   SELECT name, score AS shards_sort_1 FROM users ORDER BY score LIMIT 15
head:        SELECT c0 AS name FROM shards_groups ORDER BY c1 LIMIT 10 OFFSET 5
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Numeric, cast, column, func, literal_column, select, table

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import Concatenate, ForeignOrder, OrderedMerge, ShippedRows
from sqlalchemy_shards.routing.nested import is_cut_off
from sqlalchemy_shards.routing.scopes import conditions_of, unlabelled

from .ordering import directed, orderings
from .planner import prepare
from .rewriting import ROWS_MAX
from .splits import ON_SHARD, Split, check_adds_up, check_block, part_of
from .splitting import NotSplittable

if TYPE_CHECKING:
    from sqlalchemy_shards.routing.sources import StatementSources

    from .ordering import Ordering
    from .parts import Part
    from .splits import Piece, Whole


def split_rows(piece: Piece, whole: Whole) -> Split:
    """Split a block into the rows of the shards and a head over them.

    :raises Refusal: it cannot be answered from these, or they are no fewer than its tables' rows.
    """
    shape = check_block(piece)
    if not (shape.group_by or shape.distinct or is_limited(shape)):
        raise NotSplittable("its rows are as many as those of its tables")
    if shape.fetches_otherwise:
        raise NotSplittable("FETCH counts otherwise than LIMIT")
    sources = whole.facts.sources_of(piece.alone.compiled)
    if shape.distinct_on and not sources.is_key_by_key:
        _check_picks_rows(piece, whole, shape, sources)
    else:
        merge = prepare(sources, piece.alone.compiled, whole.facts.catalog).scatter.merge
        if not isinstance(merge, (Concatenate, ForeignOrder, OrderedMerge)):
            raise NotSplittable("rows of several shards are made one")
    return _Rows(piece, whole, shape).split()


def is_limited(shape: _compat.SelectShape) -> bool:
    """Whether a SELECT gives some first rows only."""
    return shape.limit is not None or shape.fetch is not None


def _check_picks_rows(
    piece: Piece, whole: Whole, shape: _compat.SelectShape, sources: StatementSources
) -> None:
    """The first rows of each key on each shard are all that can be the first of all."""
    check_adds_up(sources)
    if shape.group_by or shape.having:
        raise NotSplittable("DISTINCT ON picks groups of several shards")
    final = piece.block.final
    inside = [*conditions_of(final), *_compat.column_list(final)]
    whole.check_row_wise([*inside, *shape.distinct_on, *shape.order_by])


class _Rows:
    """One block on its way."""

    def __init__(self, piece: Piece, whole: Whole, shape: _compat.SelectShape) -> None:
        self.piece = piece
        self.whole = whole
        self.shape = shape
        self.final = piece.block.final
        self._shown = _compat.column_list(self.final)
        self._hidden: dict[str, Any] = {}
        """Keys that are no columns, by their spelling."""

    def split(self) -> Split:
        """What is shipped, and the head."""
        order = orderings(self.shape.order_by, self.piece.block.names)
        picked = orderings(self.shape.distinct_on, self.piece.block.names)
        if order is None or picked is None:
            raise NotSplittable("it is not known what it is sorted by")
        places = [self._place_of(each) for each in order]
        picks = [self._place_of(each) for each in picked]
        rows, values = self._rows()
        read = self.piece.alone.tables
        tables = self.whole.relations(read)
        types = self.whole.types_shipped(rows, values, tables)
        part = part_of(self.piece, rows, types, self._kind(), read)
        head = self._head(part, list(zip(order, places, strict=True)), picks)
        found = Split(part, head, read, part.columns[: len(self._shown)])
        self.whole.check_head(self.piece, self.final, found, tables)
        return found

    def _kind(self) -> ShippedRows:
        if is_limited(self.shape) or self.shape.distinct_on:
            return ShippedRows.FIRST
        return ShippedRows.GROUPS if self.shape.group_by else ShippedRows.DISTINCT

    def _place_of(self, ordering: Ordering) -> int:
        """Which of the shipped columns a key is."""
        expression = unlabelled(ordering.expression)
        text = self.whole.spelled(expression)
        for place, shown in enumerate(self._shown):
            if unlabelled(shown) is expression or self.whole.spelled(unlabelled(shown)) == text:
                return place
        if self.shape.distinct and not self.shape.distinct_on:
            raise NotSplittable("it is sorted by what SELECT DISTINCT does not show")
        self._hidden.setdefault(text, expression)
        return len(self._shown) + list(self._hidden).index(text)

    def _rows(self) -> tuple[Any, dict[str, Any]]:
        """The statement of each shard, and what its columns are."""
        count = len(self._shown)
        hidden = [
            expression.label(f"shards_sort_{place}")
            for place, expression in enumerate(self._hidden.values(), count)
        ]
        own = _compat.with_more_columns(self.final, hidden) if hidden else self.final
        if not self.shape.distinct_on:
            own = self._first(own)
        elif is_cut_off(self.shape):
            own = own.limit(None).offset(None)
        columns = list(_compat.without_orm(own).subquery(ON_SHARD).c)
        values = [*self._shown, *self._hidden.values()]
        if len(columns) != len(values):
            raise NotSplittable("it cannot be told how many columns it has")
        names = [f"c{place}" for place in range(len(columns))]
        rows = select(*(each.label(name) for each, name in zip(columns, names, strict=True)))
        return rows, dict(zip(names, values, strict=True))

    def _first(self, rows: Any) -> Any:
        """The rows that may be among those that the block takes."""
        if not is_limited(self.shape):
            return rows.order_by(None).offset(None)
        limit = self.shape.fetch if self.shape.limit is None else self.shape.limit
        if self.shape.offset is not None:
            # NULL is no limit, and is passed over.
            offset: Any = func.coalesce(_as_counted(self.shape.offset), literal_column("0"))
            needed = func.least(_as_counted(limit) + offset, literal_column(str(ROWS_MAX)))
            limit = cast(needed, BigInteger)
        return rows.limit(limit).offset(None)

    def _head(self, part: Part, order: list[tuple[Ordering, int]], picks: list[int]) -> Any:
        values = [*self._shown, *self._hidden.values()]
        shipped = [
            column(name, value.type) for name, value in zip(part.columns, values, strict=True)
        ]
        relation = table(part.name, *shipped)
        shown = zip(shipped, self.piece.labels, strict=False)
        head = select(*(each.label(name) for each, name in shown)).select_from(relation)
        if picks:
            head = _compat.with_distinct_on(head, [shipped[place] for place in picks])
        keys = [directed(shipped[place], ordering) for ordering, place in order]
        return _compat.with_window_of(head.order_by(*keys), self.final)


def _as_counted(rows: Any) -> Any:
    """A number of rows as LIMIT takes it, so that a sum of two of them cannot be too large."""
    # What is no whole number is rounded by itself: 2.5 + 0.5 is 3 + 1.
    return cast(cast(rows, BigInteger), Numeric)
