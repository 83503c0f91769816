"""`AsyncShardedSession`: SQLAlchemy's asyncio session over an `AsyncCluster`.

All of its work is done by a `ShardedSession` in a greenlet, as SQLAlchemy's own does it; what that
adds to `Session` is here as coroutines.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from sqlalchemy.util import greenlet_spawn

from sqlalchemy_shards._compat import await_only
from sqlalchemy_shards.cluster.async_cluster import AsyncCluster
from sqlalchemy_shards.connections.event_loop import running_loop
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.session.copying import Executed, arrow_out
from sqlalchemy_shards.session.session import ShardedSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.orm import Mapper
    from sqlalchemy.orm.interfaces import ORMOption
    from sqlalchemy.sql.selectable import ForUpdateParameter
    from typing_extensions import Self

    from sqlalchemy_shards.cluster.copying.arrow_batches import RecordBatches
    from sqlalchemy_shards.cluster.copying.copy_from import CopyResult
    from sqlalchemy_shards.cluster.copying.csv_format import CsvFormat
    from sqlalchemy_shards.cluster.explain.explanation import Explanation

T = TypeVar("T")
_NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})
_ROWS_AT_A_TIME: Final = 500


class AsyncShardedSession(AsyncSession):
    """An ``AsyncSession`` of SQLAlchemy on an asyncio cluster.

    :param cluster: the cluster.
    :param bind: a connection of the cluster's engine, in place of ``cluster``: for a test's outer
        transaction.
    :param session_arguments: those of `ShardedSession`.
    :raises ConfigurationError: neither is given, or the cluster is not one for asyncio.
    """

    sync_session_class = ShardedSession
    sync_session: ShardedSession

    def __init__(
        self,
        cluster: AsyncCluster | None = None,
        *,
        bind: AsyncEngine | AsyncConnection | None = None,
        **session_arguments: Any,
    ) -> None:
        if cluster is not None and not isinstance(cluster, AsyncCluster):
            raise ConfigurationError(
                f"an AsyncShardedSession was given a {type(cluster).__name__}",
                "create the cluster with create_async_cluster(), or use ShardedSession",
            )
        if bind is None:
            if cluster is None:
                raise ConfigurationError(
                    "an AsyncShardedSession needs a cluster",
                    "create it with AsyncShardedSession(cluster), or "
                    "async_sessionmaker(class_=AsyncShardedSession, cluster=cluster)",
                )
            bind = cluster.engine
        super().__init__(bind=bind, **session_arguments)

    async def __aenter__(self) -> Self:
        running_loop()  # or SQLAlchemy's own error of a missing loop would hide ours
        return await super().__aenter__()

    def begin_consistent(self, shards: Iterable[str] | None = None) -> AsyncSessionTransaction:
        """Begin a transaction that sees every distributed transaction wholly or not at all.

        As ``begin()``: to be awaited, or an asynchronous context manager. Arguments and errors are
        those of `ShardedSession.begin_consistent`.
        """
        return _ConsistentTransaction(self, shards)

    async def get_many(
        self,
        entity: type[T] | Mapper[T],
        keys: Iterable[Any],
        *,
        options: Sequence[ORMOption] | None = None,
        populate_existing: bool = False,
        with_for_update: ForUpdateParameter = None,
        execution_options: Mapping[str, Any] = _NO_OPTIONS,
    ) -> list[T | None]:
        """Return the objects with many primary keys, as ``get()`` returns each.

        Arguments and errors are those of `ShardedSession.get_many`.
        """
        return await greenlet_spawn(
            self.sync_session.get_many,
            entity,
            keys,
            options=options,
            populate_existing=populate_existing,
            with_for_update=with_for_update,
            execution_options=execution_options,
        )

    async def explain(
        self,
        statement: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        analyze: bool = False,
        **options: Any,
    ) -> Explanation:
        """Tell where a statement would run and how its result would be made.

        Arguments are those of `ShardedSession.explain`.
        """
        return await greenlet_spawn(
            self.sync_session.explain, statement, parameters, analyze=analyze, **options
        )

    async def shard_of(self, instance: Any) -> str:
        """Name of the shard that an object's row is stored on: `ShardedSession.shard_of`."""
        return await greenlet_spawn(self.sync_session.shard_of, instance)

    async def rehome(self, instance: Any, **new_key: Any) -> None:
        """Move an object to another shard key, with all rows that hang on it by that key.

        Arguments and errors are those of `ShardedSession.rehome`.
        """
        await greenlet_spawn(self.sync_session.rehome, instance, **new_key)

    async def copy_from(
        self,
        model: Any,
        rows: Any,
        *,
        columns: Sequence[str] | None = None,
        progress: Callable[[int], object] | None = None,
        csv: CsvFormat | None = None,
    ) -> CopyResult:
        """Copy rows into a table by binary COPY, each to the shard of its key.

        Arguments and errors are those of `ShardedSession.copy_from`.

        :param rows: may be an asynchronous iterable, too.
        """
        return await greenlet_spawn(
            self.sync_session.copy_from,
            model,
            _awaited(rows) if isinstance(rows, AsyncIterable) else rows,
            columns=columns,
            progress=progress,
            csv=csv,
        )

    async def copy_to(
        self,
        source: Any,
        target: Any = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        csv: CsvFormat | None = None,
        arrow: bool = False,
        progress: Callable[[int], object] | None = None,
        execution_options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Give the rows of a SELECT or of a table, in constant memory.

        Arguments and errors are those of `ShardedSession.copy_to`.

        :returns: how many rows were written into ``target``; without one, an asynchronous iterator
            of tuples; with ``arrow=True`` `AsyncRecordBatches`, as Arrow's own reader cannot await.
        """
        if arrow and target is None:
            execute = Executed(self.sync_session, source, parameters or {}, execution_options or {})
            return AsyncRecordBatches(await greenlet_spawn(arrow_out, execute))
        given = await greenlet_spawn(
            self.sync_session.copy_to,
            source,
            target,
            parameters,
            csv=csv,
            arrow=arrow,
            progress=progress,
            execution_options=execution_options,
        )
        return given if target is not None else _given_async(given)


def _awaited(rows: AsyncIterable[Any]) -> Iterator[Any]:
    """Rows of an asynchronous iterable, for whoever reads them in a greenlet."""
    iterator = aiter(rows)
    while True:
        try:
            row = await_only(anext(iterator))
        except StopAsyncIteration:
            return
        yield row


async def _given_async(rows: Iterator[Any]) -> AsyncIterator[Any]:
    while some := await greenlet_spawn(lambda: list(islice(rows, _ROWS_AT_A_TIME))):
        for row in some:
            yield row


class AsyncRecordBatches:
    """Record batches of Arrow, for ``async for``: each is made of rows that were awaited.

    :ivar schema: theirs, a ``pyarrow.Schema``.
    """

    def __init__(self, given: RecordBatches) -> None:
        self.schema = given.schema
        self._batches = given.batches

    def __aiter__(self) -> Self:
        """Be its own iterator: they are read once."""
        return self

    async def __anext__(self) -> Any:
        """The next ``pyarrow.RecordBatch``."""
        batch = await greenlet_spawn(next, self._batches, None)
        if batch is None:
            raise StopAsyncIteration
        return batch


class _ConsistentTransaction(AsyncSessionTransaction):
    """A transaction that takes the snapshots of all shards when it is started."""

    __slots__ = ("_shards",)

    def __init__(self, session: AsyncShardedSession, shards: Iterable[str] | None) -> None:
        super().__init__(session)
        self._shards = shards

    async def start(self, is_ctxmanager: bool = False) -> Self:
        await super().start(is_ctxmanager)
        session: Any = self.session.sync_session
        await greenlet_spawn(session.take_snapshots, self._shards)
        return self
