"""Relationships of other shapes: write-only, dynamic, view-only, keyed, by a condition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, ForeignKeyConstraint, String, and_, select
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    column_keyed_dict,
    contains_eager,
    foreign,
    joinedload,
    keyfunc_mapping,
    mapped_column,
    relationship,
    remote,
    selectinload,
    subqueryload,
)
from sqlalchemy.schema import ForeignKey

from sqlalchemy_shards.errors import ShardKeyChanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

HOSTS = range(1, 9)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Host(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "hosts"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str]
        events: WriteOnlyMapped["Event"] = relationship(  # noqa: UP037
            cascade="all, delete-orphan", passive_deletes=True, order_by="Event.id"
        )
        alarms: DynamicMapped["Alarm"] = relationship(  # noqa: UP037
            cascade="all, delete-orphan", order_by="Alarm.id"
        )

    class OfHost(say.sharded, Base):  # type: ignore[name-defined]
        __abstract__ = True
        __shard_key__ = "host_id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        text: Mapped[str] = mapped_column(String, default="")

    class Event(OfHost):
        __tablename__ = "events"
        host_id: Mapped[int] = mapped_column(
            ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True
        )

    class Alarm(OfHost):
        __tablename__ = "alarms"
        host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), primary_key=True)
        level: Mapped[int] = mapped_column(default=0)

    class Disk(OfHost):
        """No foreign key at all: related by conditions."""

        __tablename__ = "disks"
        host_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        size: Mapped[int]

    class Setting(OfHost):
        __tablename__ = "settings"
        __table_args__ = (ForeignKeyConstraint(["host_id"], ["hosts.id"], ondelete="CASCADE"),)
        host_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        name: Mapped[str]
        host: Mapped[Host] = relationship(back_populates="settings")

    class Licence(OfHost):
        __tablename__ = "licences"
        host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), primary_key=True)

    Host.disks = relationship(
        Disk,
        primaryjoin=foreign(Disk.host_id) == Host.id,
        order_by=Disk.size.desc(),
        cascade="all, delete-orphan",
    )
    Host.big_disks = relationship(
        Disk,
        primaryjoin=and_(Host.id == foreign(remote(Disk.host_id)), Disk.size > 10),
        order_by=Disk.id,
        viewonly=True,
    )
    Host.settings = relationship(
        Setting,
        back_populates="host",
        collection_class=column_keyed_dict(Setting.__table__.c.name),
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    Host.licences = relationship(Licence, collection_class=set, cascade="all, delete-orphan")
    Host.disks_by_text = relationship(
        Disk,
        primaryjoin=foreign(Disk.host_id) == Host.id,
        collection_class=keyfunc_mapping(lambda disk: disk.text),
        viewonly=True,
    )
    names = (Host, Event, Alarm, Disk, Setting, Licence)
    return SimpleNamespace(metadata=Base.metadata, **{each.__name__: each for each in names})


@pytest.fixture
def hosts(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        for number in HOSTS:
            host = m.Host(id=number, name=f"host {number}")
            host.events.add_all([m.Event(id=each, text=f"e{each}") for each in (1, 2, 3)])
            for each in (1, 2):
                host.alarms.append(m.Alarm(id=each, level=each))
            host.disks = [m.Disk(id=each, size=each * 8, text=f"d{each}") for each in (1, 2)]
            for name in ("a", "b"):
                host.settings[name] = m.Setting(id=ord(name), name=name)
            host.licences.add(m.Licence(id=1))
            session.add(host)
    return world


def every(session: Any, m: Any, *options: Any) -> list[Any]:
    query = select(m.Host).options(*options).order_by(m.Host.id)
    return list(session.scalars(query).unique())


class TestWriteOnly:
    def test_is_selected_from(self, hosts: World) -> None:
        m = hosts.models
        with hosts.session() as session:
            host = session.get(m.Host, 5)
            texts = [each.text for each in session.scalars(host.events.select())]
            last = session.scalars(host.events.select().where(m.Event.id > 2).limit(1)).one().text

        assert (texts, last) == (["e1", "e2", "e3"], "e3")

    def test_is_added_to_and_removed_from(self, hosts: World) -> None:
        m = hosts.models
        with hosts.session() as session:
            for host in every(session, m):
                first = session.scalars(host.events.select()).first()
                host.events.remove(first)
                host.events.add(m.Event(id=10))
            session.commit()

        rows = hosts.rows("SELECT host_id, id FROM events")
        assert rows == [(number, each) for number in HOSTS for each in (2, 3, 10)]

    def test_bulk_statements(self, hosts: World) -> None:
        m = hosts.models
        with hosts.session() as session:
            host = session.get(m.Host, 3)
            session.execute(
                host.events.insert(), [{"id": 20, "text": "x"}, {"id": 21, "text": "y"}]
            )
            updated = session.execute(
                host.events.update().where(m.Event.id >= 20).values(text="z")
            ).rowcount
            deleted = session.execute(host.events.delete().where(m.Event.id < 3)).rowcount
            session.commit()

        assert (updated, deleted) == (2, 2)
        assert hosts.rows("SELECT id, text FROM events WHERE host_id = 3") == [
            (3, "e3"),
            (20, "z"),
            (21, "z"),
        ]

    def test_rows_go_with_their_parent(self, hosts: World) -> None:
        m = hosts.models
        with hosts.session() as session:
            for number in (1, 2, 3, 4):
                session.delete(session.get(m.Host, number))
            session.commit()

        tables = ("events", "alarms", "disks", "settings", "licences")
        left = [{row[0] for row in hosts.rows(f"SELECT host_id FROM {each}")} for each in tables]
        assert left == [{5, 6, 7, 8}] * len(tables)


def test_a_dynamic_relationship_is_a_query(hosts: World) -> None:
    m = hosts.models
    with hosts.session() as session:
        host = session.get(m.Host, 4)
        host.alarms.append(m.Alarm(id=3, level=9))
        host.alarms.remove(host.alarms.filter_by(id=1).one())
        session.commit()
        levels = [each.level for each in host.alarms]
        count = host.alarms.filter(m.Alarm.level > 2).count()
        sliced = [each.level for each in host.alarms[0:1]]

    assert (levels, count, sliced) == ([2, 9], 1, [2])


LOADERS = [joinedload, selectinload, subqueryload]


@pytest.mark.parametrize("loader", LOADERS)
def test_relationships_without_foreign_keys(hosts: World, loader: Callable[..., Any]) -> None:
    m = hosts.models
    with hosts.session() as session:
        options = [
            loader(getattr(m.Host, name)) for name in ("disks", "big_disks", "disks_by_text")
        ]
        found = [
            (
                [disk.id for disk in host.disks],
                [disk.id for disk in host.big_disks],
                sorted(host.disks_by_text),
            )
            for host in every(session, m, *options)
        ]

    assert found == [([2, 1], [2], ["d1", "d2"])] * len(HOSTS)


def test_view_only_relationships_are_joined_and_filtered(hosts: World) -> None:
    m = hosts.models
    with hosts.session() as session:
        session.get(m.Host, 2).disks[0].size = 3
        session.flush()
        joined = session.execute(
            select(m.Host.id, m.Disk.size).join(m.Host.big_disks).order_by(m.Host.id)
        ).all()
        without = session.scalars(select(m.Host.id).where(~m.Host.big_disks.any())).all()
        eager = session.scalars(
            select(m.Host)
            .join(m.Host.big_disks)
            .options(contains_eager(m.Host.big_disks))
            .order_by(m.Host.id)
        ).unique()
        sizes = [[disk.size for disk in host.big_disks] for host in eager]

    assert joined == [(number, 16) for number in HOSTS if number != 2]
    assert without == [2]
    assert sizes == [[16]] * 7


@pytest.mark.parametrize("loader", LOADERS)
def test_dictionaries_of_objects(hosts: World, loader: Callable[..., Any]) -> None:
    m = hosts.models
    with hosts.session() as session:
        for host in every(session, m, loader(m.Host.settings)):
            host.settings["a"].text = "changed"
            del host.settings["b"]
            host.settings["c"] = m.Setting(id=99, name="c")
        session.commit()
        found = [
            {name: each.text for name, each in host.settings.items()}
            for host in every(session, m, loader(m.Host.settings))
        ]

    assert found == [{"a": "changed", "c": ""}] * len(HOSTS)


def test_a_child_does_not_move_to_the_parent_of_another_key(
    mapping_worlds: dict[str, World],
) -> None:
    world = mapping_worlds["four_shards"]
    m = world.models
    with world.session() as session:
        first, second = (m.Host(id=number, name="h") for number in (1, 2))
        first.settings["a"] = m.Setting(id=1, name="a")
        session.add_all([first, second])
        session.flush()
        first.settings["a"].host = second

        with pytest.raises(ShardKeyChanged, match="delete the row and insert it"):
            session.flush()


def test_a_view_only_relationship_writes_nothing(hosts: World) -> None:
    m = hosts.models
    with hosts.session() as session:
        host = session.get(m.Host, 6)
        host.big_disks.clear()
        session.commit()
        sizes = [disk.size for disk in host.big_disks]

    assert sizes == [16]
