"""Under ``scatter="refuse"`` no attribute breaks, and statements without a key are refused."""

from __future__ import annotations

import pickle
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, ForeignKey, String, Uuid, select
from sqlalchemy.orm import (
    DeclarativeBase,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)

from sqlalchemy_shards import Cluster, ShardedSession, ShardKeyMixin, create_cluster
from sqlalchemy_shards.errors import ScatterNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = range(1, 9)


class Base(DeclarativeBase):
    pass


class Writer(ShardKeyMixin, Base):
    __tablename__ = "writers"
    __shard_key__ = "id"
    id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    texts = relationship("Text", back_populates="writer", order_by="Text.title")
    changing = relationship("Text", lazy="dynamic", viewonly=True)
    growing = relationship("Text", lazy="write_only", viewonly=True)


class Text(ShardKeyMixin, Base):
    """Its primary key lacks the shard key; of the module, so that it can be pickled."""

    __tablename__ = "texts"
    __shard_key__ = "writer_id"
    id = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    writer_id = mapped_column(ForeignKey("writers.id"), nullable=False)
    title = mapped_column(String)
    body = mapped_column(String, deferred=True)
    writer = relationship(Writer, back_populates="texts")


@pytest.fixture
def cluster(clean_shards: dict[str, str]) -> Iterator[Cluster]:
    found = create_cluster(clean_shards, name="writers", scatter="refuse")
    try:
        found.create_all(Base.metadata)
        with ShardedSession(found) as session, session.begin():
            for number in NUMBERS:
                texts = [Text(title=f"{number}.{each}", body="b") for each in (1, 2)]
                session.add(Writer(id=number, texts=texts))
        yield found
    finally:
        found.dispose()


def test_unpickled_objects_are_read_and_changed(cluster: Cluster) -> None:
    with ShardedSession(cluster) as session:
        query = select(Text).where(Text.writer_id.in_(NUMBERS))
        pickled = [pickle.dumps(each) for each in session.scalars(query)]

    with ShardedSession(cluster) as session:
        texts = [pickle.loads(each) for each in pickled]
        session.add_all(texts)
        for each in texts:
            assert (each.body, each.writer.id) == ("b", each.writer_id)
            session.refresh(each)
            each.body = "changed"
        session.commit()
        session.delete(texts[0])
        session.commit()

        found = session.scalars(query).all()
        assert len(found) == 2 * len(NUMBERS) - 1
        assert {each.body for each in found} == {"changed"}


@pytest.mark.parametrize("load", [None, selectinload, joinedload, subqueryload])
def test_attributes_load(cluster: Cluster, load: Any) -> None:
    both = [] if load is None else [load(Writer.texts)]
    with ShardedSession(cluster) as session:
        writers = session.scalars(
            select(Writer).where(Writer.id.in_(NUMBERS)).order_by(Writer.id).options(*both)
        )
        found = [[text.title for text in each.texts] for each in writers.unique()]

    assert found == [[f"{number}.1", f"{number}.2"] for number in NUMBERS]


def test_collections_that_are_queries(cluster: Cluster) -> None:
    with ShardedSession(cluster) as session:
        writer = session.get(Writer, 3)
        dynamic = [each.title for each in writer.changing.order_by(Text.title)]
        write_only = session.scalars(writer.growing.select().order_by(Text.title)).all()

    assert dynamic == ["3.1", "3.2"]
    assert [each.title for each in write_only] == dynamic


@pytest.mark.parametrize("load", [None, selectinload])
def test_a_statement_of_the_users_own_is_refused(cluster: Cluster, load: Any) -> None:
    options = [] if load is None else [load(Writer.texts)]
    with ShardedSession(cluster) as session, pytest.raises(ScatterNotAllowed):
        session.scalars(select(Writer).options(*options)).all()
