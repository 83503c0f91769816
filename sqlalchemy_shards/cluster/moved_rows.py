"""INSERT ... SELECT whose rows belong elsewhere than they are made: read first, then inserted.

The SELECT runs as a statement of its own, whatever plan it has, and is streamed; some thousands of
rows at a time go to the shards of their keys. Invariants:

- What is inserted is not seen by the SELECT: its server-side cursors are open before the first row
  is written, and show what was there then.
- Values are not looked at in Python: they travel as PostgreSQL's text.
- Where one statement must hold all rows of a shard (DO UPDATE must not meet a row twice; rows refer
  to rows of the same table), they are collected first, within the limit of a gather.
- If it cannot go on after rows were written, the transaction fails.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.sql.dml import Insert

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.plan import FirstCopy, GivenOrder, Moved
from sqlalchemy_shards.planning.moved_rows import (
    RowsWritten,
    check_movable,
    reading_of,
    user_values,
)
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.routing.conditions import Parameter
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.routing.router import key_of_row
from sqlalchemy_shards.routing.row_wise import why_not_row_wise

from .dispatch.unread import check_as_made
from .dispatch.values import ExecutionValues
from .dispatch.work import Dispatch, Work
from .gather.agreement import check_digits, settings_of
from .limits import asked_gather_limit, limit_exceeded
from .moved_sets import Inserted, MovingSets, insert_of, kept_options
from .options import check_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import CursorResult
    from sqlalchemy.engine.default import DefaultExecutionContext

    from sqlalchemy_shards.routing.sources import InsertedKey

    from .connection import ClusterConnection
    from .cursor import ClusterCursor
    from .dispatch.work import Given, Surroundings
    from .limits import GatherLimit
    from .plans import StatementPlan

    Row = tuple[Any, ...]

ROWS_PER_BATCH: Final = 5_000


def moved(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None, obstacle: str
) -> Dispatch:
    """Decide on an INSERT whose rows are read first.

    :param named: the shards that an option names; they are read, and rows must belong there.
    :param obstacle: why the shards alone cannot do it.
    :raises UnsupportedStatement: its rows alone are not all that it looks at.
    """
    context: Any = given.context
    sources = plan.sources
    moving: Moving | MovingSets
    try:
        if len(context.compiled_parameters) > 1:
            moving = MovingSets(context)
        else:
            limit = asked_gather_limit(_options(given), around.gather_limit)
            moving = Moving(context, plan, named, limit)
    except Refusal as refusal:
        raise UnsupportedStatement(
            f"the rows that the INSERT into {sources.target!r} selects cannot be inserted where "
            f"they belong: {refusal.reason}",
            refusal.advice or "read the rows first, and insert them",
            statement=given.sql,
        ) from None
    check_as_made(given)
    shards, reason, into = around.territory.shards, Reason.KEY, "the shards of their keys"
    if sources.writes_reference:
        reason, into = Reason.EVERY_COPY, "every copy of the table"
    elif sources.inserted is None:
        shards, reason = (around.territory.global_shard,), Reason.GLOBAL
        into = "the table on its shard"
    works = [Work(shard, given.sql, given.parameters) for shard in shards]
    route = Route(tuple(shards), reason)
    return Dispatch(works, route, Moved(into), obstacle=obstacle, moving=moving)


def is_movable(given: Given) -> bool:
    """Whether a statement is an INSERT of the rows of a SELECT."""
    statement: Any = _compat.core_statement(given.context.compiled)  # type: ignore[arg-type]
    return isinstance(statement, Insert) and statement.select is not None


def _options(given: Given) -> Mapping[str, Any]:
    return given.context.execution_options


class Moving:
    """An INSERT whose rows are read first, and one execution of it.

    :raises Refusal: more than its SELECT looks at rows.
    """

    def __init__(
        self,
        context: DefaultExecutionContext,
        plan: StatementPlan,
        named: Route | None,
        limit: GatherLimit,
    ) -> None:
        compiled: Any = context.compiled
        insert = insert_of(context)
        check_movable(insert, compiled)
        if plan.sources.writes_reference:
            _check_copies_alike(insert, compiled)
        self.context: Any = context
        self.limit = limit
        self.named = named
        self.sources = plan.sources
        self.processors = plan.processors
        self.returns_rows = bool(_compat.result_columns(compiled))
        self.table: Any = insert.table
        names = _compat.selected_names(insert)
        self.width = len(names)
        inserted = plan.sources.inserted
        self.key_read: tuple[str, ...] = ()
        if inserted is not None:
            self.key_read = tuple(each for each in inserted.columns if each in names)
            _check_keys(insert, compiled, inserted)
        self.is_whole = _needs_one_statement(insert)
        self.reading = reading_of(insert, self.key_read, compiled.dialect)
        self.values = user_values(compiled, _compat.raw_parameters(context))

    def perform(
        self, connection: ClusterConnection, make_cursor: Callable[[], ClusterCursor]
    ) -> Inserted:
        """Read the rows, and insert them."""
        return _Performance(self, connection, make_cursor).done()


class _Performance:
    def __init__(
        self,
        moving: Moving,
        connection: ClusterConnection,
        make_cursor: Callable[[], ClusterCursor],
    ) -> None:
        self._moving = moving
        self._connection = connection
        self._make_cursor = make_cursor
        self._rows: list[Row] = []
        self._count = 0
        self._description: Any = None
        self._has_written = False
        self._checked: set[str] = set()
        inserted = moving.sources.inserted
        self._inserted = None if inserted is None else _with_key_read(inserted, moving.key_read)

    def done(self) -> Inserted:
        moving, connection = self._moving, self._connection
        options = kept_options(moving.context)
        # Outside a transaction there are no server-side cursors.
        options["stream_results"] = not connection.autocommit
        result = moving.context.root_connection.execute(
            moving.reading, moving.values, execution_options=options
        )
        try:
            self._insert(result)
        except BaseException as error:
            # Half of it must not stay, whatever it was; the driver refuses rows, too.
            if self._has_written:
                connection.fail(getattr(error, "shard", None) or connection.cluster.global_shard)
            raise
        finally:
            result.close()
        return Inserted(self._rows, self._count, self._description)

    def _insert(self, result: CursorResult[Any]) -> None:
        moving = self._moving
        described: Any = result.cursor.description
        oids = [each[1] for each in described[moving.width : 2 * moving.width]]
        try:
            written = RowsWritten(moving.context, oids, self._type_of)
        except Refusal as refusal:
            raise UnsupportedStatement(
                f"the rows that the INSERT into {moving.sources.target!r} selects cannot be "
                f"inserted where they belong: {refusal.reason}",
                refusal.advice or "read the rows first, and insert them",
            ) from None
        for rows in self._batches(result):
            self._perform(self._dispatch(rows, written))
            self._check_written_alike(has_floats=written.has_floats)
        if moving.returns_rows and not self._has_written:
            shard = next(iter(self._connection.enlisted), self._connection.cluster.global_shard)
            work = Work(shard, written.sql, written.parameters(()))
            self._perform(Dispatch([work], Route((shard,), Reason.KEY)))

    def _check_written_alike(self, *, has_floats: bool) -> None:
        """Look whether the shards that take part write values as text in one way.

        :raises UnsupportedStatement: they do not.
        """
        new = [each for each in self._connection.enlisted if each not in self._checked]
        self._checked.update(new)
        works = [Work(shard, "", None) for shard in self._checked]
        settings_of(self._connection, works)
        if has_floats and new:
            check_digits(self._connection, [work for work in works if work.shard in new])

    def _type_of(self, column: str) -> str:
        """The type of a column of the table, as all shards have it."""
        table = self._moving.table
        found = self._connection.facts.columns_of(table).get(column)
        if found is None:
            raise Refusal(f"the shards have no column {table.fullname}.{column}")
        return found.sql

    def _batches(self, result: CursorResult[Any]) -> Iterator[Sequence[Row]]:
        collected: list[Row] = []
        size, limit = 0, self._moving.limit
        while rows := result.fetchmany(ROWS_PER_BATCH):
            if not self._moving.is_whole:
                yield rows
                continue
            collected += rows
            size += sum(len(cell) for row in rows for cell in row[: self._moving.width] if cell)
            if len(collected) > limit.rows or size > limit.bytes:
                told = f"{len(collected)} rows with {size} bytes"
                raise limit_exceeded(limit, "inserted by one statement", [told])
        if collected:
            yield collected

    def _dispatch(self, rows: Sequence[Row], written: RowsWritten) -> Dispatch:
        """Which shard inserts which of the rows."""
        territory, sources = self._connection.territory, self._moving.sources
        cells = [row[: self._moving.width] for row in rows]
        if sources.writes_reference:
            everything = written.parameters(cells)
            works = [Work(shard, written.sql, everything) for shard in territory.shards]
            route = Route(territory.shards, Reason.EVERY_COPY)
            return Dispatch(works, route, FirstCopy(), is_ordered=True)
        if self._inserted is None:
            shard = territory.global_shard
            work = Work(shard, written.sql, written.parameters(cells))
            return Dispatch([work], Route((shard,), Reason.GLOBAL))
        places = self._places(rows, self._inserted)
        route = Route(territory.in_order(places), Reason.KEY)
        check_named(route, self._moving.named, sources.target)
        works = [
            Work(shard, written.sql, written.parameters([cells[i] for i in places[shard]]))
            for shard in route.shards
        ]
        merge = GivenOrder(tuple(tuple(places[shard]) for shard in route.shards))
        return Dispatch(works, route, None if route.is_single else merge)

    def _places(self, rows: Sequence[Row], inserted: InsertedKey) -> Mapping[str, list[int]]:
        """Shard -> the places of its rows."""
        moving = self._moving
        shard_map = self._connection.territory.shard_map
        known = {
            each.name: moving.context.compiled_parameters[0].get(each.name)
            for each in inserted.parameters
            if each is not None
        }
        names = [_KEY + each for each in moving.key_read]
        found: defaultdict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            known.update(zip(names, row[2 * moving.width :], strict=True))
            key = key_of_row(inserted, ExecutionValues(known, moving.processors))
            found[shard_map.shard_for(inserted.keyspace, key)].append(place)
        return found

    def _perform(self, decided: Dispatch) -> None:
        cursor = self._make_cursor()
        try:
            cursor.perform(decided, self._connection.observer)
            self._has_written = True
            self._count += cursor.rowcount
            if self._moving.returns_rows:
                self._description = cursor.description
                self._rows += cursor.fetchall()
        finally:
            cursor.close()


_KEY: Final = "shards_key_"


def _with_key_read(inserted: InsertedKey, key_read: Sequence[str]) -> InsertedKey:
    """The key with the parts that are read under names of their own."""
    given = inserted.parameters or (None,) * len(inserted.columns)
    return replace(
        inserted,
        parameters=tuple(
            Parameter(_KEY + column, key_type) if column in key_read else parameter
            for column, key_type, parameter in zip(
                inserted.columns, inserted.key_types, given, strict=True
            )
        ),
    )


def _check_keys(insert: Insert, compiled: Any, inserted: InsertedKey) -> None:
    if inserted.lies_beside:
        raise Refusal("they lie beside rows of another table, which only the ORM knows")
    identity = {column.key for column in insert.table.primary_key}
    defaults = identity.intersection(_compat.client_side_defaults(compiled))
    if defaults and not identity.issuperset(inserted.columns):
        raise Refusal("a client-side default would give all rows the same primary key")


def _check_copies_alike(insert: Insert, compiled: Any) -> None:
    clause = _compat.post_values_clause(insert)
    expressions = [*_compat.returning(insert), *_compat.dml_expressions(compiled)]
    expressions += _compat.conflict_expressions(clause) if clause is not None else []
    reason = why_not_row_wise(expressions)
    if reason is not None:
        raise Refusal(reason)


def _needs_one_statement(insert: Any) -> bool:
    clause = _compat.post_values_clause(insert)
    updates = clause is not None and bool(_compat.conflict_assignments(clause))
    return updates or any(key.references(insert.table) for key in insert.table.foreign_keys)
