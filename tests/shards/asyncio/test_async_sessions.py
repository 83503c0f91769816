"""What SQLAlchemy's asyncio sessions and engines do, over shards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, ForeignKey, func, select, text
from sqlalchemy.exc import DBAPIError, IllegalStateChangeError, InvalidRequestError, MissingGreenlet
from sqlalchemy.ext.asyncio import (
    AsyncAttrs,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)

from sqlalchemy_shards import AsyncShardedSession, ShardKeyMixin, create_async_cluster
from sqlalchemy_shards.errors import ConfigurationError
from tests.shards.asyncio.opened import (
    DECLARED,
    Customer,
    Order,
    in_use,
    key_on,
    keys_on,
    opened,
    run,
    sessions,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy_shards import AsyncCluster
    from tests.shards.asyncio.opened import Servers
    from tests.shards.shop import World


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Buyer(ShardKeyMixin, Base):
    __tablename__ = "customers"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]
    purchases: Mapped[list[Purchase]] = relationship(order_by="Purchase.id")


class Purchase(ShardKeyMixin, Base):
    __tablename__ = "orders"
    __shard_key__ = "customer_id"
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    amount: Mapped[int]


def on(cluster: AsyncCluster, shard: str) -> dict[str, Any]:
    return {"execution_options": {"shard": shard}}


class TestSessions:
    def test_a_unit_of_work_over_several_shards(self, spread_shop: World) -> None:
        async def scenario() -> list[Any]:
            async with opened(spread_shop.urls) as cluster:
                async with sessions(cluster).begin() as session:
                    for key in keys_on(cluster, "s0", "s1", "s2"):
                        customer = await session.get_one(Customer, key)
                        customer.name = "new"
                        session.add(Order(customer_id=key, id=key * 1000, amount=9))
                async with sessions(cluster)() as session:
                    statement = select(Customer).where(Customer.name == "new")
                    found = await session.scalars(statement.options(selectinload(Customer.orders)))
                    return [[order.amount for order in each.orders] for each in found]

        assert run(scenario()) == [[1, 2, 9]] * 3

    def test_savepoints(self, spread_shop: World) -> None:
        async def scenario() -> None:
            async with opened(spread_shop.urls) as cluster:
                first, second = keys_on(cluster, "s0", "s1")
                async with sessions(cluster).begin() as session:
                    (await session.get_one(Customer, first)).name = "kept"
                    with pytest.raises(ValueError, match="no"):
                        await self._undo(session, second)

        run(scenario())

        assert spread_shop.rows("SELECT name FROM customers WHERE name IN ('kept', 'undone')") == [
            ("kept",)
        ]

    async def _undo(self, session: AsyncShardedSession, key: int) -> None:
        async with session.begin_nested():
            (await session.get_one(Customer, key)).name = "undone"
            await session.flush()
            raise ValueError("no")

    def test_attributes_are_loaded_when_they_are_awaited(self, spread_shop: World) -> None:
        async def scenario() -> list[int]:
            async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
                buyer = await session.get_one(Buyer, key_on(cluster, "s2"))
                return [each.amount for each in await buyer.awaitable_attrs.purchases]

        assert run(scenario()) == [1, 2]

    def test_an_attribute_that_is_not_awaited_is_refused_by_sqlalchemy(
        self, spread_shop: World
    ) -> None:
        async def scenario() -> None:
            async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
                customer = await session.get_one(Customer, key_on(cluster, "s2"))
                with pytest.raises(MissingGreenlet):
                    customer.orders
                await session.refresh(customer)  # nothing was sent, and nothing is lost
                with pytest.raises(MissingGreenlet):
                    session.sync_session.scalar(select(func.count()).select_from(Customer))
                await session.rollback()
                assert await session.scalar(select(func.count()).select_from(Customer)) == 12

        run(scenario())

    def test_what_is_written_for_ordinary_sessions_runs_in_run_sync(
        self, spread_shop: World
    ) -> None:
        def ordinary(session: Session, key: int) -> tuple[int, int]:
            customer = session.get_one(Customer, key)
            count = session.query(Customer).count()
            return len(customer.orders), count

        async def scenario() -> tuple[int, int]:
            async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
                return await session.run_sync(ordinary, key_on(cluster, "s3"))

        assert run(scenario()) == (2, 12)

    def test_the_driver_connection_is_used_in_run_sync(self, spread_shop: World) -> None:
        def by_hand(session: Session) -> Any:
            driver: Any = session.connection().connection.driver_connection
            return driver.shard("s1").execute("SELECT current_database()").fetchone()

        async def scenario() -> Any:
            async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
                await session.execute(text("SELECT 1"), **on(cluster, "s1"))
                return await session.run_sync(by_hand)

        assert run(scenario())[0].endswith("s1")

    def test_explain_shard_of_and_rehome(self, spread_shop: World) -> None:
        async def scenario() -> tuple[str, str, Any]:
            async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
                customer = await session.get_one(Customer, key_on(cluster, "s2"))
                before = await session.shard_of(customer)
                explained = await session.explain(select(Customer).where(Customer.id == 1))
                return before, str(explained), await cluster.explain(select(Customer))

        before, explained, whole = run(scenario())

        assert before == "s2"
        assert "s" in explained
        assert "s3" in str(whole)

    def test_a_consistent_read(self, clean_shards: dict[str, str]) -> None:
        async def scenario() -> int | None:
            async with opened(clean_shards, consistent_reads=True) as cluster:
                await cluster.create_all(DECLARED.metadata)
                session = AsyncShardedSession(cluster)
                async with session, session.begin_consistent():
                    return await session.scalar(select(func.count()).select_from(Customer))

        assert run(scenario()) == 0

    def test_scoped_sessions(self, spread_shop: World) -> None:
        async def scenario() -> tuple[bool, set[int]]:
            async with opened(spread_shop.urls) as cluster:
                scoped = async_scoped_session(sessions(cluster), scopefunc=asyncio.current_task)

                async def use() -> int:
                    session = scoped()
                    await scoped.scalar(select(func.count()).select_from(Customer))
                    same = scoped() is session
                    await scoped.remove()
                    assert same
                    return id(session)

                found = await asyncio.gather(use(), use(), use())
                return in_use(cluster) == {}, set(found)

        is_free, found = run(scenario())

        assert is_free
        assert len(found) >= 1

    def test_a_plain_session_of_sqlalchemy(self, spread_shop: World) -> None:
        async def scenario() -> list[str]:
            async with opened(spread_shop.urls) as cluster:
                factory = async_sessionmaker(cluster.engine, expire_on_commit=False)
                async with factory.begin() as session:
                    assert type(session) is AsyncSession
                    customers = list(await session.scalars(select(Customer)))
                    for each in customers:
                        each.name = "new"
                return [each.name for each in customers]

        assert run(scenario()) == ["new"] * 12
        assert len(spread_shop.rows("SELECT 1 FROM customers WHERE name = 'new'")) == 12

    def test_two_tasks_that_use_one_session_get_an_error(
        self, spread_shop: World, looking: Servers
    ) -> None:
        options = {"shard": "s1"}

        async def scenario() -> list[Any]:
            async with opened(spread_shop.urls) as cluster:
                session = AsyncShardedSession(cluster)
                await session.execute(text("SELECT 1"), execution_options=options)
                found = await asyncio.gather(
                    session.execute(text("SELECT pg_sleep(0.2)"), execution_options=options),
                    session.execute(text("SELECT pg_sleep(0.2)"), execution_options=options),
                    return_exceptions=True,
                )
                await session.close()
                return found

        errors = [each for each in run(scenario()) if isinstance(each, Exception)]

        assert errors
        assert isinstance(errors[0], (InvalidRequestError, IllegalStateChangeError, DBAPIError))

    def test_two_tasks_that_scatter_in_one_session_get_an_error(self, spread_shop: World) -> None:
        options = {"shard": "*"}

        async def scenario() -> list[Any]:
            async with opened(spread_shop.urls) as cluster:
                session = AsyncShardedSession(cluster)
                await session.execute(text("SELECT 1"), execution_options=options)
                found = await asyncio.gather(
                    session.execute(text("SELECT pg_sleep(0.2)"), execution_options=options),
                    session.execute(text("SELECT pg_sleep(0.2)"), execution_options=options),
                    return_exceptions=True,
                )
                await session.close()
                return found

        assert any(isinstance(each, Exception) for each in run(scenario()))

    def test_many_tasks_on_small_pools(self, spread_shop: World) -> None:
        async def keyed(cluster: AsyncCluster, number: int) -> int:
            async with sessions(cluster)() as session:
                return int((await session.get_one(Customer, number % 12 + 1)).id)

        async def scenario() -> list[int]:
            async with opened(spread_shop.urls, pool_size=1, max_overflow=0) as cluster:
                return await asyncio.gather(*(keyed(cluster, number) for number in range(60)))

        assert run(scenario()) == [number % 12 + 1 for number in range(60)]


class TestStreams:
    def test_rows_arrive_as_they_are_asked_for(self, spread_shop: World) -> None:
        async def scenario() -> list[int]:
            async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
                result = await session.stream(select(Order.id).order_by(Order.id))
                return [order_id async for (order_id,) in result]

        found = run(scenario())

        assert found == [number * 10 + each for number in range(1, 13) for each in (1, 2)]

    def test_closed_early(self, spread_shop: World) -> None:
        async def scenario() -> tuple[list[int], int | None]:
            async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
                result = await session.stream_scalars(select(Order).order_by(Order.id))
                first = [(await result.partitions(3).__anext__())[0].id]
                await result.close()
                return first, await session.scalar(select(func.count()).select_from(Order))

        assert run(scenario()) == ([11], 24)

    def test_left_by_an_error(self, spread_shop: World, looking: Servers) -> None:
        async def scenario() -> None:
            async with opened(spread_shop.urls) as cluster:
                with pytest.raises(ValueError, match="enough"):
                    await self._read_some(cluster)
                assert in_use(cluster) == {}

        run(scenario())

        assert looking.in_transaction() == set()

    async def _read_some(self, cluster: AsyncCluster) -> None:
        async with sessions(cluster)() as session:
            async for _ in await session.stream_scalars(select(Order).order_by(Order.amount)):
                raise ValueError("enough")

    def test_of_a_connection(self, spread_shop: World) -> None:
        async def scenario() -> int:
            async with opened(spread_shop.urls) as cluster, cluster.engine.connect() as connection:
                count = 0
                async with connection.stream(select(Order.id)) as result:
                    async for _ in result:
                        count += 1
                return count

        assert run(scenario()) == 24


class TestEngines:
    def test_of_one_shard(self, spread_shop: World) -> None:
        async def scenario() -> Any:
            async with (
                opened(spread_shop.urls) as cluster,
                cluster.shards["s2"].engine.connect() as connection,
            ):
                return await connection.scalar(text("SELECT current_database()"))

        assert str(run(scenario())).endswith("s2")

    def test_a_second_event_loop_after_the_engine_was_disposed_of(self, spread_shop: World) -> None:
        cluster = create_async_cluster(spread_shop.urls, name="shop")

        async def count() -> int | None:
            async with AsyncShardedSession(cluster) as session:
                found = await session.scalar(select(func.count()).select_from(Customer))
            await cluster.engine.dispose()
            return found

        assert [run(count()), run(count())] == [12, 12]

    def test_by_url(self, spread_shop: World, tmp_path: Path) -> None:
        path = tmp_path / "shards.toml"
        shards = "".join(f'{name} = "{url}"\n' for name, url in spread_shop.urls.items())
        path.write_text(f'[cluster]\nname = "shop"\n[shards]\n{shards}', encoding="utf-8")

        async def scenario() -> Any:
            engine = create_async_engine(f"postgresql+shards:///{path}")
            try:
                async with AsyncSession(engine) as session:
                    return await session.scalar(select(func.count()).select_from(Customer))
            finally:
                await engine.dispose()

        assert run(scenario()) == 12

    def test_where_no_event_loop_of_asyncio_runs(self, spread_shop: World) -> None:
        cluster = create_async_cluster(spread_shop.urls, name="shop")
        connecting = cluster.engine.connect().start()

        with pytest.raises(ConfigurationError, match="trio is not supported"):
            connecting.send(None)

    def test_an_ordinary_cluster_is_refused(self, four_shards: World) -> None:
        with pytest.raises(ConfigurationError, match="create_async_cluster"):
            AsyncShardedSession(four_shards.cluster)  # type: ignore[arg-type]
