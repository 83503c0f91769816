"""Types whose values SQL wraps, in and out; what the wrapping adds are constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Integer,
    String,
    TypeDecorator,
    create_engine,
    delete,
    exists,
    func,
    select,
    union,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Session, aliased, mapped_column

from sqlalchemy_shards import ShardedSession, ShardKeyMixin, create_cluster
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

EVERYWHERE = {"scatter": "allow"}


class Cents(TypeDecorator[int]):
    """Is stored a hundredfold."""

    impl = Integer
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return bindparam * 100

    def column_expression(self, column: Any) -> Any:
        return column / 100


class Marked(TypeDecorator[str]):
    """Is stored with a mark before it."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.concat("#", bindparam)

    def column_expression(self, column: Any) -> Any:
        return func.substr(column, 2)


class Base(DeclarativeBase):
    pass


class Plain(DeclarativeBase):
    pass


def make_article(base: Any, *mixins: type) -> Any:
    class Article(*mixins, base):  # type: ignore[misc]
        __tablename__ = "articles"
        __shard_key__ = "id"
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        price = mapped_column(Cents)
        name = mapped_column(Marked)
        other = mapped_column(BigInteger)

    return Article


DECLARED = make_article(Base, ShardKeyMixin)
UNDECLARED = make_article(Plain)

READS: dict[str, Callable[[Any, int], Any]] = {
    "a filter": lambda a, x: select(a.id, a.price, a.name).where(a.price > x).order_by(a.id),
    "limited": lambda a, x: select(a.id, a.price).where(a.price > x).order_by(a.id).limit(3),
    "by the wrapped": lambda a, x: (
        select(a.price, a.id).where(a.price >= x).order_by(a.price.desc(), a.id)
    ),
    "a list": lambda a, x: select(a.id).where(a.name.in_([f"n{x}", "n4"])).order_by(a.id),
    "an entity": lambda a, x: select(a).where(a.name != f"n{x}").order_by(a.id),
    "groups": lambda a, x: (
        select(a.price, func.count()).where(a.price != x).group_by(a.price).order_by(a.price)
    ),
    "an aggregate": lambda a, x: select(func.max(a.id), func.count()).where(a.price < x),
    "a union": lambda a, x: union(
        select(a.id).where(a.price == x), select(a.other).where(a.name == f"n{x}")
    ).order_by("id"),
    "a subquery": lambda a, x: (lambda few: select(few.id, few.price).order_by(few.id))(
        aliased(a, select(a).where(a.price > x).order_by(a.id).limit(5).subquery())
    ),
    "a join of other keys": lambda a, x: (
        lambda b: select(a.id, b.name).join(b, b.id == a.other).where(b.price > x).order_by(a.id)
    )(aliased(a)),
    "exists elsewhere": lambda a, x: (
        lambda b: select(a.id).where(exists().where(b.other == a.id, b.price == x)).order_by(a.id)
    )(aliased(a)),
}


@pytest.fixture(scope="module")
def two(servers: PostgresServers) -> Iterator[tuple[Callable[[], Session], Callable[[], Session]]]:
    """Sessions of one database and of four shards, with the same rows."""
    with own_urls(servers, "wrapped", ["s0", "s1", "s2", "s3", "one"], spread=True) as urls:
        engine = create_engine(urls.pop("one"))
        cluster = create_cluster(urls)
        Plain.metadata.create_all(engine)
        cluster.create_all(Base.metadata)
        makers = (lambda: Session(engine), lambda: ShardedSession(cluster))
        for make, article in zip(makers, (UNDECLARED, DECLARED), strict=True):
            with make() as session, session.begin():
                session.add_all(
                    article(id=n, price=n % 5, name=f"n{n % 6}", other=n * 7 % 24 + 1)
                    for n in range(1, 25)
                )
        yield makers
        cluster.dispose()
        engine.dispose()


@pytest.mark.parametrize("name", READS)
def test_reads(two: tuple[Callable[[], Session], ...], name: str) -> None:
    found = []
    for make, article in zip(two, (UNDECLARED, DECLARED), strict=True):
        with make() as session:
            found.append(
                [
                    [shown(each) for each in session.execute(READS[name](article, value))]
                    for value in (1, 3)  # the second meets the kept plan
                ]
            )

    assert found[0] == found[1]
    assert all(found[0])
    assert found[0][0] != found[0][1]


def shown(row: Any) -> tuple[Any, ...]:
    article = row[0]
    if hasattr(article, "price"):
        return article.id, article.price, article.name
    return tuple(row)


def test_writes(two: tuple[Callable[[], Session], ...]) -> None:
    found = []
    for make, a in zip(two, (UNDECLARED, DECLARED), strict=True):
        b = aliased(a)
        with make() as session:
            for statement in (
                update(a).where(a.price > 2).values(price=7, name="new"),
                update(a).where(a.other == b.id, b.price == 7).values(name="by another"),
                delete(a).where(a.price == 1, a.name != "by another"),
            ):
                options = {**EVERYWHERE, "synchronize_session": False}
                session.execute(statement, execution_options=options)
            found.append(session.execute(select(a.id, a.price, a.name).order_by(a.id)).all())
            session.rollback()

    assert [tuple(row) for row in found[0]] == [tuple(row) for row in found[1]]
    assert {row.name for row in found[0]} > {"new", "by another"}
