"""What is certain of a table's rows wherever a statement uses them: the filters of each occurrence.

A filter of an occurrence is a condition on its own columns that every row must meet to have any
part in the answer: a conjunct of WHERE, where no outer join fills the occurrence with NULLs, or of
ON, where a row that does not meet it joins nothing; of an OR, what each of its alternatives says.
Rows that fail it can be left where they are.

Fails closed: an occurrence that is not found here has no filters, so the caller compares the
number of occurrences with what the compiler rendered.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Table, and_, or_
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BooleanClauseList, ColumnClause
from sqlalchemy.sql.selectable import (
    CTE,
    Alias,
    CompoundSelect,
    FromGrouping,
    Join,
    Lateral,
    Select,
    SelectBase,
    SelectStatementGrouping,
    Subquery,
)
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.routing.equalities import conjuncts
from sqlalchemy_shards.routing.reading import ungrouped
from sqlalchemy_shards.routing.row_wise import why_not_row_wise
from sqlalchemy_shards.routing.scopes import leaves

from .elsewhere import TIMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.sql.selectable import FromClause


class Occurrence(NamedTuple):
    """One place of a table in a FROM list.

    :param element: the table itself, or an alias of it.
    :param filters: what its rows must meet, all of them.
    """

    element: FromClause
    filters: tuple[Any, ...]


def occurrences_of(statement: Any) -> Mapping[Table, Sequence[Occurrence]]:
    """Find the tables of a SELECT or set operation, with the filters of each occurrence."""
    walk = _Walk()
    walk.query(statement, frozenset(), frozenset(), is_from=False)
    return walk.found


class _Walk:
    def __init__(self) -> None:
        self.found: defaultdict[Table, list[Occurrence]] = defaultdict(list)
        self._seen: set[int] = set()

    def query(
        self,
        query: Any,
        enclosing: frozenset[FromClause],
        directly_enclosing: frozenset[FromClause],
        *,
        is_from: bool,
    ) -> None:
        """Look into a SELECT or set operation."""
        while isinstance(query, SelectStatementGrouping):
            query = query.element
        if isinstance(query, CompoundSelect):
            for member in query.selects:
                self.query(member, enclosing, directly_enclosing, is_from=is_from)
        elif isinstance(query, Select):
            if id(query) in self._seen:
                return  # as a recursive CTE, or what ORDER BY repeats by its label
            self._seen.add(id(query))
            seen = _compat.final_select(
                query, is_from=is_from, enclosing=enclosing, directly_enclosing=directly_enclosing
            )
            final, froms = seen.select, seen.froms
            direct = frozenset(leaf for each in froms for leaf in leaves(each))
            where = list(conjuncts(final.whereclause))
            for element in froms:
                self._from(element, where, enclosing | direct, direct)
            for expression in final.get_children():
                self._expression(expression, enclosing | direct, direct)
            for cte in _compat.select_shape(final).independent_ctes:
                self._from(cte, [], enclosing | direct, direct)

    def _from(
        self,
        element: Any,
        certain: list[Any],
        enclosing: frozenset[FromClause],
        direct: frozenset[FromClause],
    ) -> None:
        """Look into a FROM element, of whose rows the conditions ``certain`` must hold."""
        while isinstance(element, FromGrouping):
            element = element.element
        if isinstance(element, Join):
            on = list(conjuncts(element.onclause))
            self._expression(element.onclause, enclosing, direct)
            is_inner = not (element.isouter or element.full)
            left = [*certain, *on] if is_inner else [] if element.full else certain
            right = [*certain, *on] if is_inner else [] if element.full else on
            self._from(element.left, left, enclosing, direct)
            self._from(element.right, right, enclosing, direct)
            return
        inner = element
        while isinstance(inner, (Alias, Subquery)):
            inner = inner.element
        if isinstance(inner, Table):
            own = (_implied(element, each) for each in certain)
            filters = tuple(each for each in own if each is not None)
            self.found[inner].append(Occurrence(element, filters))
        elif isinstance(inner, CTE):
            self.query(inner.element, frozenset(), frozenset(), is_from=True)
        elif isinstance(inner, Lateral):
            self.query(inner.element, enclosing, direct, is_from=False)
        elif isinstance(inner, SelectBase):
            self.query(inner, enclosing, direct, is_from=True)
        else:
            self._expression(inner, enclosing, direct)

    def _expression(
        self, expression: Any, enclosing: frozenset[FromClause], direct: frozenset[FromClause]
    ) -> None:
        """Look for SELECTs inside an expression; FROM elements are looked into elsewhere."""
        for query in _queries_in(expression):
            self.query(query, enclosing, direct, is_from=False)


def _queries_in(expression: Any) -> Iterator[Any]:
    if isinstance(expression, SelectBase) and not isinstance(expression, SelectStatementGrouping):
        yield expression
        return
    if getattr(expression, "is_selectable", False) and hasattr(expression, "c"):
        return  # a FROM element that a column or option names
    for child in expression.get_children() if expression is not None else ():
        yield from _queries_in(child)


def _implied(element: FromClause, condition: Any) -> Any:
    """What a condition, being true, says of one element's columns alone; None: nothing.

    As PostgreSQL does: of ``a.n = 1 AND b.n = 2 OR a.n = 3 AND b.n = 4`` a row of ``a`` must meet
    ``a.n = 1 OR a.n = 3``.
    """
    if _is_filter_of(element, condition):
        return condition
    condition = ungrouped(condition)
    if not isinstance(condition, BooleanClauseList):
        return None
    told = [_implied(element, clause) for clause in condition.clauses]
    known = [each for each in told if each is not None]
    if condition.operator is operators.and_:
        return and_(*known) if known else None
    return or_(*known) if condition.operator is operators.or_ and len(known) == len(told) else None


def _is_filter_of(element: FromClause, condition: Any) -> bool:
    """Whether a condition is about one element's columns, and gives the same wherever it runs."""
    names_it = False
    for node in iterate(condition):
        if isinstance(node, SelectBase):
            return False
        if isinstance(node, ColumnClause) and not node.is_literal:
            # By equality: the ORM annotates FROM elements, and not always the columns' tables.
            if node.table != element:
                return False
            names_it = True
    return names_it and why_not_row_wise([condition], further=TIMES) is None
