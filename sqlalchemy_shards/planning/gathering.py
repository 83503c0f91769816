"""A statement that shards cannot answer alone -> the tables that PostgreSQL answers it from.

The statement stays as it is. Of each table that it names, the columns that it uses and the rows
that can matter (`filters`, `partners`) are shipped to the workspace, where they stand under the
table's own name; there PostgreSQL runs the statement.

One pass per question, in `PASSES`. A pass raises `Refusal`, or adds to the draft.

Fails closed: a table, column or function that was not seen when the statement was compiled cannot
be there, and what is written by code that is not SQLAlchemy's is refused.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Table, select
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import CTE
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import ShippedRows
from sqlalchemy_shards.routing.analysis import occurrences_of

from .checks import check_statement
from .derived import Derived, check_compiled_alike, names_with
from .elsewhere import NOW, TIMES, at_workspace
from .grouped_keys import is_grouped_by_key
from .lookups import indexed, lookups_of
from .names import check_functions, names_in
from .narrowing import ALIAS, condition_of, needs_of
from .nodes import nodes_of
from .parts import Gathering, Part
from .refusal import Refusal
from .subqueries import Subqueries
from .ties import Ties
from .wire import is_shippable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Column

    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.routing.scopes import Occurrence

    from .blocks import Written
    from .made import Made
    from .names import Depending, Names
    from .narrowing import Need
    from .subqueries import SourcesOf

    TypesOf = Callable[[Table], Mapping[str, ColumnType]]


class Rest(NamedTuple):
    """What is left of a statement of which blocks are answered in parts (`partial`).

    :param written: the statement with heads in the places of these blocks.
    :param made: these blocks, and what the heads are over.
    """

    written: Written
    made: Mapping[Any, Made]


@dataclass(slots=True)
class _Draft:
    """What the passes have found.

    :param types_of: the columns of a table, as all shards have them.
    :param depending: of calls, those that depend on when or where they run.
    :param rest: what is left to be answered from rows; None: all of it.
    :param stay: tables of which nothing is shipped.
    :param occurrences: the places of its tables; none: they are to be found.
    :param subqueries: tells of conditions with subqueries.
    :ivar found: the occurrences of each table, as far as its rows are needed for them.
    :ivar is_known: these are all, as far as the compiler has rendered them.
    :ivar needs: what the rows of each table must meet; a table is missing if not all of its
        occurrences were found.
    :ivar keyed: tables of which the workspace must know the primary key.
    """

    compiled: Any
    statement: Any
    types_of: TypesOf
    depending: Depending
    names: Names
    rest: Rest | None = None
    stay: Collection[Table] = ()
    occurrences: Sequence[Occurrence] = ()
    subqueries: Subqueries | None = None
    found: Mapping[Table, Sequence[Occurrence]] = field(default_factory=dict)
    is_known: bool = False
    needs: Mapping[Table, tuple[Need, ...]] = field(default_factory=dict)
    keyed: set[Table] = field(default_factory=set)
    parts: tuple[Part, ...] = ()

    @property
    def tables(self) -> Mapping[Any, int]:
        """The tables whose rows are needed, and how often they are named."""
        if self.rest is not None:
            found = self.rest.written.tables
            return {table: count for table, count in found.items() if table not in self.stay}
        return self.compiled.rendered_tables  # type: ignore[no-any-return]


def plan_gathering(
    compiled: Any,
    *,
    types_of: TypesOf,
    depending: Depending,
    rest: Rest | None = None,
    stay: Collection[Table] = (),
    occurrences: Sequence[Occurrence] = (),
    sources_of: SourcesOf | None = None,
) -> Gathering:
    """Plan how the workspace answers a SELECT, or what shards need for an UPDATE or DELETE.

    :param compiled: a `ShardsCompiler`, which knows what it has rendered.
    :param depending: of calls, those that depend on when or where they run.
    :param rest: what is left to be answered from rows; None: all of it.
    :param stay: tables of which nothing is shipped, for an UPDATE or DELETE.
    :param occurrences: the places of its tables, if they are known already.
    :param sources_of: the tables of a statement that was derived from this one; None: the shards
        are given no conditions with subqueries.
    :raises Refusal: it could not answer exactly.
    """
    statement: Any = _compat.core_statement(compiled)
    check_statement(statement, compiled)
    names = names_in(statement, compiled)
    subqueries = Subqueries(compiled, statement, sources_of) if sources_of else None
    draft = _Draft(
        compiled, statement, types_of, depending, names, rest, stay, occurrences, subqueries
    )
    for take in PASSES:
        take(draft)
    ctes = {node.name for node in nodes_of(statement, compiled) if isinstance(node, CTE)}
    are_hidden = not ctes.isdisjoint(part.name for part in draft.parts)
    parts = draft.parts if rest is None else (*draft.parts, *_made(rest, draft.needs))
    return Gathering(
        compiled,
        parts,
        needs_tables=bool(draft.keyed) or draft.names.has_records or are_hidden,
        rewritten=_rewritten(statement, compiled) if rest is None else _derived(rest, compiled),
        ties=Ties(
            list(draft.tables),
            [draft.needs.get(each, ()) for each in draft.tables],
            parts,
        ),
    )


# -- the passes -------------------------------------------------------------------------------


def _functions(draft: _Draft) -> None:
    """What it calls gives the same at the workspace."""
    check_functions(draft.names.calls, draft.depending)


def _names(draft: _Draft) -> None:
    """Each of its tables can stand under its own name."""
    tables = draft.tables if draft.rest is None else draft.rest.written.tables
    if len({table.name for table in tables}) < len(tables):
        raise Refusal("it names two tables that differ in their schema only")


def _rows(draft: _Draft) -> None:
    """It is known which rows of its tables can matter, or all of them are shipped."""
    found: defaultdict[Table, list[Occurrence]] = defaultdict(list)
    for each in draft.occurrences or occurrences_of(draft.compiled):
        found[each.table].append(each)
    rendered = draft.compiled.rendered_tables
    seen = {
        table: found[table]
        for table, count in rendered.items()
        if len(found.get(table, ())) == count
    }
    draft.found, draft.is_known = found, len(seen) == len(rendered) == len(found)
    is_clear = draft.is_known and not any(table.name.startswith(ALIAS) for table in rendered)
    # A written row may be another by the time that it is written, with other partners.
    is_clear = is_clear and not isinstance(draft.statement, UpdateBase)
    if draft.rest is not None:
        seen = draft.found = _left(seen, draft.rest.written)
        draft.is_known = draft.is_known and len(seen) == len(draft.rest.written.tables)
    draft.needs = needs_of(
        seen,
        draft.compiled,
        has_partners=is_clear,
        subqueries=draft.subqueries,
        made={} if draft.rest is None else draft.rest.made,
    )


def _keys(draft: _Draft) -> None:
    """Where it groups by a primary key, all columns may show, as the workspace must be told."""
    is_certain = draft.is_known and not draft.names.groups_by_text
    draft.keyed = {
        table
        for table in draft.tables
        if table.primary_key and (not is_certain or any(map(is_grouped_by_key, draft.found[table])))
    }


def _shipped(draft: _Draft) -> None:
    """What it uses of each table can be shipped."""
    lookups = lookups_of(draft.found)
    draft.parts = tuple(_part(each, draft, lookups.get(each, ())) for each in draft.tables)


PASSES: Final[tuple[Callable[[_Draft], None], ...]] = (_functions, _names, _rows, _keys, _shipped)


# -- the pieces -------------------------------------------------------------------------------


def _made(rest: Rest, needs: Mapping[Table, Sequence[Need]]) -> list[Part]:
    """What the shards make; what conditions on rows ask for is made once for all."""
    conditions = [
        each
        for of_table in needs.values()
        for need in of_table
        for each in (*need.conditions, *(link.semi_join for link in need.links))
    ]
    read = {id(node) for condition in conditions for node in iterate(condition)}
    return [
        each.part_read_once if id(each.rows) in read else each.part for each in rest.made.values()
    ]


def _left(
    found: Mapping[Table, Sequence[Occurrence]], rest: Written
) -> dict[Table, list[Occurrence]]:
    """The occurrences that no head stands for; a table is missing if not all of them were found."""
    selects = {block.select for block in rest.blocks} | {None}  # UPDATE and DELETE are none
    left = {
        table: [each for each in found.get(table, ()) if each.scope.select in selects]
        for table in rest.tables
    }
    return {table: each for table, each in left.items() if len(each) == rest.tables[table]}


def _derived(rest: Rest, compiled: Any) -> Derived | None:
    left = rest.written.compiled
    if left.string == compiled.string:
        return None
    return Derived(left, names_with(compiled.bind_names, left), [NOW])


def _rewritten(statement: Any, compiled: Any) -> Derived | None:
    """The statement with bare names of tables, and the time as a parameter, where it needs that."""
    has_schema = any(table.schema for table in compiled.rendered_tables)
    if not has_schema and not TIMES & compiled.rendered_functions:
        return None
    check_compiled_alike(statement, compiled)
    derived = statement.compile(dialect=at_workspace(compiled.dialect))
    return Derived(derived, compiled.bind_names, [NOW])


def _part(table: Any, draft: _Draft, lookups: Collection[str]) -> Part:
    known = draft.types_of(table)
    columns = _columns(table, draft)
    for column in columns:
        if column.name not in known:
            raise Refusal(f"the shards have no column {table.fullname}.{column.name}")
        if not is_shippable(known[column.name]):
            raise Refusal(f"values of type {known[column.name].base} cannot be shipped")
    condition = condition_of(draft.needs.get(table, ()))
    rows = select(*columns).select_from(table)
    names = tuple(column.name for column in columns)
    return Part(
        name=table.name,
        origin=table.fullname,
        columns=names,
        types=tuple(known[column.name] for column in columns),
        rows=_compat.without_orm(rows if condition is None else rows.where(condition)),
        kind=ShippedRows.ALL if condition is None else ShippedRows.MATCHING,
        key=tuple(column.name for column in table.primary_key) if table in draft.keyed else (),
        lookups=indexed(names, known, lookups),
        follows_search_path=not table.schema,
        is_vague=condition is not None
        and draft.subqueries is not None
        and draft.subqueries.are_in(condition),
    )


def _columns(table: Any, draft: _Draft) -> list[Column[Any]]:
    """The columns that the statement uses."""
    names, known = draft.names, draft.types_of(table)
    own = {column.name: column for column in table.c}
    if names.is_all_whole or table.fullname in names.whole:
        missing = [name for name in known if name not in own]
        if missing:
            raise Refusal(
                f"it uses whole rows of {table.fullname}, of which the model does not have the "
                f"column {missing[0]!r}",
                "name the columns",
            )
        return [own[name] for name in known]
    unmapped = names.bare.intersection(known).difference(own)
    if unmapped:
        raise Refusal(
            f"it names {min(unmapped)} without a table, which is a column of {table.fullname} "
            "that the model does not have"
        )
    left = draft.compiled if draft.rest is None else draft.rest.written.compiled
    wanted = left.rendered_columns.get(table, set())
    columns = [column for column in table.c if column.key in wanted or column.name in names.bare]
    if table in draft.keyed or not columns:
        columns += [column for column in table.primary_key if column not in columns]
    return columns or list(table.c)[:1]
