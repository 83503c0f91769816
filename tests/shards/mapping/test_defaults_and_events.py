"""Values that the client or the server makes, and events around a flush."""

from __future__ import annotations

import uuid
from datetime import datetime  # noqa: TC003 - read by SQLAlchemy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Computed,
    FetchedValue,
    Integer,
    String,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.schema import DDL, ForeignKey

from tests.shards.shop import Statements

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

NUMBERS = range(1, 9)

_TRIGGER = (
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN NEW.touched := coalesce(NEW.touched, 0) + 1; RETURN NEW; END'",
    "CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION touch()",
)


def key_from_context(context: Any) -> int:
    """The shard key itself may be made by the client, from the row's other values."""
    return int(context.get_current_parameters()["amount"]) * 10


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Row(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "rows"
        __shard_key__ = "owner"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        owner: Mapped[int] = mapped_column(BigInteger, default=key_from_context)
        amount: Mapped[int] = mapped_column(Integer)
        label: Mapped[str] = mapped_column(
            String, default=lambda context: f"n{context.get_current_parameters()['amount']}"
        )
        status: Mapped[str] = mapped_column(String, server_default="new")
        created: Mapped[datetime] = mapped_column(server_default=func.now())
        sql_default: Mapped[int] = mapped_column(Integer, default=text("20 + 1"))
        changed: Mapped[int | None] = mapped_column(Integer, onupdate=lambda: 99)
        doubled: Mapped[int] = mapped_column(Integer, Computed("amount * 2", persisted=True))
        touched: Mapped[int] = mapped_column(
            Integer, server_default=FetchedValue(), server_onupdate=FetchedValue(), nullable=True
        )
        notes: Mapped[list[Any]] = relationship(
            "Note", cascade="all, delete-orphan", order_by="Note.id"
        )
        __mapper_args__ = {"eager_defaults": True}

    class Note(say.sharded, Base):  # type: ignore[name-defined]
        """Its server defaults are fetched when they are first read."""

        __tablename__ = "notes"
        __shard_key__ = "owner"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        owner: Mapped[int] = mapped_column(BigInteger)
        row_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("rows.id", info={"per_shard": True}))
        status: Mapped[str] = mapped_column(String, server_default="new")
        __mapper_args__ = {"eager_defaults": False}

    class Audit(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "audits"
        __shard_key__ = "owner"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        owner: Mapped[int] = mapped_column(BigInteger)
        action: Mapped[str]

    @event.listens_for(Note, "before_insert")
    def _take_owner(mapper: Any, connection: Any, note: Any) -> None:
        """The shard key may be set as late as here."""
        note.owner = 10 if note.owner is None else note.owner

    def audit(action: str) -> Any:
        def write(mapper: Any, connection: Any, row: Any) -> None:
            connection.execute(insert(Audit), {"owner": row.owner, "action": action})

        return write

    for action in ("insert", "update", "delete"):
        event.listen(Row, f"after_{action}", audit(action))
    for statement in _TRIGGER:
        event.listen(Base.metadata, "after_create", DDL(statement))
    return SimpleNamespace(metadata=Base.metadata, Row=Row, Note=Note, Audit=Audit)


@pytest.fixture
def rows(world: World) -> World:
    with world.session() as session, session.begin():
        session.add_all(world.models.Row(amount=number) for number in NUMBERS)
    return world


def test_defaults_are_there_right_after_the_flush(world: World) -> None:
    m = world.models
    with world.session() as session:
        added = [m.Row(amount=number) for number in NUMBERS]
        session.add_all(added)
        session.flush()
        with Statements(world.engine) as statements:
            found = [
                (row.owner, row.label, row.status, row.sql_default, row.doubled, row.touched)
                for row in added
            ]
            moments = {row.created for row in added}

    assert found == [(n * 10, f"n{n}", "new", 21, n * 2, 1) for n in NUMBERS]
    assert None not in moments
    assert len(statements) == 0


def test_what_the_server_changes_is_fetched_after_an_update(rows: World) -> None:
    m = rows.models
    with rows.session() as session:
        found = session.scalars(select(m.Row).order_by(m.Row.owner)).all()
        for row in found:
            row.amount += 100
        session.flush()
        with Statements(rows.engine) as statements:
            seen = [(row.doubled, row.changed, row.touched) for row in found]

    assert seen == [(2 * (number + 100), 99, 2) for number in NUMBERS]
    assert len(statements) == 0


def test_lazily_fetched_defaults_come_from_the_objects_shard(rows: World) -> None:
    m = rows.models
    with rows.session() as session:
        notes = [m.Note(owner=row.owner, row_id=row.id) for row in session.scalars(select(m.Row))]
        session.add_all(notes)
        session.flush()
        statuses = [note.status for note in notes]

    assert statuses == ["new"] * len(NUMBERS)


def test_events_set_keys_and_write_beside_their_row(rows: World) -> None:
    m = rows.models
    with rows.session() as session:
        first = session.scalars(select(m.Row).where(m.Row.owner == 10)).one()
        session.add(m.Note(row_id=first.id))
        first.amount = 5
        session.flush()
        for row in session.scalars(select(m.Row).where(m.Row.owner > 50)).all():
            session.delete(row)
        session.commit()

    counts = dict.fromkeys(("insert", "update", "delete"), 0)
    for (action,) in rows.rows("SELECT action FROM audits"):
        counts[action] += 1
    assert counts == {"insert": 8, "update": 1, "delete": 3}
    assert rows.rows("SELECT owner FROM notes") == [(10,)]


def test_statements_take_the_same_defaults(world: World) -> None:
    m = world.models
    with world.session() as session:
        bulk = session.execute(
            insert(m.Row).returning(m.Row.owner, m.Row.label, m.Row.doubled),
            [{"amount": number} for number in NUMBERS],
        ).all()
        upsert = pg_insert(m.Row).values(id=uuid.UUID(int=1), owner=70, amount=7)
        session.execute(upsert)
        again = session.execute(
            upsert.on_conflict_do_update(
                index_elements=[m.Row.id], set_={"amount": upsert.excluded.amount + 1}
            ).returning(m.Row.doubled)
        ).scalar_one()
        changed = session.execute(
            update(m.Row).where(m.Row.owner == 20).values(amount=3).returning(m.Row.changed)
        ).scalar_one()
        session.commit()

    assert sorted(bulk) == [(n * 10, f"n{n}", n * 2) for n in NUMBERS]
    assert (again, changed) == (16, 99)
