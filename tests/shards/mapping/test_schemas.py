"""Schemas, and `schema_translate_map`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    DDL,
    BigInteger,
    ForeignKey,
    MetaData,
    String,
    delete,
    event,
    func,
    select,
    text,
    update,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from sqlalchemy_shards import ShardedSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

USERS = range(1, 9)
SPREAD = pytest.mark.parametrize("world", ["four_shards"], indirect=True)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        metadata = MetaData(schema="sales")

    class Region(say.reference, Base):  # type: ignore[name-defined]
        __tablename__ = "regions"
        __table_args__ = {"schema": "shared"}
        code: Mapped[str] = mapped_column(String(8), primary_key=True)

    class User(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        region_code: Mapped[str] = mapped_column(ForeignKey("shared.regions.code"))
        region: Mapped[Region] = relationship()
        orders: Mapped[list[Any]] = relationship(
            "Order", order_by="Order.id", cascade="all, delete-orphan"
        )

    class Order(say.sharded, Base):  # type: ignore[name-defined]
        """A table of the same name in another schema."""

        __tablename__ = "orders"
        __shard_key__ = "user_id"
        user_id: Mapped[int] = mapped_column(ForeignKey("sales.users.id"), primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)

    class OldOrder(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "orders"
        __table_args__ = {"schema": "archive"}
        __shard_key__ = "user_id"
        user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)

    # Never created by its own name, so it is of another MetaData.
    class Translated(DeclarativeBase):
        metadata = MetaData(schema="per_customer")

    class Note(say.sharded, Translated):  # type: ignore[name-defined]
        __tablename__ = "notes"
        __shard_key__ = "user_id"
        user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        text: Mapped[str] = mapped_column(String)
        lines: Mapped[list[Any]] = relationship(
            "Line",
            primaryjoin="and_(Note.user_id == foreign(Line.user_id), "
            "Note.id == foreign(Line.note_id))",
            order_by="Line.id",
            cascade="all, delete-orphan",
        )

    class Line(say.sharded, Translated):  # type: ignore[name-defined]
        __tablename__ = "lines"
        __shard_key__ = "user_id"
        user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        note_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)

    schemas = ("sales", "shared", "archive", "customer_a", "customer_b")
    for schema in schemas:
        event.listen(Base.metadata, "before_create", DDL(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    for schema in ("customer_a", "customer_b"):
        for table, columns in (
            ("notes", "user_id bigint, id bigint, text varchar, PRIMARY KEY (user_id, id)"),
            ("lines", "user_id bigint, note_id bigint, id bigint"),
        ):
            event.listen(
                Base.metadata, "after_create", DDL(f"CREATE TABLE {schema}.{table} ({columns})")
            )
    return SimpleNamespace(
        metadata=Base.metadata,
        Region=Region,
        User=User,
        Order=Order,
        OldOrder=OldOrder,
        Note=Note,
        Line=Line,
    )


def translating(world: World, schema: str) -> Any:
    """A session whose connection translates the schema."""
    engine = world.engine.execution_options(schema_translate_map={"per_customer": schema})
    return Session(engine) if world.cluster is None else ShardedSession(bind=engine)


@pytest.mark.parametrize("loader", [joinedload, selectinload])
def test_tables_of_several_schemas(world: World, loader: Callable[..., Any]) -> None:
    m = world.models
    with world.session() as session:
        session.add(m.Region(code="n"))
        session.flush()
        for number in USERS:
            orders = [m.Order(id=each) for each in (1, 2)]
            session.add(m.User(id=number, region_code="n", orders=orders))
            session.add(m.OldOrder(user_id=number, id=7))
        session.commit()
        session.expunge_all()
        users = session.scalars(
            select(m.User)
            .options(loader(m.User.orders), joinedload(m.User.region))
            .order_by(m.User.id)
        ).unique()
        found = [(user.region.code, len(user.orders)) for user in users]
        old = session.scalars(
            select(m.OldOrder.id)
            .join(m.Order, m.OldOrder.user_id == m.Order.user_id)
            .where(m.Order.id == 1)
        ).all()
        session.delete(session.get(m.User, 3))
        session.commit()

    assert found == [("n", 2)] * len(USERS)
    assert old == [7] * len(USERS)
    assert len(world.rows("SELECT * FROM sales.orders")) == 14


@pytest.mark.parametrize("schema", ["customer_a", "customer_b"])
def test_a_translated_schema_is_written_and_read(world: World, schema: str) -> None:
    m = world.models
    with translating(world, schema) as session:
        session.add_all(
            m.Note(user_id=number, id=1, text="new", lines=[m.Line(id=1), m.Line(id=2)])
            for number in USERS
        )
        session.commit()
        notes = session.scalars(
            select(m.Note).options(selectinload(m.Note.lines)).order_by(m.Note.user_id)
        ).all()
        sizes = [len(note.lines) for note in notes]
        for note in notes:
            note.text = "changed"
            note.lines.pop()
        session.commit()
        session.execute(update(m.Note).where(m.Note.user_id.in_([1, 2])).values(text="bulk"))
        session.delete(session.get(m.Note, (8, 1)))
        count = session.scalar(select(func.count()).select_from(m.Line))
        session.commit()

    assert sizes == [2] * len(USERS)
    assert count == 7
    assert len(world.rows(f"SELECT * FROM {schema}.notes WHERE text = 'bulk'")) == 2
    other = "customer_b" if schema == "customer_a" else "customer_a"
    assert world.rows(f"SELECT * FROM {other}.notes") == []


def test_one_statement_is_translated_by_its_own_option(world: World) -> None:
    m = world.models
    maps = [{"per_customer": schema} for schema in ("customer_a", "customer_b")]
    with world.session() as session:
        for number, each in enumerate(maps):
            session.connection(execution_options={"schema_translate_map": each})
            session.add_all(m.Note(user_id=n, id=number, text=f"{number}") for n in USERS)
            session.commit()
        found = [
            session.execute(
                select(m.Note.user_id, m.Note.text).order_by(m.Note.user_id).limit(3),
                execution_options={"schema_translate_map": each},
            ).all()
            for each in maps
        ]

    assert found == [[(n, f"{number}") for n in (1, 2, 3)] for number in (0, 1)]


@pytest.mark.parametrize("schema", ["customer_a", "customer_b"])
@SPREAD
def test_rows_are_copied_into_and_out_of_a_translated_schema(
    world: World, schema: str, tmp_path: Path
) -> None:
    m, file = world.models, tmp_path / "notes.csv"
    rows = [(number, 1, f"note {number}") for number in range(1, 101)]
    with translating(world, schema) as session:
        counts = [session.copy_from(m.Note, rows).rows]
        ordered = select(m.Note).order_by(m.Note.user_id)
        given = list(session.copy_to(ordered.with_only_columns(*m.Note.__table__.c)))
        counts.append(session.copy_to(m.Note, file))
        session.commit()
        session.execute(delete(m.Note), execution_options={"shard": "*"})
        counts.append(session.copy_from(m.Note, file).rows)
        session.commit()

    other = "customer_b" if schema == "customer_a" else "customer_a"
    assert counts == [len(rows)] * 3
    assert given == rows
    assert world.rows(f"SELECT * FROM {schema}.notes") == rows
    assert world.rows(f"SELECT * FROM {other}.notes") == []
    for shard, found in world.rows_by_shard(f"SELECT user_id FROM {schema}.notes").items():
        assert {world.cluster.shard_for(m.Note, key) for (key,) in found} == {shard}


@SPREAD
def test_copies_of_a_reference_table_are_written_in_a_translated_schema(world: World) -> None:
    m, everywhere = world.models, {"shard": "*"}
    engine = world.engine.execution_options(schema_translate_map={"shared": "archive"})
    with ShardedSession(bind=engine) as session:
        created = text("CREATE TABLE archive.regions (code varchar(8) PRIMARY KEY)")
        session.execute(created, execution_options=everywhere)
        result = session.copy_from(m.Region, [("n",), ("s",)])
        copies = session.execute(
            text("SELECT count(*) FROM archive.regions"), execution_options={"shard": "s2"}
        )
        found = copies.scalar()
        given = sorted(session.copy_to(m.Region))
        session.rollback()

    assert (result.rows, found) == (2, 2)
    assert given == [("n",), ("s",)]
    assert world.rows("SELECT * FROM shared.regions") == []


@SPREAD
def test_copy_to_translates_by_the_statements_own_option(world: World, tmp_path: Path) -> None:
    m, file = world.models, tmp_path / "notes.csv"
    option = {"schema_translate_map": {"per_customer": "customer_a"}}
    with translating(world, "customer_b") as session:
        session.copy_from(m.Note, [(number, 1, "b") for number in USERS])
        written = session.copy_to(m.Note, file, execution_options=option)
        given = list(session.copy_to(m.Note, execution_options=option))

    assert (written, given) == (0, [])
