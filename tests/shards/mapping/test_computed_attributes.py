"""Attributes that are computed: hybrids, comparators, column properties, synonyms, validators."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, Integer, String, case, exists, func, literal, select, update
from sqlalchemy.ext.hybrid import Comparator, hybrid_method, hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    column_property,
    joinedload,
    mapped_column,
    query_expression,
    relationship,
    synonym,
    undefer,
    validates,
    with_expression,
)
from sqlalchemy.schema import ForeignKey

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

USERS = range(1, 9)


class CaseInsensitive(Comparator[str]):
    def __eq__(self, other: Any) -> Any:  # type: ignore[override]
        return func.lower(self.__clause_element__()) == func.lower(other)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Rank(say.reference, Base):  # type: ignore[name-defined]
        __tablename__ = "ranks"
        code: Mapped[str] = mapped_column(String(4), primary_key=True)
        title: Mapped[str]

    class Post(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "posts"
        __shard_key__ = "user_id"
        user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        likes: Mapped[int] = mapped_column(default=0)

    class User(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        first: Mapped[str] = mapped_column()
        last: Mapped[str] = mapped_column()
        rank_code: Mapped[str] = mapped_column(ForeignKey("ranks.code"))
        _cents: Mapped[int] = mapped_column("cents", Integer, default=0)
        posts: Mapped[list[Post]] = relationship(order_by=Post.id, cascade="all, delete-orphan")

        full = column_property(first + " " + last)
        rank_title = column_property(
            select(Rank.title).where(Rank.code == rank_code).scalar_subquery()
        )
        extra: Mapped[int | None] = query_expression()
        always: Mapped[int] = query_expression(default_expr=literal(7))
        surname = synonym("last")
        number = synonym("id")

        @hybrid_property
        def euros(self) -> int:
            return self._cents // 100

        @euros.inplace.setter
        def _set_euros(self, value: int) -> None:
            self._cents = value * 100

        @euros.inplace.expression
        @classmethod
        def _euros_in_sql(cls) -> Any:
            return cls._cents // 100

        @euros.inplace.update_expression
        @classmethod
        def _update_euros(cls, value: Any) -> Any:
            return [(cls._cents, value * 100)]

        @hybrid_property
        def likes(self) -> int:
            return sum(post.likes for post in self.posts)

        @likes.inplace.expression
        @classmethod
        def _likes_in_sql(cls) -> Any:
            found = select(func.sum(Post.likes)).where(Post.user_id == cls.id)
            return found.correlate_except(Post).scalar_subquery()

        @hybrid_property
        def key(self) -> int:
            """The shard key under another name."""
            return self.id

        @hybrid_property
        def name_in_any_case(self) -> str:
            return self.first.lower()

        @name_in_any_case.inplace.comparator
        @classmethod
        def _compare_names(cls) -> Any:
            return CaseInsensitive(cls.first)

        @hybrid_method
        def has_more_than(self, cents: int) -> bool:
            return self._cents > cents

        @validates("first")
        def _check_first(self, name: str, value: str) -> str:
            if not value:
                raise ValueError("a first name is needed")
            return value.title()

        @validates("posts")
        def _check_post(self, name: str, post: Any) -> Any:
            post.likes = post.likes or 1
            return post

    User.post_count = column_property(
        select(func.count(Post.id))
        .where(Post.user_id == User.id)
        .correlate_except(Post)
        .scalar_subquery()
    )
    User.most_likes = column_property(
        select(func.max(Post.likes))
        .where(Post.user_id == User.id)
        .correlate_except(Post)
        .scalar_subquery(),
        deferred=True,
    )
    return SimpleNamespace(metadata=Base.metadata, User=User, Post=Post, Rank=Rank)


@pytest.fixture
def users(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        session.add(m.Rank(code="a", title="admiral"))
        session.flush()
        for number in USERS:
            posts = [m.Post(id=each, likes=each * number) for each in (1, 2)]
            user = m.User(id=number, first=f"ann{number}", last="x", rank_code="a", posts=posts)
            user.euros = number
            session.add(user)
    return world


class TestHybrids:
    def test_in_python_in_where_and_in_order_by(self, users: World) -> None:
        m = users.models
        with users.session() as session:
            found = session.scalars(
                select(m.User).where(m.User.euros > 3).order_by(m.User.euros.desc())
            ).all()
            seen = [(user.euros, user.likes) for user in found]
            likes = session.execute(
                select(m.User.id, m.User.likes).where(m.User.likes >= 18).order_by(m.User.id)
            ).all()
            rich = session.scalars(select(m.User.id).where(m.User.has_more_than(700))).all()

        assert seen == [(number, 3 * number) for number in (8, 7, 6, 5, 4)]
        assert likes == [(6, 18), (7, 21), (8, 24)]
        assert rich == [8]

    def test_over_the_shard_key(self, users: World) -> None:
        m = users.models
        with users.session() as session:
            found = session.scalars(select(m.User.first).where(m.User.key == 5)).all()
            several = session.scalars(
                select(m.User.first).where(m.User.number.in_([2, 3])).order_by(m.User.key)
            ).all()
        shards = (
            [1]
            if users.cluster is None
            else [
                len(users.cluster.explain(select(m.User).where(column == 5)).shards)
                for column in (m.User.key, m.User.number)
            ]
        )

        assert found == ["Ann5"]
        assert several == ["Ann2", "Ann3"]
        assert set(shards) == {1}

    def test_comparators(self, users: World) -> None:
        m = users.models
        with users.session() as session:
            found = session.scalars(
                select(m.User.id).where(m.User.name_in_any_case == "ANN4")
            ).all()

        assert found == [4]

    def test_in_update_statements(self, users: World) -> None:
        m = users.models
        with users.session() as session:
            loaded = session.get(m.User, 2)
            session.execute(
                update(m.User).where(m.User.key.in_([1, 2, 3])).values({m.User.euros: 50})
            )
            session.commit()
            found = (loaded.euros, session.get(m.User, 3).euros)

        assert found == (50, 50)
        assert users.rows("SELECT id FROM users WHERE cents = 5000") == [(1,), (2,), (3,)]

    def test_on_aliases(self, users: World) -> None:
        m = users.models
        other = aliased(m.User)
        with users.session() as session:
            found = session.execute(
                select(m.User.id, other.euros)
                .join(other, other.key == m.User.key)
                .where(other.euros > 6)
                .order_by(m.User.id)
            ).all()

        assert found == [(7, 7), (8, 8)]


class TestColumnProperties:
    def test_are_loaded_with_the_object_and_after_a_change(self, users: World) -> None:
        m = users.models
        with users.session() as session:
            found = session.scalars(select(m.User).order_by(m.User.id)).all()
            seen = [(user.full, user.rank_title, user.post_count) for user in found]
            found[0].posts.pop()
            session.commit()
            again = (found[0].post_count, found[0].most_likes)

        assert seen == [(f"Ann{number} x", "admiral", 2) for number in USERS]
        assert again == (1, 1)

    def test_in_where_order_by_and_below_relationships(self, users: World) -> None:
        m = users.models
        with users.session() as session:
            found = session.scalars(
                select(m.User)
                .where(m.User.post_count == 2, m.User.rank_title == "admiral")
                .options(joinedload(m.User.posts), undefer(m.User.most_likes))
                .order_by(m.User.post_count, m.User.id.desc())
            ).unique()
            seen = [(user.id, user.most_likes) for user in found]

        assert seen == [(number, 2 * number) for number in reversed(USERS)]

    def test_query_expressions(self, users: World) -> None:
        m = users.models
        with users.session() as session:
            query = (
                select(m.User)
                .options(with_expression(m.User.extra, m.User._cents + 1))
                .order_by(m.User.id)
            )
            found = [(user.extra, user.always) for user in session.scalars(query)]
            session.expunge_all()
            has_posts = exists().where(m.Post.user_id == m.User.id)
            of_one = session.scalars(
                select(m.User)
                .where(m.User.id == 4)
                .options(
                    with_expression(
                        m.User.extra,
                        case((has_posts, 1), else_=0),
                    )
                )
            ).one()
            flag = of_one.extra

        assert found == [(number * 100 + 1, 7) for number in USERS]
        assert flag == 1


def test_synonyms_are_read_written_and_queried(users: World) -> None:
    m = users.models
    with users.session() as session:
        for user in session.scalars(select(m.User).where(m.User.surname == "x")).all():
            user.surname = f"y{user.number}"
        session.commit()
        found = session.scalars(select(m.User.last).where(m.User.number == 6)).one()

    assert found == "y6"


def test_validators_run_before_rows_are_written(users: World) -> None:
    m = users.models
    with users.session() as session:
        user = session.get(m.User, 3)
        user.first = "bob"
        user.posts.append(m.Post(id=3))
        session.commit()
        found = (user.first, user.posts[2].likes)

        with pytest.raises(ValueError, match="needed"):
            user.first = ""

    assert found == ("Bob", 1)
