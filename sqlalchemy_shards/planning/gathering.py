"""A statement that shards cannot answer alone -> the tables that PostgreSQL answers it from.

The statement stays as it is. Of each table that it names, the columns that it uses and the rows
that can matter (`filters`) are shipped to the workspace, where they stand under the table's own
name; there PostgreSQL runs the statement.

Fails closed: a table, column or function that was not seen when the statement was compiled cannot
be there, and what is written by code that is not SQLAlchemy's is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Table, select
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.selectable import CTE, Select, TableSample
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import ShippedRows
from sqlalchemy_shards.routing.scopes import table_below

from .derived import Derived, NotRewritable, check_compiled_alike
from .elsewhere import NOW, TIMES, at_workspace
from .filters import occurrences_of
from .lookups import indexed, lookups_of
from .names import check_functions, names_in
from .narrowing import ALIAS, condition_of, needs_of
from .parts import Gathering, Part
from .refusal import Refusal
from .ties import Ties
from .wire import is_shippable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Column

    from sqlalchemy_shards.catalog.columns import ColumnType

    from .filters import Occurrence
    from .narrowing import Need

    TypesOf = Callable[[Table], Mapping[str, ColumnType]]
    from .names import Depending, Names

RESERVED: Final = "shards_"
"""How the names of parameters begin that are added to the statement."""


def plan_gathering(compiled: Any, *, types_of: TypesOf, depending: Depending) -> Gathering:
    """Plan how the workspace answers a SELECT.

    :param compiled: a `ShardsCompiler`, which knows what it has rendered.
    :param depending: of the names of functions, those that depend on when or where they run.
    :raises Refusal: it could not answer exactly.
    """
    statement: Any = _compat.core_statement(compiled)
    check_statement(statement, compiled)
    names = names_in(statement, compiled)
    check_functions(names.functions, depending)
    found = occurrences_of(statement)
    needs, lookups = _needs(found, compiled), lookups_of(found)
    keyed = _tables_grouped_by_key(statement)
    if names.groups_by_text:
        keyed.update(table for table in compiled.rendered_tables if table.primary_key)
    parts = tuple(
        _part(
            table,
            _columns(table, compiled, names, types_of, is_key_needed=table in keyed),
            needs.get(table, ()),
            lookups.get(table, ()),
            types_of,
            is_key_needed=table in keyed,
        )
        for table in compiled.rendered_tables
    )
    part_names = {part.name for part in parts}
    if len(part_names) < len(parts):
        raise Refusal("it names two tables that differ in their schema only")
    ctes = {node.name for node in iterate(statement) if isinstance(node, CTE)}
    tables = list(compiled.rendered_tables)
    return Gathering(
        compiled,
        parts,
        needs_tables=bool(keyed) or names.has_records or not ctes.isdisjoint(part_names),
        rewritten=_rewritten(statement, compiled),
        ties=Ties(tables, [needs.get(table, ()) for table in tables], parts),
    )


def _rewritten(statement: Any, compiled: Any) -> Derived | None:
    """The statement with bare names of tables, and the time as a parameter, where it needs that."""
    has_schema = any(table.schema for table in compiled.rendered_tables)
    if not has_schema and not TIMES & compiled.rendered_functions:
        return None
    try:
        check_compiled_alike(statement, compiled)
        derived = statement.compile(dialect=at_workspace(compiled.dialect))
        return Derived(derived, compiled.bind_names, [NOW])
    except NotRewritable as reason:
        raise Refusal(str(reason)) from None


def check_statement(statement: Any, compiled: Any) -> None:
    """Refuse what the workspace would not do as the shards do.

    :raises Refusal: with the reason.
    """
    if any(name.startswith(RESERVED) for name in compiled.bind_names.values()):
        raise Refusal(f"the names of its parameters begin with {RESERVED!r}", "call them otherwise")
    if compiled.literal_execute_params:
        raise Refusal("it has parameters that are rendered into its SQL at execution")
    if compiled.schema_translate_map:
        raise Refusal("schema_translate_map is not understood where rows are brought together")
    for node in iterate(statement):
        if isinstance(node, TableSample):
            raise Refusal("TABLESAMPLE picks other rows in every copy of a table")
        if isinstance(node, Select) and _compat.select_shape(node).for_update:
            raise Refusal(
                "FOR UPDATE would lock copies of the rows, not the rows of the shards",
                "add the shard key to its WHERE clause; or read the primary keys first, and lock "
                "these rows by a second SELECT, with selectinload() in place of joinedload()",
            )


def _tables_grouped_by_key(statement: Any) -> set[Table]:
    """The tables by whose whole primary key a SELECT groups, so that all their columns may show."""
    found = set()
    for node in iterate(statement):
        if not isinstance(node, Select):
            continue
        grouped = set()
        for expression in _compat.select_shape(node).group_by:
            for each in iterate(expression):
                if not isinstance(each, ColumnClause) or each.is_literal:
                    continue
                table = table_below(each.table)
                if table is not None:
                    grouped.add((table, each.key))
        for table in {table for table, _ in grouped}:
            key = {(table, column.key) for column in table.primary_key}
            if key and key <= grouped:
                found.add(table)
    return found


def _needs(
    found: Mapping[Table, Sequence[Occurrence]], compiled: Any
) -> Mapping[Table, tuple[Need, ...]]:
    """What the rows of each table must meet; a table is missing if an occurrence was not found."""
    rendered = compiled.rendered_tables
    seen = {
        table: found[table]
        for table, count in rendered.items()
        if len(found.get(table, ())) == count
    }
    is_known = len(seen) == len(rendered) == len(found)
    is_clear = not any(table.name.startswith(ALIAS) for table in rendered)
    return needs_of(seen, compiled, has_partners=is_known and is_clear)


def _columns(
    table: Any, compiled: Any, names: Names, types_of: TypesOf, *, is_key_needed: bool
) -> list[Column[Any]]:
    """The columns that the statement uses."""
    known = types_of(table)
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
    wanted = compiled.rendered_columns.get(table, set())
    columns = [column for column in table.c if column.key in wanted or column.name in names.bare]
    if is_key_needed or not columns:
        columns += [column for column in table.primary_key if column not in columns]
    return columns or list(table.c)[:1]


def _part(
    table: Any,
    columns: Sequence[Column[Any]],
    needs: tuple[Need, ...],
    lookups: Collection[str],
    types_of: TypesOf,
    *,
    is_key_needed: bool,
) -> Part:
    known = types_of(table)
    for column in columns:
        if column.name not in known:
            raise Refusal(f"the shards have no column {table.fullname}.{column.name}")
        if not is_shippable(known[column.name]):
            raise Refusal(f"values of type {known[column.name].base} cannot be shipped")
    condition = condition_of(needs)
    rows = select(*columns).select_from(table)
    names = tuple(column.name for column in columns)
    return Part(
        name=table.name,
        origin=table.fullname,
        columns=names,
        types=tuple(known[column.name] for column in columns),
        rows=rows if condition is None else rows.where(condition),
        kind=ShippedRows.ALL if condition is None else ShippedRows.MATCHING,
        key=tuple(column.name for column in table.primary_key) if is_key_needed else (),
        lookups=indexed(names, known, lookups),
        follows_search_path=not table.schema,
    )
