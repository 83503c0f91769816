"""The state of one walk over a statement, and the way from one part of it to another.

A walk is recursive through several modules (a query has a FROM list, which has queries, which have
expressions, which have queries), so each reaches the others through the `Walk` that it is given.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ClauseElement, Table
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards.models.checks import undeclared_error
from sqlalchemy_shards.models.distribution import (
    Global,
    Reference,
    Sharded,
    distribution_of,
    key_columns,
)
from sqlalchemy_shards.models.key_types import KeyType, key_type_of_column

from .expressions import walk_expression
from .from_lists import walk_cte, walk_from
from .queries import walk_query
from .reading import Surrounding
from .restrictions import restrict, restrict_by_outer_joins
from .roots import choose_roots, root_of_target
from .scopes import Derived, Occurrence, Scope, Source, Standing
from .sources import StatementKind, StatementSources, WrittenSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.selectable import CTE, FromClause

    from .conditions import Parameter
    from .sources import SetPart

CATALOG_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})


class Walk:
    """What was found so far."""

    def __init__(
        self,
        bind_names: Mapping[Any, str],
        dialect: Dialect,
        *,
        undeclared_is_global: bool,
        orders_by_code_point: Callable[[Any], bool],
        shares_ctes: bool,
    ) -> None:
        self.dialect = dialect
        self.undeclared_is_global = undeclared_is_global
        self.shares_ctes = shares_ctes
        self.occurrences: list[Occurrence] = []
        self.sources: list[Source] = []
        self.surrounding = Surrounding(self.sources, bind_names, dialect, orders_by_code_point)
        self.edges: set[tuple[int, int]] = set()
        self.unions: list[list[frozenset[int]]] = []
        """The sources of the members of each UNION ALL in a FROM list whose rows add up."""
        self.primary_keys: dict[int, tuple[Parameter, ...]] = {}
        self.seen: Counter[FromClause] = Counter()
        self.ctes: dict[int, tuple[Scope, ...]] = {}
        """id of what a CTE is made of -> the SELECTs of which each of its rows is one's."""
        self.open_ctes: set[int] = set()
        self.names_cte_again = False
        self.globals = 0
        self.references = 0
        self.obstacle: str | None = None
        self.unreadable: str | None = None
        self.is_plain = True
        self.is_select = False
        """What is walked is all of the statement."""
        self.is_key_by_key = False
        self.locks_copies = False

    # -- into the parts of a statement --

    def query(self, query: Any, parent: Scope | None, *, is_from: bool, depth: int = 0) -> Derived:
        """Walk a SELECT or set operation; return what a FROM list sees of it."""
        return walk_query(self, query, parent, is_from=is_from, depth=depth)

    def from_element(self, element: Any, scope: Scope, standing: Standing) -> set[int]:
        """Walk one FROM element; return the sources in it."""
        return walk_from(self, element, scope, standing)

    def cte(self, cte: CTE) -> Derived:
        """Walk a CTE that was added to a statement on its own, if no FROM list named it."""
        return walk_cte(self, cte, is_kept=False)

    def look_into(self, expression: Any, scope: Scope) -> None:
        """Look for subqueries and raw text in an expression."""
        walk_expression(self, expression, scope)

    def restrict(self, expressions: Sequence[Any], scope: Scope, own: Iterable[int]) -> None:
        """Take note of what expressions that must be true say about the sources ``own``."""
        restrict_by_outer_joins(self, scope, restrict(self, expressions, scope, own))

    # -- what is noted --

    def source(
        self, table: Table, element: FromClause, sharded: Sharded, *, is_eligible_root: bool
    ) -> Source:
        """Note one more occurrence of a sharded table."""
        name = table.fullname
        if element is not table and not isinstance(element, Table):
            alias = str(getattr(element, "name", "%("))
            # An anonymous alias gets its name only when it is rendered.
            name = f"an alias of {name}" if alias.startswith("%(") else f"{name} AS {alias}"
        families = tuple(key_type.family for key_type in self.key_types(table, sharded))
        source = Source(
            len(self.sources), name, table, sharded, families, is_eligible_root=is_eligible_root
        )
        self.sources.append(source)
        return source

    def distribution(self, table: Table) -> Sharded | Reference | Global:
        """How a table is spread. Raises `ConfigurationError` where nothing says so."""
        distribution = distribution_of(table)
        if distribution is not None:
            return distribution
        if table.schema in CATALOG_SCHEMAS or self.undeclared_is_global:
            return Global()
        raise undeclared_error(table)

    def key_types(self, table: Table, sharded: Sharded) -> tuple[KeyType, ...]:
        """The types of a table's shard key, part by part."""
        columns = key_columns(table, sharded)
        return tuple(key_type_of_column(column, self.dialect) for column in columns)

    def hinder(self, reason: str) -> None:
        """Remember why the statement cannot run on several shards as it is."""
        self.obstacle = self.obstacle or reason

    def hinder_if(self, reason: str | None) -> None:
        """As `hinder`, if there is a reason."""
        if reason is not None:
            self.hinder(reason)

    def result(
        self,
        kind: StatementKind,
        rendered: Mapping[FromClause, int],
        *,
        target: Table | None = None,
        changed_key: tuple[SetPart, ...] = (),
        inserted: Any = None,
    ) -> StatementSources:
        """Put together what was found."""
        unreadable = self.unreadable
        if unreadable is None and self.seen != Counter(rendered):
            unreadable = _why_default_is_unread(target, kind) or (
                "its SQL names other tables than were found in it"
            )
        roots, obstacle = choose_roots(self.sources, self.edges, self.primary_keys, self.unions)
        if self.sources and self.globals:
            obstacle = "it joins global and sharded tables"
        obstacle = self.obstacle or obstacle
        is_gathered = obstacle is not None and kind is StatementKind.SELECT
        distribution = self.distribution(target) if target is not None else None
        return StatementSources(
            kind=kind,
            roots=roots,
            tables=tuple(source.name for source in self.sources),
            reads_global=bool(self.globals),
            reads_reference=bool(self.references),
            obstacle=obstacle,
            unreadable=unreadable,
            locks_copies=self.locks_copies and self.references > 0,
            is_plain=self.is_plain and unreadable is None and kind is StatementKind.SELECT,
            is_key_by_key=self.is_key_by_key,
            inserted=inserted,
            target=target.fullname if target is not None else None,
            writes_reference=isinstance(distribution, Reference),
            writes_global=isinstance(distribution, Global),
            changed_key=changed_key,
            occurrences=tuple(self.occurrences) if is_gathered else (),
            written=self._written(distribution)
            if kind in (StatementKind.UPDATE, StatementKind.DELETE)
            else None,
        )

    def _written(self, target: Sharded | Reference | Global | None) -> WrittenSource | None:
        """What is written, and which tables need not be brought to its shards."""
        if target is None or isinstance(target, Reference):
            return None
        root, beside = None, set[int]()
        if isinstance(target, Sharded):
            root, beside = root_of_target(self.sources, self.edges, self.primary_keys)

        def stays(each: Occurrence) -> bool:
            if isinstance(each.distribution, Reference):
                return True
            if each.source is None:
                return root is None
            return each.source.index in beside

        come = {each.table for each in self.occurrences if not stays(each)}
        return WrittenSource(root, frozenset(each.table for each in self.occurrences) - come)


def _why_default_is_unread(target: Table | None, kind: StatementKind) -> str | None:
    """The reason, if a column of the table that is written computes its value by a subquery."""
    if target is None or kind not in (StatementKind.INSERT, StatementKind.UPDATE):
        return None
    name = "default" if kind is StatementKind.INSERT else "onupdate"
    for column in target.c:
        argument = getattr(getattr(column, name), "arg", None)
        if isinstance(argument, ClauseElement) and any(
            isinstance(part, SelectBase) for part in iterate(argument)
        ):
            return f"the {name}= of column {column} is a subquery"
    return None
