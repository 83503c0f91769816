"""What is certain of a table's rows wherever a statement uses them: the filters of each occurrence.

A filter of an occurrence is a condition on its own columns that every row must meet to have any
part in the answer: a conjunct of WHERE, where no outer join fills the occurrence with NULLs, or of
ON, where a row that does not meet it joins nothing; of an OR, what each of its alternatives says.
Rows that fail it can be left where they are.

Conditions that name other occurrences too are certain in the same way; `partners` reads them.

Fails closed: an occurrence that is not found here has no filters, so the caller compares the
number of occurrences with what the compiler rendered.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
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
from sqlalchemy_shards.routing.nested import stems_from_rows
from sqlalchemy_shards.routing.reading import ungrouped
from sqlalchemy_shards.routing.row_wise import why_not_row_wise
from sqlalchemy_shards.routing.scopes import leaves, unlabelled

from .elsewhere import TIMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.sql.selectable import FromClause


@dataclass(slots=True, eq=False)
class Level:
    """One SELECT of the statement: what its expressions can name, and what is certain of it.

    :param select: it is held, since its id is its name.
    :param parent: the SELECT around it, whose FROM elements its expressions can name as well.
    :param all_levels: every level of the statement, by the id of the SELECT.
    :param names: FROM element -> the occurrence or the SELECT that it is; None: neither.
    :param columns: what it selects.
    :param certain: what every combination of rows of its FROM list meets that its rows are made of.
    :param stems_from_rows: it gives no row but of such combinations.
    """

    select: Select[Any]
    parent: Level | None
    all_levels: Mapping[int, Level]
    names: dict[FromClause, Occurrence | Level | None] = field(default_factory=dict)
    columns: Sequence[Any] = ()
    certain: list[Any] = field(default_factory=list)
    stems_from_rows: bool = False


@dataclass(slots=True, eq=False)
class Occurrence:
    """One place of a table in a FROM list.

    :param element: the table itself, or an alias of it.
    :param level: the SELECT whose FROM list it stands in.
    :param certain: what its rows must meet to have any part in the answer, all of it.
    :param filters: those of these conditions that name its own columns only.
    """

    table: Table
    element: FromClause
    level: Level
    certain: Sequence[Any]
    filters: tuple[Any, ...]


def occurrences_of(statement: Any) -> Mapping[Table, Sequence[Occurrence]]:
    """Find the tables of a SELECT or set operation, with the filters of each occurrence."""
    walk = _Walk()
    walk.query(statement, None, frozenset(), frozenset(), is_from=False)
    return walk.found


class _Walk:
    def __init__(self) -> None:
        self.found: defaultdict[Table, list[Occurrence]] = defaultdict(list)
        self._levels: dict[int, Level] = {}

    def query(
        self,
        query: Any,
        parent: Level | None,
        enclosing: frozenset[FromClause],
        directly_enclosing: frozenset[FromClause],
        *,
        is_from: bool,
    ) -> Level | None:
        """Look into a SELECT or set operation; return what is known of a SELECT."""
        while isinstance(query, SelectStatementGrouping):
            query = query.element
        if isinstance(query, CompoundSelect):
            for member in query.selects:
                self.query(member, parent, enclosing, directly_enclosing, is_from=is_from)
            return None
        if not isinstance(query, Select):
            return None
        if id(query) in self._levels:
            return self._levels[id(query)]  # as in a recursive CTE, or what ORDER BY repeats
        level = self._levels[id(query)] = Level(query, parent, self._levels)
        seen = _compat.final_select(
            query, is_from=is_from, enclosing=enclosing, directly_enclosing=directly_enclosing
        )
        final, shape = seen.select, _compat.select_shape(seen.select)
        level.columns = [unlabelled(each) for each in final.selected_columns]
        level.stems_from_rows = stems_from_rows(level.columns, shape)
        direct = frozenset(leaf for each in seen.froms for leaf in leaves(each))
        where = list(conjuncts(final.whereclause))
        level.certain += where
        within = _Within(level, enclosing | direct, direct)
        for element in seen.froms:
            self._from(element, where, within, is_kept=True)
        for expression in final.get_children():
            self._expression(expression, within)
        for cte in shape.independent_ctes:
            self._from(cte, [], within, is_kept=False)
        return level

    def _from(self, element: Any, certain: list[Any], within: _Within, *, is_kept: bool) -> None:
        """Look into a FROM element, of whose rows the conditions ``certain`` must hold.

        :param is_kept: no outer join fills it with NULLs.
        """
        while isinstance(element, FromGrouping):
            element = element.element
        if isinstance(element, Join):
            self._join(element, certain, within, is_kept=is_kept)
            return
        names, level = within.level.names, within.level
        inner = element
        while isinstance(inner, (Alias, Subquery)):
            inner = inner.element
        if isinstance(inner, Table):
            own = (_implied(element, each) for each in certain)
            filters = tuple(each for each in own if each is not None)
            names[element] = occurrence = Occurrence(inner, element, level, certain, filters)
            self.found[inner].append(occurrence)
        elif isinstance(inner, CTE):
            nothing: frozenset[FromClause] = frozenset()
            inside = self.query(inner.element, None, nothing, nothing, is_from=True)
            # What is named inside of a recursive CTE looks like its first SELECT alone, but also
            # shows the rows of every step.
            names[element] = None if inner.recursive else inside
        elif isinstance(inner, Lateral):
            while isinstance(inner, (Lateral, Subquery)):
                inner = inner.element
            names[element] = self.query(
                inner, level, within.enclosing, within.direct, is_from=False
            )
        elif isinstance(inner, SelectBase):
            names[element] = self.query(inner, level, within.enclosing, within.direct, is_from=True)
        else:
            names[element] = None
            self._expression(inner, within)

    def _join(self, join: Join, certain: list[Any], within: _Within, *, is_kept: bool) -> None:
        on = list(conjuncts(join.onclause))
        self._expression(join.onclause, within)
        is_inner = not (join.isouter or join.full)
        if is_inner and is_kept:
            within.level.certain += on
        left = [*certain, *on] if is_inner else [] if join.full else certain
        right = [*certain, *on] if is_inner else [] if join.full else on
        self._from(join.left, left, within, is_kept=is_kept and not join.full)
        self._from(join.right, right, within, is_kept=is_kept and is_inner)

    def _expression(self, expression: Any, within: _Within) -> None:
        """Look for SELECTs inside an expression; FROM elements are looked into elsewhere."""
        for query in _queries_in(expression):
            self.query(query, within.level, within.enclosing, within.direct, is_from=False)


class _Within(NamedTuple):
    """Where the walk is.

    :param enclosing: what a SELECT inside can correlate to when it is told to.
    :param direct: what it correlates to by itself.
    """

    level: Level
    enclosing: frozenset[FromClause]
    direct: frozenset[FromClause]


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
