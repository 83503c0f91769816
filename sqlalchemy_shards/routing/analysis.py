"""A compiled statement -> `StatementSources`: its tables, and what decides where it must run.

The statement is walked scope by scope. Every occurrence of a sharded table becomes a *source* with
the conditions that WHERE and ON put on its shard key. An *edge* a -> b says: rows of b matter only
where their whole shard key equals that of some row of a that matters; so b needs no look-up of its
own, and lies beside a. Edges run both ways through inner joins and WHERE, from the preserved to
the NULL-filled side of an outer join, and from outside into a correlated subquery.

Fails closed: the tables that were found must be those that the compiler rendered, else the
statement is *unreadable*.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Table
from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase
from sqlalchemy.sql.elements import BindParameter, ColumnClause, TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import (
    CTE,
    Alias,
    AliasedReturnsRows,
    CompoundSelect,
    FromClause,
    FromGrouping,
    Join,
    Lateral,
    Select,
    SelectBase,
    SelectStatementGrouping,
    Subquery,
    TableSample,
    TableValuedAlias,
)

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.checks import undeclared_error
from sqlalchemy_shards.models.distribution import Global, Reference, Sharded, distribution_of
from sqlalchemy_shards.models.key_types import KeyType, family_of, key_type_of

from .inserts import inserted_key
from .nested import is_plain, is_row_by_row, why_not_alike
from .predicates import Reading, condition_on, equalities_with_parameters, key_equalities
from .raw_text import CONSTANT_TEXT, why_operator_unreadable, why_unreadable
from .roots import choose_roots
from .row_wise import why_not_row_wise
from .scopes import Derived, Occurrence, Scope, leaves, unlabelled
from .sources import StatementKind, StatementSources
from .targets import locks_copies, other_tables, plain_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler

    from .conditions import Parameter

CATALOG_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})


def analyse(
    compiled: SQLCompiler,
    dialect: Dialect,
    *,
    undeclared_is_global: bool,
    rendered: Mapping[FromClause, int],
) -> StatementSources:
    """Find the sources of a compiled statement.

    :param undeclared_is_global: tables that say nothing are global; else they are refused.
    :param rendered: FROM element -> how often the compiler rendered it, for tables.
    :raises ConfigurationError: a table says nothing, and that is not allowed.
    """
    statement = _compat.core_statement(compiled)
    walk = _Walk(compiled.bind_names, dialect, undeclared_is_global)
    if isinstance(statement, UpdateBase):
        return walk.modification(statement, compiled, rendered)
    if isinstance(statement, SelectBase):
        walk.query(statement, None, is_from=False)
        return walk.result(StatementKind.SELECT, rendered)
    walk.unreadable = f"a {type(statement).__name__} cannot be looked into"
    return walk.result(StatementKind.OTHER, rendered)


class _Walk:
    """The state of one walk over a statement."""

    def __init__(
        self, bind_names: Mapping[Any, str], dialect: Dialect, undeclared_is_global: bool
    ) -> None:
        self.bind_names = bind_names
        self.dialect = dialect
        self.undeclared_is_global = undeclared_is_global
        self.occurrences: list[Occurrence] = []
        self.edges: set[tuple[int, int]] = set()
        self.primary_keys: dict[int, tuple[Parameter, ...]] = {}
        self.seen: Counter[FromClause] = Counter()
        self.seen_ctes: dict[int, Derived] = {}
        self.globals = 0
        self.references = 0
        self.obstacle: str | None = None
        self.unreadable: str | None = None
        self.is_plain = True
        self.locks_copies = False

    # -- queries --

    def query(self, query: Any, parent: Scope | None, *, is_from: bool, depth: int = 0) -> Derived:
        """Walk a SELECT or set operation; return what a FROM list sees of it."""
        while isinstance(query, SelectStatementGrouping):
            query = query.element
        first = len(self.occurrences)
        if isinstance(query, Select):
            return self._select(query, parent, is_from=is_from, depth=depth)
        if isinstance(query, CompoundSelect):
            for member in query.selects:
                self.query(member, parent, is_from=is_from, depth=depth + 1)
            self.hinder("UNION, INTERSECT and EXCEPT compare rows of all shards")
        elif isinstance(query, UpdateBase):
            self.unreadable = "it changes rows inside a CTE"
        else:
            self.unreadable = f"a {type(query).__name__} cannot be looked into"
        return Derived(sources=frozenset(range(first, len(self.occurrences))))

    def _select(
        self, select: Select[Any], parent: Scope | None, *, is_from: bool, depth: int
    ) -> Derived:
        scope = self._scope_within(parent)
        final, froms = _compat.final_select(
            select,
            is_from=is_from,
            enclosing=scope.enclosing,
            directly_enclosing=scope.directly_enclosing,
        )
        first = len(self.occurrences)
        scope.directly_enclosing = frozenset(leaf for each in froms for leaf in leaves(each))
        scope.enclosing |= scope.directly_enclosing
        obstacle, self.obstacle = self.obstacle, None
        for element in froms:
            self._from(element, scope, is_kept=depth == 0)
        shape = _compat.select_shape(final)
        columns = tuple(final.selected_columns)
        is_simple = (
            self.obstacle is None and is_row_by_row(shape) and why_not_row_wise(columns) is None
        )
        self.obstacle = obstacle or self.obstacle
        where = [*scope.conjuncts]
        if final.whereclause is not None:
            where.append(final.whereclause)
        self._restrict(where, scope, scope.own)
        for cte in shape.independent_ctes:
            self._cte(cte, scope)
        for expression in (*final.get_children(), *scope.conjuncts):
            self._expression(expression, scope)
        self.is_plain = self.is_plain and is_plain(final, shape)
        if parent is not None or depth > 0 or is_from:
            is_sharded = len(self.occurrences) > first
            self.hinder_if(why_not_alike(final, shape, is_sharded=is_sharded))
        if shape.embellished:
            self.unreadable = "it holds raw SQL text as prefix, suffix or hint"
        self.locks_copies = self.locks_copies or (shape.for_update and locks_copies(final))
        return Derived(
            tuple(scope.resolve(unlabelled(column), self.occurrences) for column in columns),
            frozenset(range(first, len(self.occurrences))),
            is_simple=is_simple,
        )

    def _scope_within(self, parent: Scope | None) -> Scope:
        if parent is None:
            return Scope()
        return Scope(
            parent, enclosing=parent.enclosing, directly_enclosing=parent.directly_enclosing
        )

    # -- FROM lists --

    def _from(self, element: Any, scope: Scope, *, is_kept: bool) -> set[int]:
        """Walk one FROM element; return the sources in it."""
        while isinstance(element, FromGrouping):
            element = element.element
        if isinstance(element, Join):
            return self._join(element, scope, is_kept=is_kept)
        if isinstance(element, Table):
            return self._table(element, element, scope, is_kept=is_kept)
        if isinstance(element, CTE):
            return self._named(element, self._cte(element, scope), scope)
        if isinstance(element, TableValuedAlias):
            self.is_plain = False
            self._expression(element.element, scope)
            self.hinder("a function in the FROM list would run on every shard")
            scope.names[element] = None
            return set()
        if isinstance(element, TableSample):
            self.hinder("TABLESAMPLE picks other rows on every shard")
        if isinstance(element, (Alias, Subquery, Lateral, TableSample)):
            return self._alias(element, scope, is_kept=is_kept)
        self.unreadable = f"the FROM list holds a {type(element).__name__}"
        return set()

    def _alias(self, element: AliasedReturnsRows, scope: Scope, *, is_kept: bool) -> set[int]:
        inner: Any = element.element
        while isinstance(inner, (Alias, Subquery)):
            inner = inner.element  # an alias of an alias or subquery
        if isinstance(inner, Table):
            return self._table(inner, element, scope, is_kept=is_kept)
        if isinstance(element, Lateral):
            self.hinder("LATERAL is not spread over shards")
        is_from = not isinstance(element, Lateral)
        # A subquery is as good as its table where it only filters and projects.
        depth = 0 if is_kept and is_from else 1
        return self._named(element, self.query(inner, scope, is_from=is_from, depth=depth), scope)

    def _named(self, element: FromClause, derived: Derived, scope: Scope) -> set[int]:
        scope.names[element] = derived.named(element)
        if not derived.is_simple and derived.sources:
            self.hinder("a subquery in the FROM list needs the rows of all shards first")
        if derived.is_simple:
            scope.own |= derived.sources
            return set(derived.sources)
        for source in derived.sources:
            self.occurrences[source].is_eligible_root = False
        return set(derived.sources)

    def _cte(self, cte: CTE, scope: Scope) -> Derived:
        known = self.seen_ctes.get(id(cte.element))
        if known is not None:
            return Derived()
        # Put down before the walk: a recursive CTE names itself.
        self.seen_ctes[id(cte.element)] = Derived()
        if isinstance(cte.element, CompoundSelect):
            for member in cte.element.selects:
                self.seen_ctes[id(member)] = self.seen_ctes[id(cte.element)]
        derived = self.query(cte.element, None, is_from=True, depth=1)
        places = () if cte.recursive else derived.places
        return Derived(places, derived.sources)

    def _join(self, join: Join, scope: Scope, *, is_kept: bool) -> set[int]:
        if join.full:
            self.hinder("FULL JOIN fills both sides with NULLs")
        reason = why_not_row_wise([join.onclause])
        self.hinder_if(reason)
        self.is_plain = self.is_plain and reason is None
        left = self._from(join.left, scope, is_kept=is_kept and not join.full)
        right = self._from(
            join.right, scope, is_kept=is_kept and not join.isouter and not join.full
        )
        if join.full:
            self._expression(join.onclause, scope)
        elif join.isouter:
            if right and not left:
                self.hinder("an outer join keeps rows that are on every shard")
            self._restrict([join.onclause], scope, right)
            self._expression(join.onclause, scope)
        elif is_kept:
            scope.conjuncts.append(join.onclause)
        else:
            self._restrict([join.onclause], scope, left | right)
            self._expression(join.onclause, scope)
        return left | right

    def _table(self, table: Table, element: FromClause, scope: Scope, *, is_kept: bool) -> set[int]:
        self.seen[table] += 1
        distribution = self._distribution(table)
        if isinstance(distribution, Sharded):
            index = self._occurrence(table, element, distribution, is_eligible_root=is_kept)
            scope.names[element] = index
            scope.own.add(index)
            return {index}
        scope.names[element] = None
        if isinstance(distribution, Reference):
            self.references += 1
        else:
            self.globals += 1
        return set()

    def _distribution(self, table: Table) -> Sharded | Reference | Global:
        distribution = distribution_of(table)
        if distribution is not None:
            return distribution
        if table.schema in CATALOG_SCHEMAS or self.undeclared_is_global:
            return Global()
        raise undeclared_error(table)

    def _occurrence(
        self, table: Table, element: FromClause, sharded: Sharded, *, is_eligible_root: bool
    ) -> int:
        name = table.fullname
        if element is not table and not isinstance(element, Table):
            alias = str(getattr(element, "name", "%("))
            # An anonymous alias gets its name only when it is rendered.
            name = f"an alias of {name}" if alias.startswith("%(") else f"{name} AS {alias}"
        self.occurrences.append(
            Occurrence(
                name,
                table,
                sharded,
                tuple(key_type.family for key_type in self._key_types(table, sharded)),
                is_eligible_root,
            )
        )
        return len(self.occurrences) - 1

    def _key_types(self, table: Table, sharded: Sharded) -> tuple[KeyType, ...]:
        key_types = []
        for key in sharded.key:
            key_type = key_type_of(table.c[key].type, self.dialect)
            if key_type is None:
                raise ConfigurationError(
                    f"shard-key column {table.fullname}.{key} has a type that cannot be a key",
                    "give it an integer, text, UUID, bytes, date, timestamp, numeric or boolean "
                    "type",
                )
            key_types.append(key_type)
        return tuple(key_types)

    # -- expressions --

    def _restrict(self, expressions: Sequence[Any], scope: Scope, own: Iterable[int]) -> None:
        """Take note of what expressions that must be true say about the sources ``own``."""
        reading = Reading(scope, self.occurrences, self.bind_names, self.dialect)
        own = set(own)
        for source in own:
            occurrence = self.occurrences[source]
            for expression in expressions:
                occurrence.conditions.append(condition_on(source, expression, reading))
            self._find_primary_key(source, expressions, reading)
        parts: dict[tuple[int, int], set[int]] = {}
        for expression in expressions:
            for left, right, part in key_equalities(expression, reading):
                for one, other in ((left, right), (right, left)):
                    if other.is_direct and other.source in own:
                        parts.setdefault((one.source, other.source), set()).add(part)
        for (one_source, other_source), equal in parts.items():
            if len(equal) == len(self.occurrences[other_source].families):
                self.edges.add((one_source, other_source))

    def _find_primary_key(self, source: int, expressions: Sequence[Any], reading: Reading) -> None:
        table = self.occurrences[source].table
        wanted = [column.key for column in table.primary_key.columns]
        found: dict[str, Parameter] = {}
        for expression in expressions:
            for column, bind in equalities_with_parameters(source, expression, reading):
                family = family_of(table.c[column].type, self.dialect)
                if family is not None and column in wanted:
                    parameter = reading.parameter(bind, family)
                    if parameter is not None:
                        found[column] = parameter
        if wanted and all(column in found for column in wanted):
            self.primary_keys[source] = tuple(found[column] for column in wanted)

    def _expression(self, expression: Any, scope: Scope) -> None:
        """Look for subqueries and raw text in an expression."""
        pending = [expression]
        while pending:
            node = pending.pop()
            self.unreadable = self.unreadable or why_operator_unreadable(node)
            if isinstance(node, SelectBase):
                self.query(node, scope, is_from=False, depth=1)
            elif isinstance(node, TextClause):
                self._text(node.text)
            elif isinstance(node, ColumnClause) and node.is_literal:
                self._text(str(node.name))
            elif isinstance(node, TableValuedAlias):
                self._expression(node.element, scope)
            elif isinstance(node, FunctionElement):  # SQLAlchemy makes them FROM clauses, too
                pending.extend(node.get_children())
            elif isinstance(node, (FromClause, BindParameter)) or node is None:
                continue  # FROM lists are walked apart
            else:
                pending.extend(node.get_children())

    def _text(self, text: str) -> None:
        self.unreadable = self.unreadable or why_unreadable(text)
        if not CONSTANT_TEXT.fullmatch(text):
            self.hinder("it holds raw SQL text")

    def hinder(self, reason: str) -> None:
        """Remember why the statement cannot run on several shards as it is."""
        self.obstacle = self.obstacle or reason

    def hinder_if(self, reason: str | None) -> None:
        """As `hinder`, if there is a reason."""
        if reason is not None:
            self.hinder(reason)

    # -- data modification --

    def modification(
        self, statement: UpdateBase, compiled: SQLCompiler, rendered: Mapping[FromClause, int]
    ) -> StatementSources:
        """Walk an INSERT, UPDATE or DELETE."""
        target: Any = statement.table
        scope = Scope()
        if isinstance(statement, Insert):
            return self._insert(statement, target, compiled, rendered)
        assert isinstance(statement, (Update, Delete))
        kind = StatementKind.UPDATE if isinstance(statement, Update) else StatementKind.DELETE
        self._from(target, scope, is_kept=True)
        values = _compat.dml_values(compiled) or {}
        where = [statement.whereclause] if statement.whereclause is not None else []
        others = other_tables([*where, *values.values()], target)
        for table in others:
            self._from(table, scope, is_kept=False)
        scope.directly_enclosing = scope.enclosing = frozenset(scope.names)
        self._restrict(where, scope, scope.own)
        if _compat.is_embellished(statement):
            self.unreadable = "it holds raw SQL text as prefix or hint"
        for expression in (*where, *values.values(), *_compat.returning(statement)):
            if hasattr(expression, "get_children"):
                self._expression(expression, scope)
        for cte in _compat.dml_ctes(statement):
            self._cte(cte, scope)
        table = plain_table(target)
        distribution = self._distribution(table)
        changed: set[str] = set()
        if others and isinstance(distribution, Reference) and isinstance(statement, Update):
            self.hinder("UPDATE ... FROM picks one of several rows that match, each copy its own")
        if isinstance(distribution, Sharded) and isinstance(statement, Update):
            named = set(values) | set(compiled.column_keys or ())
            changed = named.intersection(distribution.key)
        return self.result(kind, rendered, target=table, changed_key=tuple(sorted(changed)))

    def _insert(
        self,
        statement: Insert,
        table: Table,
        compiled: SQLCompiler,
        rendered: Mapping[FromClause, int],
    ) -> StatementSources:
        distribution = self._distribution(table)
        scope = Scope(names={table: None})
        if statement.select is not None:
            self.query(statement.select, None, is_from=True, depth=1)
            if self.occurrences or self.globals:
                self.hinder("INSERT ... SELECT would have to move rows between shards")
        clause = _compat.post_values_clause(statement)
        changed: tuple[str, ...] = ()
        if clause is not None:
            set_columns, expressions = _compat.on_conflict_parts(clause)
            if isinstance(distribution, Sharded):
                changed = tuple(sorted(set(set_columns).intersection(distribution.key)))
            for expression in expressions:
                self._expression(expression, scope)
        for expression in (*_compat.dml_expressions(compiled), *_compat.returning(statement)):
            self._expression(expression, scope)
        for cte in _compat.dml_ctes(statement):
            self._cte(cte, scope)
        self.seen[table] += 1
        if isinstance(distribution, Sharded):
            key = inserted_key(
                statement, compiled, table, distribution, self._key_types(table, distribution)
            )
            return self.result(
                StatementKind.INSERT, rendered, target=table, inserted=key, changed_key=changed
            )
        return self.result(StatementKind.INSERT, rendered, target=table)

    # -- the end --

    def result(
        self,
        kind: StatementKind,
        rendered: Mapping[FromClause, int],
        *,
        target: Table | None = None,
        changed_key: tuple[str, ...] = (),
        inserted: Any = None,
    ) -> StatementSources:
        """Put together what was found."""
        unreadable = self.unreadable
        if unreadable is None and self.seen != Counter(rendered):
            unreadable = "its SQL names other tables than were found in it"
        roots, obstacle = choose_roots(self.occurrences, self.edges, self.primary_keys)
        if self.occurrences and self.globals:
            obstacle = "it joins global and sharded tables"
        distribution = self._distribution(target) if target is not None else None
        return StatementSources(
            kind=kind,
            roots=roots,
            tables=tuple(occurrence.name for occurrence in self.occurrences),
            reads_global=bool(self.globals),
            reads_reference=bool(self.references),
            obstacle=self.obstacle or obstacle,
            unreadable=unreadable,
            locks_copies=self.locks_copies and self.references > 0,
            is_plain=self.is_plain and unreadable is None and kind is StatementKind.SELECT,
            inserted=inserted,
            target=target.fullname if target is not None else None,
            writes_reference=isinstance(distribution, Reference),
            writes_global=isinstance(distribution, Global),
            changed_key=changed_key,
        )
