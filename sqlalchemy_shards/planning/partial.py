"""A statement -> blocks that the shards answer in parts, and heads over these in their places.

A block is tried before those within it. One that is not self-contained, or that cannot be split,
stays as it is, and what is within it is tried. Of tables that are left then, rows are shipped.

SQL before:  SELECT count(*) FROM (SELECT kind FROM items GROUP BY kind) AS found
per shard:   SELECT kind AS key_0 FROM items GROUP BY kind
workspace:   SELECT count(*)
             FROM (SELECT key_0 AS kind FROM shards_groups_1 GROUP BY key_0) AS found

Fails closed: each block is checked by itself (`group_splits`, `row_splits`), and PostgreSQL is
shown the whole statement over empty relations before it is used.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import CompileError, InvalidRequestError
from sqlalchemy.sql.selectable import Select
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import ShippedRows

from .blocks import may_choose
from .checks import check_statement
from .derived import check_compiled_alike
from .gathering import Rest, plan_gathering
from .group_splits import split_groups
from .heads import RELATION, has_aggregate
from .made import made_of
from .names import check_functions
from .parts import Gathering
from .refusal import Refusal
from .row_splits import is_limited, split_rows
from .splits import Piece, Whole
from .splitting import NotSplittable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .asked import Facts
    from .blocks import Block, Written
    from .splits import Split


def plan_partial(compiled: Any, facts: Facts) -> Gathering:
    """Plan how the workspace answers a statement from what the shards make of its blocks.

    :param compiled: a `ShardsCompiler`, which knows what it has rendered.
    :raises Refusal: no block can be split.
    """
    statement: Any = _compat.core_statement(compiled)
    if not any(_may_be_split(node) for node in iterate(statement)):
        raise NotSplittable("it has no groups")
    check_statement(statement, compiled)
    check_functions(compiled.rendered_calls, facts.depending)
    check_compiled_alike(statement, compiled)
    try:
        return _planned(statement, Whole(compiled, statement, facts))
    except (CompileError, InvalidRequestError) as error:
        raise NotSplittable(str(error)) from None


def _may_be_split(node: Any) -> bool:
    if not isinstance(node, Select):
        return False
    shape = _compat.select_shape(node)
    return bool(
        shape.group_by
        or shape.having
        or shape.distinct
        or is_limited(shape)
        or any(map(has_aggregate, _compat.column_list(node)))
    )


def _planned(statement: Any, whole: Whole) -> Gathering:
    blocks = _Blocks(statement, whole)
    while True:
        splits, rest = blocks.splits_and_rest()
        if not splits:
            raise NotSplittable("none of its groups can be put together from parts")
        gathering = _gathering(statement, whole, splits, rest)
        if gathering.is_partial:
            return gathering
        if not blocks.leave_useless(splits, gathering):
            assert gathering.rewritten is not None
            over = list(map(whole.relation_of, gathering.parts))
            whole.facts.returned(gathering.rewritten, over)
            gathering.shipment(tuple(range(len(gathering.parts))))
            return gathering


def _gathering(
    statement: Any, whole: Whole, splits: Mapping[Any, Split], rest: Written
) -> Gathering:
    parts = tuple(split.part for split in splits.values())
    if statement in splits and len(parts) == 1 and not rest.tables:
        rewritten = whole.derived(splits[statement].head)
        return Gathering(
            whole.compiled, parts, needs_tables=False, rewritten=rewritten, is_partial=True
        )
    return plan_gathering(
        whole.compiled,
        types_of=whole.facts.columns_of,
        depending=whole.facts.depending,
        rest=Rest(rest, {block: made_of(each.part, each.shown) for block, each in splits.items()}),
        sources_of=whole.facts.sources_of,
    )


class _Blocks:
    """The blocks of a statement, and what is known of them so far."""

    def __init__(self, statement: Any, whole: Whole) -> None:
        self._statement = statement
        self._whole = whole
        self._known: dict[Any, Split | None] = {}
        self._numbers = count(1)

    def splits_and_rest(self) -> tuple[dict[Any, Split], Written]:
        """The blocks that are split, and the statement with their heads in their places."""
        splits: dict[Any, Split] = {}
        while True:
            heads = {block: split.head for block, split in splits.items()}
            around = self._whole.written(self._statement, heads)
            more = self._first_split(around, heads)
            if more is None:
                return splits, around
            splits.update(more)

    def leave_useless(self, splits: Mapping[Any, Split], gathering: Gathering) -> bool:
        """Leave blocks as they are whose tables are shipped as a whole, for what is around them."""
        shipped = {part.origin for part in gathering.parts if part.kind is ShippedRows.ALL}
        useless = [
            block
            for block, split in splits.items()
            if all(table.fullname in shipped for table in split.tables)
        ]
        self._known.update(dict.fromkeys(useless))
        return bool(useless)

    def _first_split(self, around: Written, heads: Mapping[Any, Any]) -> dict[Any, Split] | None:
        for block in around.blocks:
            if block.select not in self._known:
                self._known[block.select] = self._split(block, around, heads)
            split = self._known[block.select]
            if split is not None:
                return {block.select: split}
        return None

    def _split(self, block: Block, around: Written, heads: Mapping[Any, Any]) -> Split | None:
        if block.is_recursive or not _may_be_split(block.final):
            return None
        if not block.is_outermost and not around.stands_alone(block.select):
            return None
        name = RELATION if block.is_outermost else f"{RELATION}_{next(self._numbers)}"
        piece = Piece(block, around, self._whole.written(block.final), name)
        for split in (split_rows, split_groups):
            try:
                found = split(piece, self._whole)
            except Refusal:
                continue
            return None if self._shares_a_choice(piece, found, heads) else found
        return None

    def _shares_a_choice(self, piece: Piece, split: Split, heads: Mapping[Any, Any]) -> bool:
        """Whether a block and what is around it name a CTE that may choose among its rows.

        One database runs that CTE once, and so both see the same choice.
        """
        chosen = set(filter(may_choose, piece.alone.ctes))
        if not chosen:
            return False
        left = self._whole.written(self._statement, {**heads, piece.block.select: split.head})
        return not chosen.isdisjoint(left.ctes)
