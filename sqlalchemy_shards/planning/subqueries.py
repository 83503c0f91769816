"""Conditions with subqueries that a shard can look at by itself, as their rows lie there.

SQL before:  SELECT ... FROM orders JOIN users ... WHERE orders.id IN (
                 SELECT order_id FROM items GROUP BY order_id HAVING sum(quantity) > 300)
SQL shipped: SELECT ... FROM orders WHERE orders.id IN (the same)

A condition on the rows of one occurrence is told beside them if a SELECT of that occurrence alone,
by this condition, would be a scatter. What its subqueries name must be what they name in the
statement: so they must have the same FROM lists in both.

The workspace asks the condition again, of the rows that came. So a subquery that may choose among
its rows, as one with LIMIT or a window, is not told beside them: it might choose others there.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import literal_column, select
from sqlalchemy.exc import CompileError, InvalidRequestError
from sqlalchemy.sql.elements import BindParameter, ColumnClause, ColumnElement
from sqlalchemy.sql.selectable import FromClause, SelectBase
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from sqlalchemy_shards import _compat

from .blocks import may_choose, written
from .derived import Derived, check_compiled_alike
from .elsewhere import NOW
from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.routing.sources import StatementSources

    from .blocks import Block, Written

    SourcesOf = Callable[[Any], StatementSources]


def has_subquery(condition: Any) -> bool:
    """Whether there is a subquery in a condition."""
    return any(isinstance(node, SelectBase) for node in iterate(condition))


class Subqueries:
    """The subqueries in the conditions of a statement.

    :param compiled: the statement, as a `ShardsCompiler` has compiled it.
    :param sources_of: the tables of a statement that such a compiler has compiled.
    """

    def __init__(self, compiled: Any, statement: Any, sources_of: SourcesOf) -> None:
        self._compiled = compiled
        self._statement = statement
        self._sources_of = sources_of
        self._froms: dict[Any, frozenset[FromClause]] = {}
        """SELECT within a condition that is told -> its FROM list there."""

    def is_told(self, element: FromClause, condition: Any) -> bool:
        """Whether a shard can look at a condition on the rows of an occurrence by itself."""
        if not any(_is_of(element, node) for node in iterate(condition)):
            return False
        alone = self._alone(element, condition)
        if alone is None or not self._means_the_same(alone):
            return False
        if may_choose(condition) or any(map(may_choose, alone.ctes)):
            return False
        sources = self._sources_of(alone.compiled)
        return sources.unreadable is None and sources.obstacle is None

    def about(self, target: FromClause, element: FromClause, condition: Any) -> Any:
        """A condition that is told, with the columns of the occurrence taken from another element.

        :return: None: it cannot be written so.
        """
        there = self._alone(element, condition)
        assert there is not None
        if target is element:
            moved, here = condition, there
        elif any({target, element} & block.froms for block in there.blocks[1:]):
            return None  # columns of the one could be taken for columns of the other
        else:
            moved = _moved(target, element, condition)
            found = self._alone(target, moved)
            if found is None or list(map(_named, found.blocks[1:])) != [
                _named(each) for each in there.blocks[1:]
            ]:
                return None
            here = found
        self._froms.update((block.select, block.froms) for block in here.blocks[1:])
        return moved

    def are_in(self, condition: Any) -> bool:
        """Whether one of the subqueries that were told stands in a condition."""
        return any(node in self._froms for node in iterate(condition))

    def is_as_meant(self, table: FromClause, condition: Any) -> bool:
        """Whether each subquery within a condition on a table's rows has the FROM list it had."""
        return not self.are_in(condition) or all(
            self._froms.get(block.select, block.froms) == block.froms
            for block in self._written(table, condition).blocks
        )

    @cached_property
    def _blocks(self) -> dict[Any, list[Block]]:
        """SELECT of the statement -> where it is written."""
        try:
            check_compiled_alike(self._statement, self._compiled)
        except Refusal:
            return {}
        found: dict[Any, list[Block]] = {}
        for block in written(self._statement, self._compiled.dialect).blocks:
            found.setdefault(block.select, []).append(block)
        return found

    def _means_the_same(self, alone: Written) -> bool:
        return all(
            block.select in self._blocks
            and all(each.froms == block.froms for each in self._blocks[block.select])
            for block in alone.blocks[1:]
        )

    def _alone(self, element: FromClause, condition: Any) -> Written | None:
        """A SELECT of the rows of an element that meet a condition; None: there is none."""
        try:
            found = self._written(element, condition)
            Derived(found.compiled, self._compiled.bind_names, [NOW])
        except (CompileError, InvalidRequestError, Refusal):
            return None
        # The element alone must be in its FROM list.
        return found if found.blocks[0].froms == {element} else None

    def _written(self, element: FromClause, condition: Any) -> Written:
        rows: Any = select(literal_column("1")).select_from(element).where(condition)
        return written(_compat.without_orm(rows), self._compiled.dialect)


def _is_of(element: FromClause, node: Any) -> bool:
    # By equality: the ORM annotates FROM elements, and not always the columns' tables.
    return isinstance(node, ColumnClause) and not node.is_literal and bool(node.table == element)


def _named(block: Block) -> list[tuple[str, str]]:
    """What a FROM list holds, also of a copy of the SELECT."""
    return sorted((type(each).__name__, str(getattr(each, "name", ""))) for each in block.froms)


def _moved(target: FromClause, element: FromClause, condition: Any) -> Any:
    def replace(node: Any, **_: Any) -> Any:
        if isinstance(node, BindParameter):
            return node
        if _is_of(element, node):
            return target.c[node.key]
        # SQLAlchemy makes functions FROM clauses, too, whose == is SQL.
        is_from = isinstance(node, FromClause) and not isinstance(node, ColumnElement)
        return target if is_from and node == element else None

    condition = _compat.replaceable(condition)
    moved: Any = replacement_traverse(condition, {}, replace)  # type: ignore[call-overload]
    return moved
