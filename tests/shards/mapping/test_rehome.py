"""Objects move to another shard key, with the rows that hang on them, or stay as they were."""

from __future__ import annotations

import threading
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    Table,
    Uuid,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sqlalchemy_shards.errors import RoutingError, ShardKeyChanged, UnsupportedStatement
from tests.databases import ask
from tests.shards.shop import enlisted

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Owner(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "owners"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str]
        version = mapped_column(Integer, nullable=False)
        documents: Mapped[list[Any]] = relationship("Document", back_populates="owner")
        tags: Mapped[list[Any]] = relationship("Tag", order_by="Tag.id")
        __mapper_args__ = {"version_id_col": version}

    class Document(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "documents"
        __shard_key__ = "owner_id"
        id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
        owner_id: Mapped[int] = mapped_column(ForeignKey("owners.id"))
        title: Mapped[str]
        length: Mapped[int] = mapped_column(Computed("length(title)", persisted=True))
        home: Mapped[str] = mapped_column(server_default=text("current_database()"))
        extra: Mapped[Any] = mapped_column(JSONB, nullable=True)
        kind: Mapped[str]
        owner: Mapped[Any] = relationship(Owner, back_populates="documents")
        tags: Mapped[list[Any]] = relationship(
            "Tag",
            secondary="document_tags",
            primaryjoin="and_(Document.owner_id == document_tags.c.owner_id, "
            "Document.id == document_tags.c.document_id)",
            secondaryjoin="and_(Tag.owner_id == document_tags.c.owner_id, "
            "Tag.id == document_tags.c.tag_id)",
            viewonly=True,
        )
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document"}

    class Report(Document):
        """Its row has no column of the key."""

        __tablename__ = "reports"
        id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"), primary_key=True)
        pages: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "report"}

    class Tag(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "tags"
        __shard_key__ = "owner_id"
        __table_args__ = (
            ForeignKeyConstraint(["owner_id", "parent_id"], ["tags.owner_id", "tags.id"]),
        )
        owner_id: Mapped[int] = mapped_column(ForeignKey("owners.id"), primary_key=True)
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        parent_id: Mapped[int | None]

    tags = Table(
        "document_tags",
        Base.metadata,
        Column("owner_id", BigInteger, primary_key=True),
        Column("document_id", Uuid, primary_key=True),
        Column("tag_id", Integer, primary_key=True),
        Column("note", String),
        ForeignKeyConstraint(["owner_id", "tag_id"], ["tags.owner_id", "tags.id"]),
        ForeignKeyConstraint(["document_id"], ["documents.id"], info={"per_shard": True}),
    )
    say.shard_table(tags, key="owner_id")
    classes = (Owner, Document, Report, Tag)
    return SimpleNamespace(
        metadata=Base.metadata, tags=tags, **{each.__name__: each for each in classes}
    )


pytestmark = pytest.mark.parametrize("world", ["one_shard", "four_shards"], indirect=True)


@pytest.fixture
def filled(world: World) -> World:
    """Owners 1 to 4 with two documents each, and tags that form a tree."""
    m = world.models
    with world.session() as session, session.begin():
        for number in (1, 2, 3, 4):
            documents = [
                m.Document(id=key_of(number, 1), title="plain", extra={"a": [1, None]}),
                m.Report(id=key_of(number, 2), title="re\tport\n", pages=3),
            ]
            tags = [m.Tag(id=1), m.Tag(id=2, parent_id=1), m.Tag(id=3, parent_id=2)]
            session.add(m.Owner(id=number, name=f"owner {number}", documents=documents, tags=tags))
        session.flush()
        session.execute(
            m.tags.insert(),
            [
                {"owner_id": number, "document_id": key_of(number, 1), "tag_id": 3}
                for number in (1, 2, 3, 4)
            ],
        )
    return world


def key_of(owner: int, number: int) -> uuid.UUID:
    return uuid.UUID(int=owner * 100 + number)


def new_owner(world: World) -> int:
    """A key on another shard than that of owner 1, if there is one."""
    cluster: Any = world.cluster
    home = cluster.shard_for(world.models.Owner, 1)
    others = (n for n in range(50, 200) if cluster.shard_for(world.models.Owner, n) != home)
    return next(others, 50)


def everything(world: World) -> list[Any]:
    tables = ("owners", "documents", "reports", "tags", "document_tags")
    return [world.rows_by_shard(f"SELECT * FROM {table}") for table in tables]


def test_an_object_moves_with_all_that_hangs_on_it(filled: World) -> None:
    m, target = filled.models, new_owner(filled)
    with filled.session() as session:
        owner = session.get(m.Owner, 1)
        session.rehome(owner, id=target)
        session.commit()
        where = session.shard_of(owner)

    key = [(target,)]
    assert filled.rows_by_shard(f"SELECT id FROM owners WHERE id = {target}")[where] == key
    for table, count in {"documents": 2, "tags": 3, "document_tags": 1}.items():
        query = f"SELECT owner_id FROM {table} WHERE owner_id IN (1, {target})"
        assert filled.rows(query) == filled.rows_by_shard(query)[where] == key * count
    assert (
        len(
            filled.rows_by_shard(
                f"SELECT d.id FROM reports JOIN documents d USING (id) WHERE owner_id = {target}"
            )[where]
        )
        == 1
    )


def test_rows_keep_all_else(filled: World) -> None:
    m, target = filled.models, new_owner(filled)
    query = "SELECT title, length, home, extra::text, kind FROM documents WHERE owner_id = {}"
    before = filled.rows(query.format(1))
    with filled.session() as session:
        session.rehome(session.get(m.Owner, 1), id=target)
        session.commit()

    assert filled.rows(query.format(target)) == before
    assert filled.rows(f"SELECT version FROM owners WHERE id = {target}") == [(1,)]


def test_objects_go_on_under_their_new_keys(filled: World) -> None:
    m, target = filled.models, new_owner(filled)
    with filled.session() as session:
        owner = session.get(m.Owner, 1)
        tag = session.get(m.Tag, (1, 2))
        report = session.get(m.Report, key_of(1, 2))
        session.rehome(owner, id=target)

        assert (owner.id, tag.owner_id, report.owner_id) == (target, target, target)
        assert session.get(m.Tag, (target, 2)) is tag
        assert session.get(m.Owner, 1) is None
        assert sorted(each.title for each in owner.documents) == ["plain", "re\tport\n"]
        assert [each.id for each in owner.tags] == [1, 2, 3]
        owner.name, report.pages, tag.parent_id = "moved", 7, None
        session.commit()
        session.refresh(report)
        used = enlisted(session)
        found = (owner.name, report.pages, tag.parent_id, owner.version)

    assert found == ("moved", 7, None, 2)
    assert used == {filled.cluster.shard_for(m.Owner, target)}  # type: ignore[union-attr]


def test_objects_that_only_a_collection_holds_are_read_again(filled: World) -> None:
    m, target = filled.models, new_owner(filled)
    with filled.session() as session:
        owner = session.get(m.Owner, 1)
        before = len(owner.tags)
        session.rehome(owner, id=target)

        assert before == 3
        assert [each.owner_id for each in owner.tags] == [target] * 3


def test_a_rollback_leaves_rows_and_objects_as_they_were(filled: World) -> None:
    m, before = filled.models, everything(filled)
    with filled.session() as session:
        owner = session.get(m.Owner, 1)
        tag = session.get(m.Tag, (1, 2))
        session.rehome(owner, id=new_owner(filled))
        session.rollback()
        found = (owner.id, owner.name, tag.owner_id, [each.id for each in owner.tags])
        same = session.get(m.Owner, 1) is owner

    assert found == (1, "owner 1", 1, [1, 2, 3])
    assert same
    assert everything(filled) == before


def test_a_session_that_ends_before_the_commit_leaves_all_as_it_was(filled: World) -> None:
    m, before = filled.models, everything(filled)
    with filled.session() as session:
        session.rehome(session.get(m.Owner, 1), id=new_owner(filled))

    assert everything(filled) == before


def test_a_savepoint_undoes_a_move(filled: World) -> None:
    m, before = filled.models, everything(filled)
    with filled.session() as session:
        owner = session.get(m.Owner, 1)
        savepoint = session.begin_nested()
        session.rehome(owner, id=new_owner(filled))
        savepoint.rollback()
        name = owner.name
        session.commit()

    assert name == "owner 1"
    assert everything(filled) == before


def test_an_object_moves_to_a_key_that_is_there(filled: World) -> None:
    """Only the document's row and its child's go, to the new owner."""
    m = filled.models
    with filled.session() as session:
        report = session.get(m.Report, key_of(1, 2))
        session.rehome(report, owner_id=4)
        session.commit()
        owner = report.owner.name

    assert owner == "owner 4"
    assert filled.rows("SELECT count(*) FROM documents WHERE owner_id = 4")[-1][0] == 3


def test_rows_that_would_be_left_behind_are_refused(filled: World) -> None:
    m, before = filled.models, everything(filled)
    with filled.session() as session:
        document = session.get(m.Document, key_of(1, 1))
        with pytest.raises(UnsupportedStatement, match="rows of 'document_tags' refer to rows of"):
            session.rehome(document, owner_id=4)
        session.rollback()

    assert everything(filled) == before


def test_a_key_that_is_taken_is_an_error(filled: World) -> None:
    m, before = filled.models, everything(filled)
    with filled.session() as session:
        with pytest.raises(IntegrityError):
            session.rehome(session.get(m.Owner, 1), id=4)
        session.rollback()

    assert everything(filled) == before


def test_nothing_happens_for_the_same_key(filled: World) -> None:
    m, before = filled.models, everything(filled)
    with filled.session() as session:
        session.rehome(session.get(m.Owner, 1), id=1)
        session.commit()

    assert everything(filled) == before


@pytest.mark.parametrize("new_key", [{}, {"name": "x"}, {"id": "text"}])
def test_what_is_no_key_of_the_class_is_refused(filled: World, new_key: Any) -> None:
    m = filled.models
    with filled.session() as session, pytest.raises(RoutingError):
        session.rehome(session.get(m.Owner, 1), **new_key)


def test_an_object_that_is_not_stored_is_refused(filled: World) -> None:
    m = filled.models
    with filled.session() as session, pytest.raises(RoutingError, match="add it and flush"):
        session.rehome(m.Owner(id=9, name="new"), id=10)


def test_writers_of_the_rows_wait(filled: World) -> None:
    m, target = filled.models, new_owner(filled)
    errors: list[str] = []
    shard = filled.cluster.shard_for(m.Owner, 1)  # type: ignore[union-attr]

    def write() -> None:
        try:
            ask(
                filled.urls[shard],
                "SET lock_timeout = 200; INSERT INTO tags (owner_id, id) VALUES (1, 9)",
            )
        except Exception as error:
            errors.append(type(error).__name__)

    with filled.session() as session:
        session.rehome(session.get(m.Owner, 1), id=target)
        writer = threading.Thread(target=write)
        writer.start()
        writer.join()
        session.commit()

    assert errors == ["LockNotAvailable"]


def test_a_changed_key_names_the_way(filled: World) -> None:
    m = filled.models
    if not filled.is_spread:
        pytest.skip("one shard leaves the UPDATE to PostgreSQL")
    with filled.session() as session:
        session.get(m.Document, key_of(1, 2)).owner_id = 4
        with pytest.raises(ShardKeyChanged, match=r"session\.rehome"):
            session.flush()
        session.rollback()
        found = session.scalars(select(m.Document.id).where(m.Document.owner_id == 1)).all()

    assert len(found) == 2
