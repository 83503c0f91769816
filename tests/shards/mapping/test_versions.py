"""Version counters, which notice that another session changed a row."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, FetchedValue, String, Uuid, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

NUMBERS = range(1, 9)


class TransactionId(UserDefinedType[int]):
    """PostgreSQL's, which no other type can be compared with."""

    cache_ok = True

    def get_col_spec(self) -> str:
        return "xid"


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Counted(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "counted"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        text: Mapped[str] = mapped_column(String)
        version: Mapped[int] = mapped_column()
        __mapper_args__ = {"version_id_col": version}

    class Marked(say.sharded, Base):  # type: ignore[name-defined]
        """The version is the client's own, and the primary key lacks the shard key."""

        __tablename__ = "marked"
        __shard_key__ = "owner_id"
        id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
        owner_id: Mapped[int] = mapped_column(BigInteger)
        text: Mapped[str] = mapped_column(String)
        version: Mapped[str] = mapped_column(String(40))
        __mapper_args__ = {
            "version_id_col": version,
            "version_id_generator": lambda version: uuid.uuid4().hex,
        }

    class Stamped(say.sharded, Base):  # type: ignore[name-defined]
        """The version is the row's own, of the server."""

        __tablename__ = "stamped"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        text: Mapped[str] = mapped_column(String)
        xmin: Mapped[int] = mapped_column(
            "xmin", TransactionId, system=True, server_default=FetchedValue()
        )
        __mapper_args__ = {"version_id_col": xmin, "version_id_generator": False}

    return SimpleNamespace(metadata=Base.metadata, Counted=Counted, Marked=Marked, Stamped=Stamped)


KINDS = ("Counted", "Marked", "Stamped")


@pytest.fixture(params=KINDS)
def rows(request: pytest.FixtureRequest, world: World) -> tuple[World, Any]:
    model = getattr(world.models, request.param)
    with world.session() as session, session.begin():
        session.add_all(_row(model, number) for number in NUMBERS)
    return world, model


def _row(model: Any, number: int) -> Any:
    if model.__name__ == "Marked":
        return model(id=uuid.UUID(int=number), owner_id=number, text="new")
    return model(id=number, text="new")


def _key(model: Any, number: int) -> Any:
    return uuid.UUID(int=number) if model.__name__ == "Marked" else number


def test_each_change_has_a_new_version(rows: tuple[World, Any]) -> None:
    world, model = rows
    with world.session() as session:
        found = session.scalars(select(model).order_by(model.id)).all()
        before = [_version(each) for each in found]
        for each in found:
            each.text = "once"
        session.commit()
        between = [_version(each) for each in found]
        for each in found:
            each.text = "twice"
        session.flush()
        after = [_version(each) for each in found]

    for versions in zip(before, between, after, strict=True):
        assert len(set(versions)) == 3


def test_a_row_that_another_session_changed_is_stale(rows: tuple[World, Any]) -> None:
    world, model = rows
    for number in NUMBERS:
        with world.session() as one, world.session() as other:
            mine, its = (each.get(model, _key(model, number)) for each in (one, other))
            its.text = "other"
            other.commit()
            mine.text = "mine"

            with pytest.raises(StaleDataError):
                one.commit()

    assert {row[0] for row in world.rows(f"SELECT text FROM {model.__tablename__}")} == {"other"}


def test_one_stale_row_among_many_rolls_all_back(rows: tuple[World, Any]) -> None:
    world, model = rows
    with world.session() as one, world.session() as other:
        found = one.scalars(select(model).order_by(model.id)).all()
        other.get(model, _key(model, 5)).text = "other"
        other.commit()
        for each in found:
            each.text = "mine"

        with pytest.raises(StaleDataError):
            one.commit()

    texts = [row[0] for row in world.rows(f"SELECT text FROM {model.__tablename__}")]
    assert sorted(texts) == ["new"] * 7 + ["other"]


def test_a_row_that_was_deleted_is_stale(rows: tuple[World, Any]) -> None:
    world, model = rows
    with world.session() as one, world.session() as other:
        mine, its = (each.get(model, _key(model, 3)) for each in (one, other))
        other.delete(its)
        other.commit()
        mine.text = "mine"

        with pytest.raises(StaleDataError):
            one.flush()


def test_a_changed_row_is_not_deleted(rows: tuple[World, Any]) -> None:
    world, model = rows
    with world.session() as one, world.session() as other:
        mine, its = (each.get(model, _key(model, 4)) for each in (one, other))
        its.text = "other"
        other.commit()
        one.delete(mine)

        with pytest.raises(StaleDataError):
            one.flush()


def test_a_bulk_update_may_count_the_version(world: World) -> None:
    m = world.models
    with world.session() as session:
        session.add_all(m.Counted(id=number, text="new") for number in NUMBERS)
        session.commit()
        changed = session.execute(
            update(m.Counted)
            .where(m.Counted.id.in_([1, 2, 3]))
            .values(text="bulk", version=m.Counted.version + 1)
        ).rowcount
        session.commit()
        versions = [session.get(m.Counted, number).version for number in (1, 2, 3, 4)]

    assert (changed, versions) == (3, [2, 2, 2, 1])


def _version(row: Any) -> Any:
    return row.xmin if hasattr(row, "xmin") else row.version
