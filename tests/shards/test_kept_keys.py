"""A statement that writes the shard key which is there already changes nothing about it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, ForeignKey, Uuid, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import DeclarativeBase, mapped_column, relationship

from sqlalchemy_shards import ShardedSession, ShardKeyMixin, create_cluster
from sqlalchemy_shards.errors import ShardKeyChanged
from tests.databases import ask
from tests.shards.shop import CUSTOMERS

if TYPE_CHECKING:
    from tests.shards.shop import World

KEYS = [uuid.UUID(int=number) for number in CUSTOMERS]


@pytest.fixture
def documents(world: World) -> World:
    """One document of each customer, whose primary key does not tell the shard."""
    with world.session() as session, session.begin():
        session.add_all(
            world.models.Document(id=key, owner_id=number, title="old", body="b")
            for number, key in zip(CUSTOMERS, KEYS, strict=True)
        )
    return world


@pytest.fixture
def spread_documents(four_shards: World) -> World:
    with four_shards.session() as session, session.begin():
        session.add_all(
            four_shards.models.Document(id=key, owner_id=number, title="old")
            for number, key in zip(CUSTOMERS, KEYS, strict=True)
        )
    return four_shards


def titles(world: World) -> list[tuple[Any, ...]]:
    return world.rows("SELECT owner_id, title FROM documents WHERE title <> 'old'")


def whole_rows() -> list[dict[str, Any]]:
    return [
        {"id": key, "owner_id": number, "title": "new"}
        for number, key in zip(CUSTOMERS, KEYS, strict=True)
    ]


def elsewhere(world: World, owner: int) -> int:
    """Another owner whose documents lie on another shard than this one's."""
    assert world.cluster is not None
    home = world.cluster.shard_for(world.models.Document, owner)
    return next(
        number
        for number in CUSTOMERS
        if world.cluster.shard_for(world.models.Document, number) != home
    )


class TestObjects:
    @pytest.mark.parametrize("count", [1, len(CUSTOMERS)])
    def test_an_object_takes_the_place_of_a_deleted_one(self, documents: World, count: int) -> None:
        m = documents.models
        with documents.session() as session:
            for old in session.scalars(select(m.Document).where(m.Document.id.in_(KEYS[:count]))):
                session.delete(old)
                session.add(m.Document(id=old.id, owner_id=old.owner_id, title="new"))
            session.commit()

        assert titles(documents) == [(number, "new") for number in CUSTOMERS[:count]]

    def test_one_of_another_key_does_not(self, spread_documents: World) -> None:
        m = spread_documents.models
        with spread_documents.session() as session:
            old = session.get(m.Document, KEYS[0])
            session.delete(old)
            session.add(m.Document(id=old.id, owner_id=elsewhere(spread_documents, 1), title="new"))
            with pytest.raises(ShardKeyChanged):
                session.flush()

        assert titles(spread_documents) == []

    @pytest.mark.parametrize("count", [1, 2])
    def test_nor_where_somebody_else_has_moved_the_row(
        self, spread_documents: World, count: int
    ) -> None:
        """What the session has seen is a hint, and not believed where no row is found."""
        world, m = spread_documents, spread_documents.models
        with world.session() as session:
            olds = session.scalars(select(m.Document).where(m.Document.id.in_(KEYS[:count]))).all()
            with world.session() as other, other.begin():
                other.rehome(other.get(m.Document, KEYS[0]), owner_id=elsewhere(world, 1))
            for old in olds:
                session.delete(old)
                session.add(m.Document(id=old.id, owner_id=old.owner_id, title="new"))
            with pytest.raises(ShardKeyChanged):
                session.flush()

        assert titles(world) == []

    def test_a_merged_object_that_holds_the_whole_row(self, documents: World) -> None:
        m = documents.models
        with documents.session() as session:
            for number, key in zip(CUSTOMERS, KEYS, strict=True):
                session.merge(m.Document(id=key, owner_id=number, title="new"))
            session.commit()

        assert titles(documents) == [(number, "new") for number in CUSTOMERS]

    @pytest.mark.parametrize("how", ["update", "mappings"])
    def test_rows_updated_by_primary_key(self, shop: World, how: str) -> None:
        m = shop.models
        rows = [{"id": number, "name": f"n{number}", "version": 1} for number in CUSTOMERS]
        with shop.session() as session:
            if how == "update":
                session.execute(update(m.Customer), rows)
            else:
                session.bulk_update_mappings(m.Customer, rows)
            session.commit()

        assert shop.rows("SELECT id, name FROM customers") == [
            (number, f"n{number}") for number in CUSTOMERS
        ]

    def test_whole_rows_updated_by_a_primary_key_without_the_shard_key(
        self, documents: World
    ) -> None:
        m = documents.models
        with documents.session() as session:
            held = session.scalars(select(m.Document)).all()
            session.bulk_update_mappings(m.Document, whole_rows())
            session.commit()

            assert {each.title for each in held} == {"new"}
        assert titles(documents) == [(number, "new") for number in CUSTOMERS]

    def test_nothing_tells_the_key_of_such_rows_that_are_not_loaded(
        self, spread_documents: World
    ) -> None:
        m = spread_documents.models
        with spread_documents.session() as session, pytest.raises(ShardKeyChanged):
            session.bulk_update_mappings(m.Document, whole_rows())

        assert titles(spread_documents) == []


class TestStatements:
    def test_one_row(self, documents: World) -> None:
        m = documents.models
        statement = update(m.Document).where(m.Document.owner_id == 5, m.Document.id == KEYS[4])
        with documents.session() as session:
            result = session.execute(statement.values(owner_id=5, title="new"))
            session.commit()

        assert result.rowcount == 1
        assert titles(documents) == [(5, "new")]

    def test_many_rows(self, documents: World) -> None:
        table = documents.models.Document.__table__
        statement = update(table).where(table.c.owner_id == bindparam("owner"))
        sets = [{"owner": n, "owner_id": n, "title": f"n{n}"} for n in CUSTOMERS]
        with documents.engine.begin() as connection:
            result = connection.execute(statement, sets)

        assert result.rowcount == len(CUSTOMERS)
        assert titles(documents) == [(number, f"n{number}") for number in CUSTOMERS]

    def test_many_rows_of_which_one_would_move(self, spread_documents: World) -> None:
        table = spread_documents.models.Document.__table__
        statement = update(table).where(table.c.owner_id == bindparam("owner"))
        sets = [{"owner": n, "owner_id": 1 if n == 9 else n, "title": "new"} for n in CUSTOMERS]
        with spread_documents.engine.connect() as connection:
            with pytest.raises(ShardKeyChanged):
                connection.execute(statement, sets)
            connection.commit()

        assert titles(spread_documents) == []

    @pytest.mark.parametrize(
        "where",
        [
            lambda d: d.owner_id.in_([5, 6]),
            lambda d: d.owner_id > 4,
            lambda d: (d.owner_id == 5) | (d.title == "old"),
            lambda d: d.owner_id != 5,
            lambda d: d.title == "old",
            lambda d: d.id == KEYS[4],
        ],
    )
    def test_a_where_clause_that_does_not_demand_the_value(
        self, spread_documents: World, where: Any
    ) -> None:
        document = spread_documents.models.Document
        statement = update(document).where(where(document)).values(owner_id=5, title="new")
        with spread_documents.session() as session, pytest.raises(ShardKeyChanged):
            session.execute(statement, execution_options={"shard": "*"})

    def test_an_option_does_not_make_a_hint_a_demand(self, spread_documents: World) -> None:
        world, document = spread_documents, spread_documents.models.Document
        statement = update(document).where(document.id == KEYS[4]).values(owner_id=5, title="new")
        with world.session() as session:
            held = session.get(document, KEYS[4])
            with pytest.raises(ShardKeyChanged):
                session.execute(statement, execution_options={"shard": "*"})
            session.execute(statement)
            session.commit()

            assert held.title == "new"


class TestConflicts:
    @pytest.mark.parametrize("count", [1, 5])
    def test_the_inserted_key_may_be_set_again(self, shop: World, count: int) -> None:
        """As it is often written: the same values to insert and to set."""
        m = shop.models
        with shop.session() as session:
            for number in CUSTOMERS[:count]:
                row = {"id": number, "name": "again", "version": 1}
                statement = upsert(m.Customer).values(row)
                session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=row))
            session.commit()

        assert len(shop.rows("SELECT 1 FROM customers WHERE name = 'again'")) == count

    def test_another_key_may_not(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = upsert(m.Customer).values(
            [{"id": 1, "name": "x", "version": 1}, {"id": 2, "name": "x", "version": 1}]
        )
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"id": 1})
        with spread_shop.session() as session, pytest.raises(ShardKeyChanged):
            session.execute(statement)

        assert ask(spread_shop.urls["s0"], "SELECT 1 FROM customers WHERE name = 'x'") == []


def test_a_key_that_becomes_null_is_told_as_such(spread_documents: World) -> None:
    m = spread_documents.models
    told = "NULL would be written into shard-key column 'owner_id' of table 'documents', .*delete-o"
    with spread_documents.session() as session:
        document = session.get(m.Document, KEYS[0])
        assert document is not None
        document.owner_id = None
        with pytest.raises(ShardKeyChanged, match=told):
            session.flush()
        session.rollback()
        nulled = update(m.Document).where(m.Document.owner_id == 1).values(owner_id=None)
        with pytest.raises(ShardKeyChanged, match=told):
            session.execute(nulled)


def test_an_object_that_is_taken_out_of_a_relationship_is_told_as_a_null(
    clean_shards: dict[str, str],
) -> None:
    class Base(DeclarativeBase):
        pass

    class Account(ShardKeyMixin, Base):
        __tablename__ = "accounts"
        __shard_key__ = "id"
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        transfers = relationship("Transfer")

    class Transfer(ShardKeyMixin, Base):
        __tablename__ = "transfers"
        __shard_key__ = "account_id"
        id = mapped_column(Uuid, primary_key=True)
        account_id = mapped_column(ForeignKey("accounts.id"), nullable=False)

    cluster = create_cluster(clean_shards, name="shop")
    cluster.create_all(Base.metadata)
    with ShardedSession(cluster) as session:
        account = Account(id=1, transfers=[Transfer(id=KEYS[0]), Transfer(id=KEYS[1])])
        session.add(account)
        session.flush()
        account.transfers.clear()
        with pytest.raises(ShardKeyChanged, match=r"NULL would be written .*'account_id'"):
            session.flush()
    cluster.dispose()
