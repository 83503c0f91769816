"""Self-referential relationships: trees of rows that share a shard key."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, ForeignKeyConstraint, Uuid, func, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    foreign,
    joinedload,
    lazyload,
    mapped_column,
    relationship,
    remote,
    selectinload,
    subqueryload,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

import uuid

FORESTS = range(1, 9)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Node(say.sharded, Base):  # type: ignore[name-defined]
        """An adjacency list: the parent is named by the same shard key and another id."""

        __tablename__ = "nodes"
        __shard_key__ = "forest_id"
        __table_args__ = (
            ForeignKeyConstraint(["forest_id", "parent_id"], ["nodes.forest_id", "nodes.id"]),
        )
        forest_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        parent_id: Mapped[int | None] = mapped_column(BigInteger)
        name: Mapped[str]
        children: Mapped[list[Any]] = relationship(
            "Node",
            back_populates="parent",
            cascade="all, delete-orphan",
            single_parent=True,
            order_by="Node.id",
            join_depth=3,
        )
        parent: Mapped[Any] = relationship(
            "Node", back_populates="children", remote_side="[Node.forest_id, Node.id]"
        )

    class Person(say.sharded, Base):  # type: ignore[name-defined]
        """A graph, whose ids do not hold the key."""

        __tablename__ = "people"
        __shard_key__ = "forest_id"
        id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
        forest_id: Mapped[int] = mapped_column(BigInteger)
        boss_id: Mapped[uuid.UUID | None]
        name: Mapped[str]

    Person.boss = relationship(
        Person,
        primaryjoin=(foreign(Person.boss_id) == remote(Person.id))
        & (Person.forest_id == remote(Person.forest_id)),
        uselist=False,
    )
    return SimpleNamespace(metadata=Base.metadata, Node=Node, Person=Person)


@pytest.fixture
def forests(world: World) -> World:
    """A root with two children, the first of which has one."""
    m = world.models
    with world.session() as session, session.begin():
        for number in FORESTS:
            leaf = m.Node(forest_id=number, id=4, name="leaf")
            branch = m.Node(forest_id=number, id=2, name="branch", children=[leaf])
            other = m.Node(forest_id=number, id=3, name="other")
            root = m.Node(forest_id=number, id=1, name=f"root {number}", children=[branch, other])
            session.add(root)
    return world


def as_tuples(node: Any) -> tuple[Any, ...]:
    return node.name, [as_tuples(child) for child in node.children]


TREES = [(f"root {n}", [("branch", [("leaf", [])]), ("other", [])]) for n in FORESTS]


@pytest.mark.parametrize("loader", [lazyload, joinedload, selectinload, subqueryload])
def test_trees_are_loaded(forests: World, loader: Callable[..., Any]) -> None:
    m = forests.models
    with forests.session() as session:
        roots = session.scalars(
            select(m.Node)
            .where(m.Node.parent_id.is_(None))
            .options(loader(m.Node.children))
            .order_by(m.Node.forest_id)
        ).unique()
        trees = [as_tuples(root) for root in roots]

    assert trees == TREES


def test_selectin_loads_recursively(forests: World) -> None:
    m = forests.models
    with forests.session() as session:
        roots = session.scalars(
            select(m.Node)
            .where(m.Node.parent_id.is_(None))
            .options(selectinload(m.Node.children, recursion_depth=-1))
            .order_by(m.Node.forest_id)
        ).all()
        session.expunge_all()
        trees = [as_tuples(root) for root in roots]

    assert trees == TREES


def test_branches_are_moved_and_cut(forests: World) -> None:
    m = forests.models
    with forests.session() as session:
        for number in FORESTS:
            leaf = session.get(m.Node, (number, 4))
            other = session.get(m.Node, (number, 3))
            leaf.parent = other
        session.flush()
        for number in FORESTS:
            session.delete(session.get(m.Node, (number, 2)))
        session.commit()
        paths = [session.get(m.Node, (number, 4)).parent.parent.name for number in FORESTS]

    assert paths == [f"root {number}" for number in FORESTS]
    assert len(forests.rows("SELECT * FROM nodes")) == 24


def test_a_tree_is_deleted_from_the_leaves_up(forests: World) -> None:
    m = forests.models
    with forests.session() as session:
        for number in (1, 2, 3, 4, 5):
            session.delete(session.get(m.Node, (number, 1)))
        session.commit()

    assert len(forests.rows("SELECT * FROM nodes")) == 12


def test_joins_of_nodes_to_their_parents(forests: World) -> None:
    m = forests.models
    parent = aliased(m.Node)
    with forests.session() as session:
        pairs = session.execute(
            select(m.Node.name, parent.name)
            .join(m.Node.parent.of_type(parent))
            .where(m.Node.id == 3)
            .order_by(m.Node.forest_id)
        ).all()
        counts = session.scalar(
            select(func.count()).select_from(m.Node).where(~m.Node.children.any())
        )

    assert pairs == [("other", f"root {number}") for number in FORESTS]
    assert counts == 16


def test_a_recursive_query_within_one_key(forests: World) -> None:
    m = forests.models
    top = (
        select(m.Node.forest_id, m.Node.id, m.Node.name)
        .where(m.Node.forest_id == 6, m.Node.id == 2)
        .cte("below", recursive=True)
    )
    below = top.union_all(
        select(m.Node.forest_id, m.Node.id, m.Node.name)
        .join(top, (m.Node.forest_id == top.c.forest_id) & (m.Node.parent_id == top.c.id))
        # The key once more: it is not carried through a recursion.
        .where(m.Node.forest_id == 6)
    )
    with forests.session() as session:
        found = session.execute(select(below.c.id, below.c.name).order_by(below.c.id)).all()
        objects = session.scalars(
            select(m.Node)
            .join(below, (m.Node.id == below.c.id) & (m.Node.forest_id == below.c.forest_id))
            .where(m.Node.forest_id == 6)
            .order_by(m.Node.id)
        ).all()
        names = [each.name for each in objects]

    assert found == [(2, "branch"), (4, "leaf")]
    assert names == ["branch", "leaf"]


def test_a_graph_whose_ids_do_not_hold_the_key(world: World) -> None:
    m = world.models
    with world.session() as session:
        for number in FORESTS:
            boss = m.Person(forest_id=number, name=f"boss {number}")
            session.add(boss)
            session.flush()
            session.add(m.Person(forest_id=number, name="worker", boss_id=boss.id))
        session.commit()
        workers = session.scalars(
            select(m.Person).where(m.Person.name == "worker").order_by(m.Person.forest_id)
        ).all()
        lazily = [worker.boss.name for worker in workers]
        session.expunge_all()
        eagerly = [
            worker.boss.name
            for worker in session.scalars(
                select(m.Person)
                .where(m.Person.name == "worker")
                .options(joinedload(m.Person.boss))
                .order_by(m.Person.forest_id)
            )
        ]

    assert lazily == eagerly == [f"boss {number}" for number in FORESTS]
