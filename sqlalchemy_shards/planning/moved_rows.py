"""INSERT ... SELECT -> the SELECT that is read, and the INSERT of the rows that were read.

SQL before:  INSERT INTO labels (owner, text) SELECT max(owner), name FROM orders GROUP BY name
read:        SELECT CAST(s.a AS TEXT), ..., CASE WHEN false THEN s.a END, ..., CAST(s.a AS BIGINT)
             FROM (SELECT max(owner) AS a, name AS b FROM orders GROUP BY name) AS s
written:     INSERT INTO labels (owner, text) SELECT CAST(c0 AS pg_catalog.int8), ...
             FROM unnest(%(shards_cells_0)s, ...) AS shards_cells (c0, c1)

An ORDER BY becomes that of what is read, too: a subquery's own is lost where shards' rows are put
together, and the order decides which number a row gets, and which of two ON CONFLICT leaves out.

Values travel as text, and become again what the SELECT made them: PostgreSQL then assigns them to
the columns as it would have. Their types are told by columns that are always NULL. The key of a row
is read once more, as its column stores it.

Fails closed: what is written must begin as the statement does, and return the same columns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from psycopg.postgres import types as postgres_types
from sqlalchemy import ARRAY, Text, bindparam, case, cast, false, func, select, type_coerce
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BindParameter, Label, Null
from sqlalchemy.sql.selectable import CompoundSelect, Select, SelectBase
from sqlalchemy.types import NullType, UserDefinedType

from sqlalchemy_shards import _compat

from .derived import bind_processors, compiled_with, inherited_value, render
from .ordering import Ordering, directed, orderings
from .refusal import Refusal
from .wire import UNSHIPPABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Insert

_CELLS: Final = "shards_cells"
_ORDER: Final = "shards_order"
_BUILT_IN_MAX: Final = 16384
"""OIDs from here on are those of types that were created, another one on each server."""

_WITHOUT_FLOATS: Final = frozenset(
    oid
    for name in (
        "bool bpchar bytea date int2 int4 int8 interval json jsonb numeric text time timestamp "
        "timestamptz timetz uuid varchar"
    ).split()
    for info in (postgres_types[name],)
    for oid in (info.oid, info.array_oid)
)
"""Types of which it is certain; all others may hold some."""

_HEAD: Final = re.compile(r"\bINSERT INTO .*?(?=\s+(?:SELECT\b|\(|VALUES\b))", re.S)


class _Named(UserDefinedType[Any]):
    """A type by its name in SQL."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


def reading_of(insert: Insert, key: Sequence[str], dialect: Dialect) -> Select[Any]:
    """The SELECT whose rows hold the cells, then the types, then the values of the key's columns.

    :param insert: as it was given, with the values of this execution.
    :param key: keys of the shard key's columns that the SELECT fills.
    :raises Refusal: it cannot be told which of its columns fills which.
    """
    names = _compat.selected_names(insert)
    chosen: Any = insert.select
    order = _order_of(chosen)
    if order is None:
        # Brought together as a whole, in its order, as every subquery that is cut off.
        chosen, order = chosen.offset(0), []
    added = [key.expression for key, place in order if place is None]
    if added:
        labels = (each.label(f"{_ORDER}_{place}") for place, each in enumerate(added))
        chosen = chosen.add_columns(*labels)
    rows = chosen.subquery("shards_selected")
    given = list(rows.c)
    hidden = iter([given.pop() for _ in added][::-1])
    if len(given) != len(names) or any(each.name == "*" for each in given):
        raise Refusal("it cannot be told which column of its SELECT fills which column")
    columns: list[Any] = [cast(each, Text) for each in given]
    # Nothing is made of the values when they have come: they are as the driver gives them.
    columns += [type_coerce(case((false(), each)), NullType()) for each in given]
    columns += [
        cast(given[names.index(each)], _Named(insert.table.c[each].type.compile(dialect=dialect)))
        for each in key
    ]
    labelled = (each.label(f"c{place}") for place, each in enumerate(columns))
    reading = select(*labelled).order_by(
        *(directed(next(hidden) if place is None else given[place], key) for key, place in order)
    )
    # The INSERT's own CTEs are for its SELECT: nothing else may hold one that reads.
    return reading.add_cte(*_compat.dml_ctes(insert))


def _order_of(chosen: Any) -> list[tuple[Ordering, int | None]] | None:
    """The keys of an ORDER BY, and which columns they are; None: they are none of them.

    Nothing where the order is kept anyway: LIMIT is not merged. None in place of all of it where
    one of the keys is not understood, as a position, or a tuple.
    """
    if not isinstance(chosen, (Select, CompoundSelect)):
        return []
    shape = _compat.select_shape(chosen)
    if any(each is not None for each in (shape.limit, shape.offset, shape.fetch)):
        return []
    columns = list(chosen.selected_columns)
    keys = orderings(shape.order_by, {each.name: each for each in columns if hasattr(each, "name")})
    if keys is None:
        return None
    order = [(key, _place_of(key.expression, columns)) for key in keys]
    may_add = isinstance(chosen, Select) and (not shape.distinct or bool(shape.distinct_on))
    # PostgreSQL refuses what is neither selected nor may be added, or it is in raw SQL.
    return order if may_add or all(place is not None for _, place in order) else []


def _place_of(expression: Any, columns: Sequence[Any]) -> int | None:
    for place, each in enumerate(columns):
        if expression.compare(each.element if isinstance(each, Label) else each):
            return place
    return None


def check_movable(insert: Insert, compiled: SQLCompiler) -> None:
    """Refuse an INSERT that looks at rows elsewhere than in its SELECT.

    :raises Refusal: it does.
    """
    if _compat.has_extensions(insert):
        raise Refusal("it has a clause of a syntax extension")
    if _compat.is_embellished(insert):
        raise Refusal("it holds raw SQL text as prefix, suffix or hint")
    for each in _compat.dml_ctes(insert):
        if any(isinstance(part, UpdateBase) for part in visitors.iterate(each.element)):
            raise Refusal("it changes rows inside a CTE")
    if _compat.has_options(insert):
        raise Refusal("options such as with_loader_criteria() reach into its subqueries")
    clause = _compat.post_values_clause(insert)
    outside = [*_compat.returning(insert), *_compat.dml_expressions(compiled)]
    outside += _compat.conflict_expressions(clause) if clause is not None else []
    for expression in outside:
        if any(isinstance(each, SelectBase) for each in visitors.iterate(expression)):
            raise Refusal("it has subqueries beside its SELECT")


def user_values(compiled: SQLCompiler, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the parameters that the application has named, for the SELECT alone."""
    return {
        bind.key: values[name]
        for bind, name in compiled.bind_names.items()
        if not bind.unique and name in values
    }


class RowsWritten:
    """The INSERT of rows that were read.

    :param oids: the types of the cells, as the driver was told.
    :param type_of: column of the table -> its type in SQL, for types that were created.
    :ivar has_floats: floating-point numbers may be among the cells.
    :raises Refusal: SQLAlchemy compiles it differently.
    """

    def __init__(
        self,
        context: DefaultExecutionContext,
        oids: Sequence[int],
        type_of: Callable[[str], str],
    ) -> None:
        compiled: Any = context.compiled
        insert: Any = _compat.core_statement(compiled)
        names = _compat.selected_names(insert)
        untyped = _untyped(insert)
        cells = (
            func.unnest(*(bindparam(f"{_CELLS}_{p}", type_=ARRAY(Text)) for p in range(len(oids))))
            .table_valued(*(f"c{place}" for place in range(len(oids))))
            .render_derived(name=_CELLS)
        )
        self.has_floats = not _WITHOUT_FLOATS.issuperset(oids)
        types = [
            (None if place in untyped else _type_name(oid)) or type_of(insert.table.c[name].name)
            for place, (name, oid) in enumerate(zip(names, oids, strict=True))
        ]
        values = [cast(cell, _Named(each)) for cell, each in zip(cells.c, types, strict=True)]
        derived = compiled_with(_compat.with_select(insert, select(*values)), compiled)
        _check(compiled, derived)
        original = {
            **_compat.raw_parameters(context),
            **{f"{_CELLS}_{place}": [] for place in range(len(oids))},
        }
        parameters = {
            name: inherited_value(bind, compiled, original)
            for bind, name in derived.bind_names.items()
        }
        self.sql, self._parameters = render(derived, bind_processors(derived), context, parameters)

    def parameters(self, cells: Sequence[Sequence[str | None]]) -> dict[str, Any]:
        """What the driver is given for some rows.

        :param cells: of each row, its cells.
        """
        columns: Any = zip(*cells, strict=True) if cells else ()
        filled = {f"{_CELLS}_{place}": list(column) for place, column in enumerate(columns)}
        return {**self._parameters, **filled}


def _untyped(insert: Any) -> set[int]:
    """Places of NULLs and values without a type, which take the type of their column."""
    if not isinstance(insert.select, Select):
        return set()
    return {
        place
        for place, each in enumerate(_compat.column_list(insert.select))
        if isinstance(getattr(each, "element", each), (Null, BindParameter))
        and isinstance(each.type, NullType)
    }


def _type_name(oid: int) -> str | None:
    """A type of PostgreSQL's own as SQL names it, without a length; None: it is not one.

    :raises Refusal: its text means something else on another server.
    """
    info = postgres_types.get(oid) if oid < _BUILT_IN_MAX else None
    if info is None:
        return None
    if info.name in UNSHIPPABLE:
        raise Refusal(f"values of type {info.name} cannot be shipped")
    name = info.name if info.name.startswith('"') else f'"{info.name}"'
    return f"pg_catalog.{name}" + ("[]" if oid == info.array_oid else "")


def _check(compiled: SQLCompiler, derived: SQLCompiler) -> None:
    heads = {_head(each.string) for each in (compiled, derived)}
    columns = [
        [column.name for column in _compat.result_columns(each)] for each in (compiled, derived)
    ]
    if len(heads) > 1 or None in heads or columns[0] != columns[1]:
        raise Refusal("SQLAlchemy compiles it differently once more")


def _head(sql: str) -> str | None:
    found = _HEAD.search(sql)
    return None if found is None else found[0]
