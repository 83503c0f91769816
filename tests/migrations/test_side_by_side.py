"""Old and new versions of an application, on shards of which some have the new column already."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Integer,
    String,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)

from sqlalchemy_shards import Cluster, ShardKeyMixin, create_cluster
from sqlalchemy_shards.catalog import columns
from sqlalchemy_shards.errors import UnsupportedStatement
from tests.databases import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class OldBase(DeclarativeBase):
    pass


class NewBase(DeclarativeBase):
    pass


class OldUser(ShardKeyMixin, OldBase):
    __tablename__ = "users"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20))
    notes: Mapped[list[OldNote]] = relationship(back_populates="user")


class OldNote(ShardKeyMixin, OldBase):
    __tablename__ = "notes"
    __shard_key__ = "user_id"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    user: Mapped[OldUser] = relationship(back_populates="notes")


class NewUser(ShardKeyMixin, NewBase):
    __tablename__ = "users"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20))
    nick: Mapped[str | None] = mapped_column(String(20), deferred=True)


def read_everything(session: Session) -> list[Any]:
    """Statements of every tier that the old version runs."""
    by_name = select(OldUser).order_by(OldUser.name, OldUser.id)
    numbered = select(OldUser.name, func.row_number().over(order_by=OldUser.name))
    return [
        [user.name for user in session.scalars(by_name.options(selectinload(OldUser.notes)))],
        session.execute(select(func.count(), func.min(OldUser.name)).select_from(OldUser)).all(),
        session.execute(numbered.order_by(OldUser.name)).all(),
        session.execute(
            select(OldUser.name, func.count()).join(OldUser.notes).group_by(OldUser.name)
        ).all(),
        session.scalars(select(OldUser.name).distinct().order_by(OldUser.name)).all(),
    ]


@contextmanager
def cluster_of(urls: Mapping[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(urls)
    try:
        yield cluster
    finally:
        cluster.dispose()


@pytest.fixture
def shards(clean_shards: dict[str, str]) -> dict[str, str]:
    with cluster_of(clean_shards) as cluster:
        cluster.create_all(OldBase.metadata)
        with Session(cluster.engine) as session, session.begin():
            session.add_all(OldUser(id=n, name=f"u{n}") for n in range(12))
            session.flush()
            session.add_all(OldNote(user_id=n, number=1) for n in range(6))
    return clean_shards


def upgrade(urls: Mapping[str, str], *names: str) -> None:
    for name in names:
        ask(urls[name], "ALTER TABLE users ADD nick varchar(20) DEFAULT 'none'")


@pytest.mark.parametrize("is_warm", [True, False], ids=["started before", "started meanwhile"])
def test_the_old_version_reads_and_writes_in_the_middle(
    shards: dict[str, str], is_warm: bool
) -> None:
    with cluster_of(shards) as cluster:
        with Session(cluster.engine) as session:
            before = read_everything(session) if is_warm else None
        upgrade(shards, "s1", "s3")
        with Session(cluster.engine) as session, session.begin():
            meanwhile = read_everything(session)
            session.add_all(OldUser(id=n, name=f"v{n}") for n in range(20, 32))
            session.flush()
            returned = insert(OldUser).returning(OldUser.id)
            rows = [{"id": n, "name": "w"} for n in range(40, 52)]
            assert sorted(session.scalars(returned, rows)) == list(range(40, 52))
            session.execute(update(OldUser).where(OldUser.id.in_([1, 2, 3, 4])).values(name="x"))
        upgrade(shards, "s0", "s2")
        with Session(cluster.engine) as session:
            after = read_everything(session)

    assert before in (None, meanwhile)
    assert len(after[0]) == 36


NUMBERED = select(NewUser.id, NewUser.nick, func.row_number().over(order_by=NewUser.nick))
NEW_COLUMN = {
    "gathered": NUMBERED,
    "merged in order": select(NewUser.nick).order_by(NewUser.nick),
    "distinct": select(NewUser.nick).distinct().order_by(NewUser.nick),
    "grouped": select(NewUser.nick, func.count()).group_by(NewUser.nick),
}


@pytest.mark.parametrize("name", NEW_COLUMN)
def test_a_process_from_the_middle_uses_the_column_when_all_have_it(
    shards: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "LOOK_AGAIN_SECONDS", 0.0)
    upgrade(shards, "s1", "s3")
    with cluster_of(shards) as cluster:
        with Session(cluster.engine) as session, pytest.raises(SQLAlchemyError, match="nick"):
            session.execute(NEW_COLUMN[name]).all()
        upgrade(shards, "s0", "s2")

        with Session(cluster.engine) as session:
            rows = session.execute(NEW_COLUMN[name]).all()

    assert "none" in {value for row in rows for value in row}


def test_a_process_from_before_uses_the_column_when_all_have_it(
    shards: dict[str, str],
) -> None:
    with cluster_of(shards) as cluster:
        with Session(cluster.engine) as session:
            read_everything(session)
        upgrade(shards, *shards)

        with Session(cluster.engine) as session:
            rows = session.execute(NUMBERED).all()

    assert [row[1:] for row in rows] == [("none", n) for n in range(1, 13)]


@pytest.mark.parametrize(("seconds", "looks_again"), [(60.0, False), (0.0, True)])
def test_what_some_shards_lack_is_not_looked_for_at_each_statement(
    shards: dict[str, str],
    seconds: float,
    looks_again: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columns, "LOOK_AGAIN_SECONDS", seconds)
    upgrade(shards, "s1")
    ids = select(NewUser.id, func.row_number().over(order_by=NewUser.id))
    with cluster_of(shards) as cluster:
        with Session(cluster.engine) as session:
            session.execute(ids).all()
        looks: list[Any] = []
        event.listen(cluster.shards["s0"].engine, "connect", lambda *_: looks.append(1))
        with Session(cluster.engine) as session:
            for _ in range(5):
                session.execute(ids).all()

    assert bool(looks) == looks_again


def test_the_old_version_goes_on_where_its_column_is_dropped_last(shards: dict[str, str]) -> None:
    upgrade(shards, *shards)
    with cluster_of(shards) as cluster:
        with Session(cluster.engine) as session:
            session.execute(NUMBERED).all()
        for name in ("s0", "s2"):
            ask(shards[name], "ALTER TABLE users DROP nick")
        with Session(cluster.engine) as session, session.begin():
            meanwhile = read_everything(session)
            session.add_all(OldUser(id=n, name=f"v{n}") for n in range(20, 32))

    assert len(meanwhile[0]) == 12


def test_a_star_over_several_shards_is_refused_in_the_middle(shards: dict[str, str]) -> None:
    upgrade(shards, "s1", "s3")
    star = text("SELECT * FROM users")
    with cluster_of(shards) as cluster, cluster.engine.connect() as connection:
        with pytest.raises(UnsupportedStatement, match="the shards give other columns"):
            connection.execute(star, execution_options={"shard": "*"})

        assert connection.execute(star, execution_options={"shard": "s0"}).keys() == ["id", "name"]
