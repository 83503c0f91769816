"""A grouped SELECT -> what each shard makes of its own rows, and what is made of that.

The *body* of the statement, FROM, WHERE and GROUP BY, runs on each shard. Its groups are shipped as
one relation to the workspace, which runs the *head* over them (`heads`): HAVING, windows, grouping
sets, DISTINCT, ORDER BY and LIMIT, as PostgreSQL does them.

Fails closed: the body must add up, as it must for a scatter; every expression of it must be the
same on every shard; and before the plan is used, PostgreSQL is shown the head over an empty
relation: if it does not take it, or would return other types, the plan is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import select
from sqlalchemy.sql.elements import CollationClause, FunctionFilter
from sqlalchemy.sql.selectable import CTE, Select
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.catalog.expressions import Relation
from sqlalchemy_shards.catalog.functions import DRAWN
from sqlalchemy_shards.plan import ShippedRows
from sqlalchemy_shards.routing.calls import function_of
from sqlalchemy_shards.routing.row_wise import ROW_WISE_FUNCTIONS, why_not_row_wise
from sqlalchemy_shards.routing.scopes import on_conditions

from .derived import Derived, NotRewritable, check_compiled_alike
from .elsewhere import NOW, TIMES, at_workspace
from .gathering import check_statement
from .heads import RELATION, Head, has_aggregate, values_in
from .names import SYSTEM_COLUMNS, check_functions, columns_at_hand
from .parts import Gathering, Part
from .refusal import Refusal
from .spelling import speller
from .splitting import SPLIT, NotSplittable
from .wire import is_shippable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Table

    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.routing.sources import StatementSources


ON_SHARD: Final = "shards_grouped"
"""The name that a shard's groups have there."""


class Facts(Protocol):
    """What only the shards' catalogs know, and PostgreSQL about one execution of a statement."""

    def columns_of(self, table: Table) -> Mapping[str, ColumnType]:
        """The columns of a table, as all shards have them."""

    def depending(self, names: Iterable[str]) -> Sequence[str]:
        """Those of the functions that depend on when or where they run."""

    def scalar(self, names: Iterable[str]) -> Collection[str]:
        """Those of the functions that are no aggregates, and give no sets."""

    def builtin(self, names: Iterable[str]) -> Collection[str]:
        """Those of the functions that have no namesakes besides PostgreSQL's own."""

    def types_of(
        self, statement: Derived, over: Sequence[Relation], width: int
    ) -> list[ColumnType | None]:
        """The types of a statement's columns; None: one without a name, or not certain.

        :raises NotSplittable: PostgreSQL does not take the statement.
        """

    def returned(self, statement: Derived, over: Sequence[Relation]) -> Sequence[int]:
        """What the driver would be told of the types that a statement returns.

        :raises NotSplittable: PostgreSQL does not take the statement.
        """


def plan_partial(compiled: Any, sources: StatementSources, facts: Facts) -> Gathering:
    """Plan how the workspace answers a grouped SELECT from the shards' groups.

    :param compiled: a `ShardsCompiler`, which knows what it has rendered.
    :raises NotSplittable: it could not answer exactly.
    """
    statement: Any = _compat.core_statement(compiled)
    shape = _checked_shape(statement, sources)
    names = compiled.rendered_functions
    if not (shape.group_by or shape.having or shape.distinct or names & SPLIT):
        raise NotSplittable("it has no groups")
    try:
        check_statement(statement, compiled)
        _check_written(statement, compiled)
        check_functions(names, facts.depending)
        check_compiled_alike(statement, compiled)
        return _Plan(compiled, statement, shape, facts).gathering()
    except (NotRewritable, Refusal) as reason:
        raise NotSplittable(str(reason)) from None


def _check_written(statement: Any, compiled: Any) -> None:
    """Refuse what was not written by SQLAlchemy, and rows that are used whole."""
    if compiled.raw_texts or compiled.whole_rows or compiled.bare_names & SYSTEM_COLUMNS:
        raise NotSplittable("it holds raw SQL text, whole rows or system columns")
    if any(map(_compat.compiles_itself, iterate(statement))):
        raise NotSplittable("it holds an SQL construct of the application's own")


def _checked_shape(statement: Any, sources: StatementSources) -> _compat.SelectShape:
    """The clauses of a statement whose body adds up.

    :raises NotSplittable: it does not.
    """
    reason = sources.unreadable or sources.obstacle
    if reason is not None:
        raise NotSplittable(reason)
    if not isinstance(statement, Select):
        raise NotSplittable("it is a set operation")
    shape = _compat.select_shape(statement)
    if shape.extended or shape.embellished or shape.independent_ctes or shape.distinct_on:
        raise NotSplittable("it has clauses that are not looked into")
    return shape


class _Plan:
    """One statement on its way to a plan."""

    def __init__(
        self, compiled: Any, statement: Any, shape: _compat.SelectShape, facts: Facts
    ) -> None:
        self.compiled = compiled
        self.statement = statement
        self.shape = shape
        self.facts = facts
        self.dialect = at_workspace(compiled.dialect)
        self.spelled = speller(compiled)
        names = compiled.rendered_functions
        # Names that are also those of other functions say nothing.
        self.scalar = ROW_WISE_FUNCTIONS | TIMES | frozenset(facts.scalar(names))
        sums = names & {"avg", "sum"}
        if sums - frozenset(facts.builtin(sums)):
            raise NotSplittable("not only PostgreSQL's own aggregates have these names")

    def gathering(self) -> Gathering:
        """The plan.

        :raises NotSplittable: there is none.
        """
        self._check_names_in_group_by()
        head, _ = self._head(None)
        rows = self._rows(head)
        tables = self._tables()
        types = self._types(head, rows, tables)
        head, statement = self._head(types)
        part = Part(
            name=RELATION,
            origin=", ".join(table.fullname for table in self.compiled.rendered_tables),
            columns=tuple(types),
            types=tuple(types.values()),
            # A cast of a grouped expression may be another expression to PostgreSQL.
            rows=select(rows.subquery(ON_SHARD)),
            kind=self._kind(head),
            follows_search_path=any(not each.schema for each in self.compiled.rendered_tables),
        )
        rewritten = self._derived(statement)
        self._check_returned(head, rewritten, part, tables)
        return Gathering(
            self.compiled, (part,), needs_tables=False, rewritten=rewritten, is_partial=True
        )

    def _kind(self, head: Head) -> ShippedRows:
        if not head.grouped:
            return ShippedRows.TOTALS
        return ShippedRows.GROUPS if head.pieces or self.shape.group_by else ShippedRows.DISTINCT

    # -- head and body --

    def _head(self, types: Mapping[str, ColumnType] | None) -> tuple[Head, Any]:
        """The head: what it needs, and its SELECT."""
        head = Head(self.spelled, _compat.label_meanings(self.compiled), self.scalar, types)
        head.group_by(self.shape.group_by)
        columns = _compat.column_list(self.statement)
        is_grouped = bool(self.shape.group_by or self.shape.having)
        is_grouped = is_grouped or any(map(has_aggregate, columns))
        if self.shape.distinct and not is_grouped:
            for each in columns:
                head.key(head.meant(each))
        shown = [
            head.of(head.meant(each)).label(f"c{number}") for number, each in enumerate(columns)
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
        shape = self.shape
        if shape.distinct:
            statement = statement.distinct()
        if shape.limit is not None:
            statement = statement.limit(shape.limit)
        if shape.fetch is not None:
            statement = _compat.with_fetch_of(statement, self.statement)
        if shape.offset is not None:
            statement = statement.offset(shape.offset)
        return _compat.without_orm(statement)

    def _rows(self, head: Head) -> Any:
        """The statement of each shard; its columns are those that the head is shown."""
        statement = self.statement
        froms = _compat.from_list(statement)
        if not head.shipped:
            raise NotSplittable("it has no groups")
        where = [] if statement.whereclause is None else [statement.whereclause]
        self._check_row_wise([*where, *on_conditions(froms), *_inside(head)])
        rows = select(*(each.value.label(each.shown.name) for each in head.shipped))
        rows = rows.select_from(*froms).where(*where)
        if head.grouped:
            rows = rows.group_by(*(each.value for each in head.grouped))
        return _compat.without_orm(rows)

    def _check_row_wise(self, expressions: Sequence[Any]) -> None:
        names = self.compiled.rendered_functions
        if names & DRAWN:
            raise NotSplittable("it draws values for its rows")
        # A function of the application's may read a table, of which a shard has a part.
        known = ROW_WISE_FUNCTIONS | TIMES | frozenset(self.facts.builtin(self.scalar & names))
        reason = why_not_row_wise(expressions, further=known)
        if reason is not None:
            raise NotSplittable(reason)

    def _check_names_in_group_by(self) -> None:
        """A bare name in GROUP BY is a column of the tables before it is one of the answer."""
        names = {
            clause.element
            for clause in self.shape.group_by
            if clause.__visit_name__ == "textual_label_reference"
        }
        if names and names & columns_at_hand(self.statement, self.compiled, self.facts.columns_of):
            raise NotSplittable("a name in GROUP BY is also that of a column of a table")

    # -- what PostgreSQL is asked --

    def _tables(self) -> list[Relation]:
        """The tables of the statement, as relations without rows."""
        quote = self.compiled.preparer.quote
        tables = list(self.compiled.rendered_tables)
        names = {table.name for table in tables}
        if len(names) < len(tables):
            raise NotSplittable("it names two tables that differ in their schema only")
        if any(isinstance(node, CTE) and node.name in names for node in iterate(self.statement)):
            raise NotSplittable("it has a CTE with the name of a table")
        found = []
        for table in tables:
            types = self.facts.columns_of(table)
            if not types:
                raise NotSplittable(f"the shards have no table {table.fullname}")
            columns = tuple(map(quote, types))
            found.append(Relation(quote(table.name), columns, tuple(types.values())))
        return found

    def _types(self, head: Head, rows: Any, tables: Sequence[Relation]) -> dict[str, ColumnType]:
        """The types of the columns that are shipped, by name."""
        found = {}
        asked = self.facts.types_of(self._derived(rows), tables, len(head.shipped))
        for shipped, type_ in zip(head.shipped, asked, strict=True):
            if type_ is None or not is_shippable(type_):
                raise NotSplittable("what its groups hold cannot be shipped")
            if type_.database is not None and _names_collation(shipped.value):
                # As a column's own it gives way to others, which it does not where it is named.
                raise NotSplittable("COLLATE names the collation of the database")
            found[shipped.shown.name] = type_
        return found

    def _check_returned(
        self, head: Head, rewritten: Derived, part: Part, tables: Sequence[Relation]
    ) -> None:
        """The head is taken, and returns what the statement would."""
        dependent = [each.value for each in head.dependent.values()]
        whole = _compat.without_orm(self.statement.group_by(*dependent))
        shown = Relation(part.name, part.columns, part.types)
        if self.facts.returned(rewritten, [shown]) != self.facts.returned(
            self._derived(whole), tables
        ):
            raise NotSplittable("over groups it would return values of other types")

    def _derived(self, statement: Any) -> Derived:
        return Derived(statement.compile(dialect=self.dialect), self.compiled.bind_names, [NOW])


def _inside(head: Head) -> list[Any]:
    """What must be the same on every shard: keys, and what aggregates are over."""
    found = [each.value for each in head.grouped]
    for piece in head.pieces.values():
        found += [value for each in function_of(piece.value).clauses for value in values_in(each)]
        if isinstance(piece.value, FunctionFilter):
            found.append(piece.value.criterion)
    return found


def _names_collation(expression: Any) -> bool:
    return any(isinstance(node, CollationClause) for node in iterate(expression))
