"""Attributes with other names than their columns, and columns that are loaded later."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, Column, String, Table, Uuid, func, insert, select, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import (
    Bundle,
    DeclarativeBase,
    Mapped,
    defer,
    deferred,
    load_only,
    mapped_column,
    registry,
    relationship,
    selectinload,
    undefer_group,
)
from sqlalchemy.schema import ForeignKey

from sqlalchemy_shards import ShardedSession

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

OWNERS = range(1, 9)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Owner(say.sharded, Base):  # type: ignore[name-defined]
        """The shard key is `number` in Python, "ownerId" in the database."""

        __tablename__ = "Owners"
        __shard_key__ = "number"
        number: Mapped[int] = mapped_column(
            "ownerId", BigInteger, primary_key=True, autoincrement=False
        )
        called: Mapped[str] = mapped_column("user name", String)
        things: Mapped[list[Any]] = relationship("Thing", order_by="Thing.label")

    class Thing(say.sharded, Base):  # type: ignore[name-defined]
        """Neither key has its column's name, and the primary key lacks the shard key."""

        __tablename__ = "things"
        __shard_key__ = "of"
        ident: Mapped[uuid.UUID] = mapped_column("id", Uuid, primary_key=True, default=uuid.uuid4)
        of: Mapped[int] = mapped_column("owner", ForeignKey("Owners.ownerId"))
        label: Mapped[str] = mapped_column("select", String)
        essay: Mapped[str | None] = mapped_column("essay_text", deferred=True)
        front: Mapped[str | None] = deferred(mapped_column(String), group="photos")
        back: Mapped[str | None] = deferred(mapped_column(String), group="photos")
        secret: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)

    class Prefixed:
        """Every attribute has a prefix that its column lacks; columns have keys, too."""

    table = Table(
        "prefixed",
        Base.metadata,
        Column("tenant", BigInteger, primary_key=True, autoincrement=False, key="tenant_key"),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("text", String, key="content"),
    )
    registry(metadata=Base.metadata).map_imperatively(Prefixed, table, column_prefix="c_")
    say.shard_table(Prefixed, "c_tenant_key")
    return SimpleNamespace(metadata=Base.metadata, Owner=Owner, Thing=Thing, Prefixed=Prefixed)


@pytest.fixture
def owners(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        for number in OWNERS:
            session.add(m.Owner(number=number, called=f"owner {number}"))
            session.flush()
            session.add_all(
                m.Thing(
                    of=number,
                    label=label,
                    essay=f"essay {number}",
                    front="f",
                    back="b",
                    secret="s",
                )
                for label in ("a", "b")
            )
    return world


def test_renamed_attributes_are_written_loaded_and_queried(owners: World) -> None:
    m = owners.models
    with owners.session() as session:
        found = session.scalars(
            select(m.Owner).options(selectinload(m.Owner.things)).order_by(m.Owner.number)
        ).all()
        seen = [(each.called, [thing.label for thing in each.things]) for each in found]
        one = session.scalars(select(m.Thing.label).filter_by(of=5, label="b")).one()
        session.get(m.Owner, 6).called = "changed"
        session.commit()
        again = session.get(m.Owner, 6).called

    assert seen == [(f"owner {number}", ["a", "b"]) for number in OWNERS]
    assert (one, again) == ("b", "changed")


def test_statements_by_attribute_and_by_column(owners: World) -> None:
    m = owners.models
    columns = m.Owner.__table__.c
    with owners.session() as session:
        session.execute(insert(m.Owner), [{"number": n, "called": "bulk"} for n in (20, 21, 22)])
        session.execute(
            insert(m.Owner.__table__), [{"ownerId": n, "user name": "core"} for n in (30, 31)]
        )
        session.execute(update(m.Owner).where(m.Owner.number == 20).values(called="x"))
        session.execute(
            update(m.Owner.__table__).where(columns.ownerId == 30).values({"user name": "y"})
        )
        session.bulk_update_mappings(m.Owner, [{"number": 21, "called": "z"}])
        session.commit()
        rows = session.execute(
            select(Bundle("both", m.Owner.number, m.Owner.called))
            .where(m.Owner.number >= 20)
            .order_by(m.Owner.number)
        ).scalars()
        found = [tuple(each) for each in rows]

    assert found == [(20, "x"), (21, "z"), (22, "bulk"), (30, "y"), (31, "core")]


def test_the_shard_of_renamed_keys(owners: World) -> None:
    m = owners.models
    with owners.session() as session:
        things = session.scalars(select(m.Thing)).all()
        shards = {
            (session.shard_of(thing), session.cluster.shard_for(m.Owner, thing.of))
            for thing in things
            if isinstance(session, ShardedSession)
        }

    assert len(things) == 16
    assert all(one == other for one, other in shards)


def test_deferred_columns_and_groups_load_where_the_object_lives(owners: World) -> None:
    m = owners.models
    with owners.session() as session:
        things = session.scalars(select(m.Thing).order_by(m.Thing.of, m.Thing.ident)).all()
        unloaded = {"essay", "front"} & set(things[0].__dict__)
        essays = [thing.essay for thing in things]
        things[0].front
        group = "back" in things[0].__dict__
        eager = session.scalars(
            select(m.Thing)
            .options(undefer_group("photos"))
            .execution_options(populate_existing=True)
        ).all()
        loaded = all("back" in thing.__dict__ for thing in eager)

        with pytest.raises(InvalidRequestError, match="secret"):
            things[0].secret

    assert (unloaded, group, loaded) == (set(), True, True)
    assert essays == [f"essay {number}" for number in OWNERS for _ in (1, 2)]


def test_partial_objects_are_completed_and_changed(owners: World) -> None:
    m = owners.models
    with owners.session() as session:
        partial = session.scalars(select(m.Thing).options(load_only(m.Thing.label))).all()
        unloaded = all("essay" not in thing.__dict__ for thing in partial)
        for thing in partial:
            thing.label = thing.label * 2
        session.flush()
        session.expunge_all()
        without = session.scalars(select(m.Thing).options(defer(m.Thing.label))).all()
        labels = {thing.label for thing in without}

    assert unloaded
    assert labels == {"aa", "bb"}


def test_prefixed_attributes_and_column_keys(world: World) -> None:
    m = world.models
    with world.session() as session:
        for number in OWNERS:
            row = m.Prefixed()
            row.c_tenant_key, row.c_id, row.c_content = number, 1, "new"
            session.add(row)
        session.commit()
        rows = session.scalars(select(m.Prefixed).order_by(m.Prefixed.c_tenant_key)).all()
        for row in rows:
            row.c_content = f"text {row.c_tenant_key}"
        session.commit()
        one = session.scalars(select(m.Prefixed).where(m.Prefixed.c_tenant_key == 3)).one()
        session.delete(session.get(m.Prefixed, (4, 1)))
        session.flush()
        count = session.scalar(select(func.count()).select_from(m.Prefixed))
        session.commit()
        text = one.c_content

    assert (text, count) == ("text 3", 7)
    assert world.rows("SELECT text FROM prefixed WHERE tenant = 5") == [("text 5",)]
