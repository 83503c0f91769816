"""What is certain of a table's rows wherever a statement uses them: the filters of each occurrence.

A filter of an occurrence is a condition on its own columns that every row must meet to have any
part in the answer: a conjunct of WHERE, where no outer join fills the occurrence with NULLs, or of
ON, where a row that does not meet it joins nothing; of an OR, what each of its alternatives says.
Rows that fail it can be left where they are.

A condition with a subquery is a filter where the shard of the row can answer it (`subqueries`).

Conditions that name other occurrences too are certain in the same way; `partners` reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, or_
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BooleanClauseList, ColumnClause
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards.routing.equalities import conjuncts
from sqlalchemy_shards.routing.reading import ungrouped
from sqlalchemy_shards.routing.row_wise import why_not_row_wise

from .elsewhere import TIMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.sql.selectable import FromClause

    from sqlalchemy_shards.routing.scopes import Occurrence

    from .subqueries import Subqueries


def certain_of(occurrence: Occurrence) -> Iterator[Any]:
    """What is certain of an occurrence's rows, one condition after another."""
    for expression in occurrence.certain:
        yield from conjuncts(expression)


def filters_of(occurrence: Occurrence, subqueries: Subqueries | None) -> list[Any]:
    """The filters of an occurrence.

    :param subqueries: tells of conditions with subqueries; None: these are no filters.
    """
    told = (_implied(occurrence.element, each, subqueries) for each in certain_of(occurrence))
    return [each for each in told if each is not None]


def _implied(element: FromClause, condition: Any, subqueries: Subqueries | None) -> Any:
    """What a condition, being true, says of one element's columns alone; None: nothing.

    As PostgreSQL does: of ``a.n = 1 AND b.n = 2 OR a.n = 3 AND b.n = 4`` a row of ``a`` must meet
    ``a.n = 1 OR a.n = 3``.
    """
    if _is_filter_of(element, condition, subqueries):
        return condition
    condition = ungrouped(condition)
    if not isinstance(condition, BooleanClauseList):
        return None
    told = [_implied(element, clause, subqueries) for clause in condition.clauses]
    known = [each for each in told if each is not None]
    if condition.operator is operators.and_:
        return and_(*known) if known else None
    return or_(*known) if condition.operator is operators.or_ and len(known) == len(told) else None


def _is_filter_of(element: FromClause, condition: Any, subqueries: Subqueries | None) -> bool:
    """Whether a condition is about one element's columns, and gives the same wherever it runs."""
    names_it = False
    for node in iterate(condition):
        if isinstance(node, SelectBase):
            return (
                subqueries is not None
                and why_not_row_wise([condition], further=TIMES) is None
                and subqueries.is_told(element, condition)
            )
        if isinstance(node, ColumnClause) and not node.is_literal:
            # By equality: the ORM annotates FROM elements, and not always the columns' tables.
            if node.table != element:
                return False
            names_it = True
    return names_it and why_not_row_wise([condition], further=TIMES) is None
