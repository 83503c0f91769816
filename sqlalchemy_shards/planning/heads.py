"""The head of a grouped SELECT: what is left to do over the groups that the shards ship.

SQL before:  SELECT kind, avg(price) FROM items WHERE price > 1 GROUP BY kind ORDER BY count(*)
per shard:   SELECT kind AS key_0, sum(price) AS sum_1, count(price) AS count_2, count(*) AS count_3
             FROM items WHERE price > 1 GROUP BY kind
head:        SELECT key_0, sum(sum_1) / nullif(sum(count_2), 0) FROM shards_groups
             GROUP BY key_0 ORDER BY coalesce(sum(count_3), 0)

A group of one shard may be met by one of another shard, so the head groups once more. Whatever is
neither an expression of GROUP BY nor an aggregate that can be split is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import column, table
from sqlalchemy.sql.elements import (
    BindParameter,
    ClauseList,
    ColumnClause,
    ColumnElement,
    FunctionFilter,
    Grouping,
    Label,
    Null,
    Over,
    Tuple,
    UnaryExpression,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import distinct_op
from sqlalchemy.sql.selectable import ScalarSelect, SelectBase
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from sqlalchemy_shards.routing.calls import function_of, is_distinct, name_of
from sqlalchemy_shards.routing.row_wise import TRANSPARENT
from sqlalchemy_shards.routing.scopes import table_below

from .splitting import NotSplittable, is_split, pieces, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Set

    from sqlalchemy_shards.catalog.columns import ColumnType

RELATION: Final = "shards_groups"
"""How the names of what is shipped begin."""

SETS: Final = frozenset("cube grouping_sets rollup".split())
"""What makes several groupings of one GROUP BY."""

_FRAMES: Final = frozenset({"frame_clause"})


class Shipped(NamedTuple):
    """A column of the relation that is shipped.

    :param value: the SQL that gives it on a shard.
    :param shown: the column, as the head names it.
    """

    value: Any
    shown: ColumnClause[Any]


class Head:
    """Rewrites the expressions of a grouped SELECT, and takes note of what they need.

    :param spelled: writes an expression for comparison.
    :param meanings: what names in ORDER BY and GROUP BY stand for.
    :param scalar: names of functions that are no aggregates and give no sets.
    :param name: that of the relation that is shipped.
    :param stands_alone: whether a subquery names nothing of the SELECTs around it.
    :param types: those of the columns that are shipped, by name; None: not known yet.
    """

    def __init__(
        self,
        spelled: Callable[[Any], str],
        meanings: Mapping[str, Any],
        scalar: Set[str],
        *,
        name: str,
        stands_alone: Callable[[Any], bool],
        types: Mapping[str, ColumnType] | None = None,
    ) -> None:
        self.relation = table(name)
        self.keys: dict[str, Shipped] = {}
        """What the head groups by, by its spelling."""
        self.dependent: dict[str, Shipped] = {}
        """Columns that follow from a primary key among these."""
        self.finer: dict[str, Shipped] = {}
        """What the shards group by besides, as an aggregate is over its distinct values."""
        self.pieces: dict[str, Shipped] = {}
        """What the shards compute of aggregates."""
        self.has_sets = False
        self._spelled = spelled
        self._meanings = meanings
        self._scalar = scalar
        self._stands_alone = stands_alone
        self._types = types
        self._windowed: set[int] = set()

    @property
    def shipped(self) -> list[Shipped]:
        """All columns that are shipped, in their order."""
        kinds = (self.keys, self.dependent, self.finer, self.pieces)
        return [each for kind in kinds for each in kind.values()]

    @property
    def grouped(self) -> list[Shipped]:
        """Those by which the shards group."""
        return [*self.keys.values(), *self.dependent.values(), *self.finer.values()]

    def group_by(self, clauses: Iterable[Any]) -> None:
        """Take note of the expressions of GROUP BY."""
        for clause in clauses:
            for expression in self._base_expressions(clause):
                self.key(expression)

    def key(self, expression: Any) -> None:
        """Take note of one expression that the head may show as it is."""
        if has_columns(expression):
            self._ship(self.keys, "key", expression)

    def of(self, expression: Any) -> Any:
        """The expression over what is shipped.

        :raises NotSplittable: there is none.
        """
        for node in iterate(expression):
            if isinstance(node, Over):
                self._windowed.update((id(node.element), id(function_of(node.element))))
        rewritten: Any = replacement_traverse(expression, {}, self._replace)  # type: ignore[call-overload]
        return rewritten

    def _base_expressions(self, clause: Any) -> Iterable[Any]:
        """The expressions of an element of GROUP BY."""
        meant = self.meant(clause)
        if isinstance(meant, FunctionElement) and name_of(meant) in SETS:
            self.has_sets = True
            for each in meant.clauses:
                yield from self._base_expressions(each)
        elif isinstance(meant, (ClauseList, Tuple)):
            for each in meant.clauses:
                yield from self._base_expressions(each)
        else:
            yield meant

    def meant(self, expression: Any) -> Any:
        """The expression without what only names it.

        :raises NotSplittable: it is the number of a column, or not known.
        """
        while True:
            kind = expression.__visit_name__
            if isinstance(expression, (Grouping, Label)) or kind == "label_reference":
                expression = expression.element
            elif kind == "textual_label_reference":
                expression = self._meanings.get(expression.element)
                if expression is None:
                    raise NotSplittable("a name in GROUP BY or ORDER BY is not known")
            else:
                return expression

    def _ship(self, kind: dict[str, Shipped], name: str, expression: Any) -> Any:
        text = self._spelled(expression)
        known = kind.get(text)
        if known is None:
            shown: Any = column(f"{name}_{len(self.shipped)}", expression.type)
            self.relation.append_column(shown)
            known = kind[text] = Shipped(expression, shown)
        return known.shown

    # -- what stands for what --

    def _replace(self, node: Any, **_: Any) -> Any:
        """What stands in the place of a part of an expression; None: look into it."""
        if isinstance(node, BindParameter):
            return node
        if node.__visit_name__ in ("label_reference", "textual_label_reference", "label"):
            return self._named(node)
        key = self._key_of(node)
        if key is not None:
            return key
        if id(node) in self._windowed:
            return None
        if isinstance(node, (FunctionFilter, FunctionElement)):
            return self._call(node)
        if isinstance(node, ColumnClause):
            return self._column(node)
        if isinstance(node, (ScalarSelect, SelectBase)):
            if self._stands_alone(node):
                return node  # it is the same for each group
            raise NotSplittable("a subquery beside groups looks at each of them")
        if getattr(node, "operator", None) is distinct_op:
            raise NotSplittable("DISTINCT stands beside groups of several shards")
        if not isinstance(node, (*TRANSPARENT, Over)) and node.__visit_name__ not in _FRAMES:
            raise NotSplittable(f"a {type(node).__name__} stands beside groups of several shards")
        return None

    def _named(self, node: Any) -> Any:
        inner = node
        while inner.__visit_name__ in ("label_reference", "textual_label_reference", "label"):
            if inner.__visit_name__ == "textual_label_reference":
                inner = self.meant(inner)
            else:
                inner = inner.element
        return self.of(inner)

    def _key_of(self, node: Any) -> Any:
        if not self.keys or not _is_value(node):
            return None
        known = self.keys.get(self._spelled(node))
        return None if known is None else known.shown

    def _column(self, node: ColumnClause[Any]) -> Any:
        if node.is_literal:
            return None
        text = self._spelled(node)
        if text in self.dependent:
            return self.dependent[text].shown
        if node.table is None or self.has_sets or not self._depends_on_keys(node):
            raise NotSplittable(f"{node.name!r} is neither grouped by nor within an aggregate")
        return self._ship(self.dependent, "key", node)

    def _depends_on_keys(self, node: ColumnClause[Any]) -> bool:
        """Whether the whole primary key of a column's table is grouped by."""
        element: Any = node.table
        owner = table_below(element)
        if owner is None or not len(owner.primary_key):
            return False
        return all(self._spelled(element.c[each.key]) in self.keys for each in owner.primary_key)

    def _call(self, node: Any) -> Any:
        function = function_of(node)
        name = name_of(function)
        if not isinstance(function, FunctionElement):
            raise NotSplittable("an ordered-set aggregate needs all rows")
        if name in SETS or name == "grouping":
            return None
        if is_split(node):
            return self._split(node)
        if is_distinct(function):
            return self._over_distinct(node)
        if isinstance(node, FunctionFilter) or name not in self._scalar:
            raise NotSplittable(f"{name}() of several shards cannot be put together from parts")
        return None

    def _split(self, node: Any) -> Any:
        columns = [self._ship(self.pieces, name, part) for name, part in pieces(node)]
        types = None if self._types is None else [self._types[each.name] for each in columns]
        return together(node, columns, types)

    def _over_distinct(self, node: Any) -> Any:
        """The aggregate as it is, over the values that the shards group by."""
        function = function_of(node)
        taken: dict[str, Any] = {}
        values = [each for clause in function.clauses for each in values_in(clause)]
        if isinstance(node, FunctionFilter):
            values.append(node.criterion)
        for value in filter(has_columns, values):
            text = self._spelled(value)
            known = self.keys.get(text) or self.dependent.get(text)
            taken[text] = self._ship(self.finer, "key", value) if known is None else known.shown

        def replace(part: Any, **_: Any) -> Any:
            if isinstance(part, BindParameter):
                return part
            return taken.get(self._spelled(part)) if _is_value(part) else None

        rewritten: Any = replacement_traverse(node, {}, replace)  # type: ignore[call-overload]
        return rewritten


def _is_value(node: Any) -> bool:
    """Whether a node is an expression by itself, and no other one in parentheses."""
    if not isinstance(node, ColumnElement) or isinstance(node, (Grouping, Tuple, Null)):
        return False
    return getattr(node, "operator", None) is not distinct_op


def has_columns(expression: Any) -> bool:
    """Whether an expression depends on rows."""
    return any(
        isinstance(node, ColumnClause) and not node.is_literal for node in iterate(expression)
    )


def has_aggregate(expression: Any) -> bool:
    """Whether there is an aggregate in an expression that is split, or over distinct values."""
    nodes = list(iterate(expression))
    windowed = {id(function_of(node.element)) for node in nodes if isinstance(node, Over)}
    return any(
        isinstance(node, FunctionElement)
        and id(node) not in windowed
        and (is_split(node) or is_distinct(node))
        for node in nodes
    )


def values_in(argument: Any) -> list[Any]:
    """The values that an argument of an aggregate holds, without DISTINCT."""
    while isinstance(argument, Grouping) or (
        isinstance(argument, UnaryExpression) and argument.operator is distinct_op
    ):
        argument = argument.element
    if isinstance(argument, Tuple):
        return [each for clause in argument.clauses for each in values_in(clause)]
    return [argument]
