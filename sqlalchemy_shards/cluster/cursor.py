"""The cluster cursor: the path of a statement, in one place.

    statement -> dispatch (route, plan) -> execute on the shards -> merge -> rows

`ClusterCursor.run` is that path, and `ClusterCursor.run_by_key` its short cut. Rows come as the
driver gives them, before SQLAlchemy's result processing; a single shard's rows are handed through
untouched.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import InvalidCursorName

from sqlalchemy_shards.errors import MissingShardKey, ShardsError, UnsupportedStatement
from sqlalchemy_shards.execution.merge import check_types, is_merged_whole, merged, visible_columns
from sqlalchemy_shards.execution.sorting import NotMergeable
from sqlalchemy_shards.plan import FirstCopy, ForeignOrder
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.transactions.fail_points import AFTER_STATEMENT, BEFORE_STATEMENT

from .columns_alike import check_columns_alike
from .dispatch.by_key import read_by_key, shard_by_key
from .dispatch.copies import check_all_known
from .dispatch.dispatch import dispatch
from .dispatch.one_set import gather_instead
from .dispatch.work import Dispatch, Given, Work
from .enlistment.enlisted import shard_of
from .enlistment.moments import tell_time
from .enlistment.on_shards import failing_alike, on_shards
from .explain.observing import RUN, observed
from .gather.gather import answer, in_order
from .gather.supplying import supplied_works
from .streaming import ROWS_PER_FETCH, StreamedAnswer, StreamedShards, abandon_cursor, close_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.engine.default import DefaultExecutionContext

    from sqlalchemy_shards.routing.settings import Setting

    from .connection import ClusterConnection
    from .enlistment.enlisted import EnlistedShard
    from .explain.observing import Observer
    from .moved_rows import Moving
    from .moved_sets import MovingSets

_TEXT_OID = 25


class ClusterCursor:
    """A DBAPI cursor over all shards.

    :param arguments: what the shards' cursors are made with: a name makes them server-side.
    """

    arraysize = 1
    description: Any = None
    rowcount = -1
    _cursors: Sequence[Any] = ()
    _types: Sequence[int] = ()
    _single: Any = None
    _merged: Iterator[tuple[Any, ...]] | None = None
    _dispatch: Dispatch | None = None
    _given: Given | None = None
    _streamed: StreamedShards | None = None
    _has_ended = False
    _is_raw = False
    _arguments: tuple[Any, ...] = ()
    _keywords: Mapping[str, Any] = MappingProxyType({})
    _name: str | None = None

    def __init__(
        self,
        connection: ClusterConnection,
        arguments: tuple[Any, ...] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> None:
        self.connection = connection
        if arguments or keywords:  # few have any, and all others save the steps
            self._arguments = arguments
            self._keywords = keywords or {}
            self._name = (arguments[0] if arguments else self._keywords.get("name")) or None
            if self._name:
                connection.streams.add(self)

    # -- the path of a statement --

    def run_by_key(self, context: DefaultExecutionContext, sql: str, parameters: Any) -> bool:
        """Run a statement with one parameter set the quick way; False: it needs `run`."""
        connection = self.connection
        shard = None if connection.observer is not None else shard_by_key(context, connection)
        if shard is None:
            return False
        connection.check_usable()
        is_read = context.compiled.plan.is_plain_read  # type: ignore[union-attr]
        if is_read and self._name is None:
            read_by_key(connection, context, shard, sql, parameters)
        else:
            self._perform_single(shard, sql, parameters, False if is_read else None)
        return True

    def run(
        self,
        context: DefaultExecutionContext,
        sql: str,
        parameters: Any,
        *,
        is_many: bool = False,
    ) -> None:
        """Run a statement where it belongs."""
        connection = self.connection
        connection.check_usable()
        # A server-side cursor does not count its rows.
        given = Given(context, sql, parameters, is_many, can_look_again=not self._name)
        self._given = None if self._name else given
        decided = self._decided(given)
        observer = connection.observer
        if observer is not None:
            observer.on_dispatch(decided)
        try:
            self.perform(decided, observer)
        except NotMergeable as error:
            self._gather_instead(given, decided, error)
        if decided.believed is not None and self.rowcount < decided.believed:
            self._look_again(given)

    def _gather_instead(
        self, given: Given, decided: Dispatch, error: NotMergeable | psycopg.DataError
    ) -> None:
        """Let the workspace answer, as the rows' types or their values do not allow a merge."""
        self._close()
        try:
            gathered = gather_instead(
                given,
                self.connection,
                decided.route,
                is_for_good=isinstance(error, NotMergeable),
            )
        except UnsupportedStatement:
            raise error from None
        self._perform_next(gathered)

    def _look_again(self, given: Given) -> None:
        """Run a statement where else its rows may be: the locator did not know better."""
        found = self.rowcount
        given.looks_again = True
        self._perform_next(self._decided(given))
        self.rowcount = max(found, 0) + max(self.rowcount, 0)

    def _perform_next(self, decided: Dispatch) -> None:
        """Perform what was decided after another attempt."""
        observer = self.connection.observer
        if observer is not None:
            observer.on_dispatch(decided)
        self.perform(decided, observer)

    def _decided(self, given: Given) -> Dispatch:
        try:
            return dispatch(given, self.connection)
        except ShardsError as error:
            if self._single is not None or self._cursors:
                # An earlier batch of the same INSERT has run: half of it must not stay.
                self.connection.fail(error.shard or self.connection.cluster.global_shard)
            raise

    def perform(self, decided: Dispatch, observer: Observer | None = None) -> None:
        """Run what was decided on the shards, and make their answers one."""
        self._is_raw = decided.is_raw
        if decided.setting is not None:
            self._perform_setting(decided, decided.setting)
            return
        if not decided.works:
            self._perform_nothing(decided)
            return
        if decided.moving is not None:
            self._perform_moving(decided, decided.moving)
            return
        if decided.gather is not None:
            self._perform_gather(decided)
            return
        if decided.supply is not None:
            decided.works = supplied_works(self.connection, decided, decided.supply)
        if decided.merge is not None:
            self._perform_scatter(decided)
            return
        work = decided.works[0]
        if observer is not None:
            self._observe_single(work, decided.writes, observer)
            return
        self._perform_single(
            work.shard, work.sql, work.parameters, decided.writes, is_many=work.is_many
        )

    def _observe_single(self, work: Work, writes: bool | None, observer: Observer) -> None:
        def perform() -> Any:
            self._perform_single(
                work.shard, work.sql, work.parameters, writes, is_many=work.is_many
            )
            return self._single

        self.connection.enlist(work.shard)  # a step of its own
        observed(observer, RUN, work.shard, perform)

    def _perform_setting(self, decided: Dispatch, setting: Setting) -> None:
        """Set something for the transaction: each shard is told, now or when it joins."""
        self._close()
        self._dispatch = decided
        work = decided.works[0]
        self.connection.set_for_transaction(work.sql, work.parameters)
        self.description = [(name, _TEXT_OID, *[None] * 5) for name in setting.columns] or None

    def _perform_moving(self, decided: Dispatch, moving: Moving | MovingSets) -> None:
        """Insert the rows that a SELECT gives, some after others."""
        self._close()
        self._dispatch = decided
        moved = moving.perform(self.connection, lambda: ClusterCursor(self.connection))
        self._merged = iter(moved.rows)
        self.description, self.rowcount = moved.description, moved.row_count

    def _perform_nothing(self, decided: Dispatch) -> None:
        """Give no rows, without asking."""
        self._close()
        self._merged = iter(())
        self.description = decided.description
        self.rowcount = 0

    def _perform_single(
        self, shard: str, sql: Any, parameters: Any, writes: bool | None, *, is_many: bool = False
    ) -> None:
        if self._single is not None or self._cursors:
            self._close()
        connection = self.connection
        if writes is None:
            connection.check_write((shard,))
        try:
            enlisted = connection.enlisted.get(shard) or connection.enlist(shard)
            cursor = enlisted.driver.cursor(*self._arguments, **self._keywords)
            self._single = cursor
            hooks = connection.cluster.hooks
            is_armed = hooks.fail_points is not None  # not even a call, on the way of most
            if is_armed:
                hooks.reach(BEFORE_STATEMENT, shard)
            run = cursor.executemany if is_many else cursor.execute
            if writes is not False and len(connection.enlisted) > 1:
                connection.run_write(shard, partial(run, sql, parameters))
            else:
                run(sql, parameters)
            if is_armed:
                hooks.reach(AFTER_STATEMENT, shard)
        except BaseException as error:
            connection.note_error(shard, error, is_shared=False)
            raise
        self.description = cursor.description
        self.rowcount = cursor.rowcount
        if writes is not False:
            enlisted.note(cursor, is_raw=self._is_raw)

    def _perform_gather(self, decided: Dispatch) -> None:
        """Let the workspace answer; its cursor holds all rows, or streams them."""
        self._close()
        self._dispatch = decided
        self._single = cursor = answer(self.connection, decided, self._name)
        self.description = cursor.description
        self.rowcount = cursor.rowcount

    def _perform_scatter(self, decided: Dispatch) -> None:
        if self._single is not None or self._cursors:
            self._close()
        self._dispatch = decided
        works = decided.works
        if decided.writes is None:
            self.connection.check_write([work.shard for work in works])
        cursors: dict[str, Any] = {}
        if decided.is_timed:
            tell_time(self.connection, works, works[0].shard)
        if decided.is_ordered:
            with failing_alike(self.connection, works[0].shard):
                self.connection.enlist(works[0].shard)
            check_all_known(self.connection.territory)
            self._fan_out(works[:1], cursors)
            works = works[1:]
        self._fan_out(works, cursors)
        self._cursors = [cursors[work.shard] for work in decided.works]
        check_columns_alike(decided, self._cursors)
        described = self._cursors[0].description  # made anew each time that it is asked for
        self.description = described and described[: visible_columns(decided.merge)]
        self._types = [column.type_code for column in described or ()]
        check_types(decided.merge, self._types)
        counts = [cursor.rowcount for cursor in self._cursors]
        if isinstance(decided.merge, FirstCopy):
            counts = counts[:1]
        elif is_merged_whole(decided.merge):
            rows = list(self._rows())
            self._merged = iter(rows)
            counts = [len(rows)]
        elif isinstance(decided.merge, ForeignOrder):
            self._put_in_order(decided)
        self.rowcount = -1 if min(counts) < 0 else sum(counts)

    def _put_in_order(self, decided: Dispatch) -> None:
        """Let the workspace say the order of the rows, which are all here then."""
        arrived = self._arrived(decided)
        if arrived is not None:
            self._merged = in_order(self.connection, decided, arrived)

    def _fan_out(self, works: Sequence[Work], cursors: dict[str, Any]) -> None:
        writes = self._dispatch is not None and self._dispatch.writes
        hooks = self.connection.cluster.hooks

        def perform(work: Work, enlisted: EnlistedShard) -> Any:
            cursor = enlisted.driver.cursor(*self._arguments, **self._keywords)
            cursors[work.shard] = cursor
            hooks.reach(BEFORE_STATEMENT, work.shard)
            if work.is_many:
                cursor.executemany(work.sql, work.parameters)
            else:
                cursor.execute(work.sql, work.parameters)
            hooks.reach(AFTER_STATEMENT, work.shard)
            if writes is not False:
                enlisted.note(cursor, is_raw=self._is_raw)
            return cursor

        try:
            on_shards(self.connection, works, perform)
        except BaseException:
            self._cursors = list(cursors.values())  # to be closed
            raise

    # -- rows --

    def _rows(self, size: int = ROWS_PER_FETCH) -> Iterator[tuple[Any, ...]]:
        if self._merged is None:
            decided = self._dispatch
            if decided is None or decided.merge is None or self.description is None:
                return iter(())
            if decided.setting is not None:
                raise UnsupportedStatement(
                    "what was set for the transaction is not returned, as no shard need have "
                    "joined it yet",
                    "leave the result unread, or read the setting with current_setting()",
                )
            arrived = self._arrived(decided)
            if arrived is not None:
                self._merged = merged(decided.merge, arrived, self._types, decided.values or {})
        assert self._merged is not None
        if self._streamed is not None:
            self._streamed.size = size
        return self._merged

    def _arrived(self, decided: Dispatch) -> Sequence[Iterator[tuple[Any, ...]]] | None:
        """The rows of each shard; None: the workspace has answered, and its rows are the merged.

        A value that Python has no object for, as the date `infinity`, may be a sort key, or in a
        row that is not in the answer: then one PostgreSQL would answer.
        """
        if self._name:
            streamed = StreamedShards(self.connection, decided.works, self._cursors, self._close)
            self._streamed = streamed
            return streamed.rows()
        try:
            return [iter(cursor.fetchall()) for cursor in self._cursors]
        except psycopg.DataError as error:
            if error.sqlstate is not None or self._given is None:
                raise
            self._gather_instead(self._given, decided, error)
            self._cursors, self._single = [self._single], None
            self._merged = iter(self._cursors[0].fetchall())
            return None

    def fetchone(self) -> Any:
        """The next row, or None."""
        self._check_stream()
        if self._single is None:
            return next(self._rows(), None)
        try:
            return self._single.fetchone()
        except psycopg.Error as error:
            self._note_fetch_error(error)
            raise

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows, as many as asked for if there are so many."""
        self._check_stream()
        if self._single is None:
            size = size or self.arraysize
            return list(islice(self._rows(size), size))
        try:
            return self._single.fetchmany(size or self.arraysize)  # type: ignore[no-any-return]
        except psycopg.Error as error:
            self._note_fetch_error(error)
            raise

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        self._check_stream()
        if self._single is None:
            return list(self._rows())
        try:
            return self._single.fetchall()  # type: ignore[no-any-return]
        except psycopg.Error as error:
            self._note_fetch_error(error)
            raise

    def _check_stream(self) -> None:
        if self._name is None:
            return
        if self._has_ended:
            raise InvalidCursorName("the transaction of this server-side cursor has ended")
        self.connection.check_usable()

    def _note_fetch_error(self, error: BaseException) -> None:
        # A server-side cursor computes rows as they are fetched, and may fail then.
        if isinstance(self._single, StreamedAnswer):
            work = self._dispatch.works[0]  # type: ignore[union-attr]
            self.connection.note_error(work.shard, error, is_shared=True)
            return
        name = shard_of(self._single, self.connection.enlisted)
        if name is not None:
            self.connection.note_error(name, error, is_shared=False)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._single) if self._single is not None else self._rows()

    # -- the rest of DBAPI --

    def execute(self, sql: Any, parameters: Any = None, **_: Any) -> ClusterCursor:
        """Run raw SQL without SQLAlchemy: on a cluster of one shard only."""
        self._perform_raw(sql, parameters, is_many=False)
        return self

    def executemany(self, sql: Any, parameters: Any, **_: Any) -> None:
        """Run raw SQL with many parameter sets: on a cluster of one shard only."""
        self._perform_raw(sql, parameters, is_many=True)

    def _perform_raw(self, sql: Any, parameters: Any, *, is_many: bool) -> None:
        self.connection.check_usable()
        shards = tuple(self.connection.cluster.shards)
        if len(shards) > 1:
            raise MissingShardKey(
                "SQL given to the cluster connection's own cursor names no shard",
                'use connection.shard("name"), which is that shard\'s driver connection',
            )
        route = Route(shards, Reason.ONLY_SHARD)
        self.perform(Dispatch([Work(shards[0], sql, parameters, is_many)], route))

    def close(self) -> None:
        """Close the shards' cursors, all of them also where one cannot be reached."""
        self.connection.streams.discard(self)
        self._close()

    async def _async_soft_close(self) -> None:
        """Close nothing, for SQLAlchemy's asyncio: all rows are here, or the cursor streams."""

    def _close(self) -> None:
        self.rowcount = -1  # as the driver's does: it counts no rows any more
        self._streamed = None
        single, self._single = self._single, None
        if single is not None:
            close_cursor(single)
            return
        cursors, self._cursors = self._cursors, ()
        self._merged = None
        with ExitStack() as stack:
            for cursor in cursors:
                stack.callback(close_cursor, cursor)

    def end(self) -> None:
        """Close the server-side cursors, as their transaction has ended."""
        self._has_ended = self._single is not None or bool(self._cursors)
        with suppress(psycopg.Error):
            self._close()

    def abandon(self) -> None:
        """Let go of server-side cursors whose connections are closed, without waiting."""
        for cursor in filter(None, (self._single, *self._cursors)):
            abandon_cursor(cursor)
        self._single, self._cursors = None, ()

    def leave_to_parent(self) -> None:
        """Let go of what a fork brought along."""
        single, self._single = self._single, None
        if isinstance(single, StreamedAnswer):
            single.lease.leave_to_parent()

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as DBAPI allows."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Do nothing, as DBAPI allows."""
