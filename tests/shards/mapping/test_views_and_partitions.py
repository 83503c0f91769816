"""Views, materialized views and partitioned tables, mapped as tables."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Date,
    MetaData,
    Numeric,
    String,
    Table,
    event,
    func,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship
from sqlalchemy.schema import ForeignKey

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

USERS = range(1, 9)

_VIEWS = (
    "CREATE VIEW loud_users AS SELECT id, upper(name) AS name FROM users",
    "CREATE VIEW user_totals AS "
    "SELECT user_id, count(*) AS visits, sum(price) AS spent FROM visits GROUP BY user_id",
    "CREATE MATERIALIZED VIEW best_visits AS "
    "SELECT user_id, max(price) AS price FROM visits GROUP BY user_id",
    "CREATE TABLE visits_2025 PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "CREATE TABLE visits_2026 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class User(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str]

    class Visit(say.sharded, Base):  # type: ignore[name-defined]
        """Partitioned by its day on each shard."""

        __tablename__ = "visits"
        __shard_key__ = "user_id"
        __table_args__ = {"postgresql_partition_by": "RANGE (day)"}
        user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
        day: Mapped[date] = mapped_column(Date, primary_key=True)
        price: Mapped[int] = mapped_column(BigInteger)

    # Views are of another MetaData, so that create_all() makes no tables for them.
    views = MetaData()

    def view(name: str, key: str, *columns: Column[Any]) -> Table:
        column = Column(key, BigInteger, primary_key=True, autoincrement=False)
        return say.shard_table(Table(name, views, column, *columns), key)

    class LoudUser(Base):
        __table__ = view("loud_users", "id", Column("name", String))

    class Total(Base):
        __table__ = view(
            "user_totals", "user_id", Column("visits", BigInteger), Column("spent", Numeric)
        )
        user = relationship(
            User,
            primaryjoin=lambda: User.id == Total.__table__.c.user_id,
            foreign_keys=User.id,
            uselist=False,
            viewonly=True,
        )

    class Best(Base):
        __table__ = view("best_visits", "user_id", Column("price", BigInteger))

    User.total = relationship(
        Total,
        primaryjoin=User.id == Total.__table__.c.user_id,
        foreign_keys=Total.__table__.c.user_id,
        uselist=False,
        viewonly=True,
    )
    for statement in _VIEWS:
        event.listen(Base.metadata, "after_create", DDL(statement))
    return SimpleNamespace(
        metadata=Base.metadata, User=User, Visit=Visit, LoudUser=LoudUser, Total=Total, Best=Best
    )


@pytest.fixture
def visits(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        for number in USERS:
            session.add(m.User(id=number, name=f"user {number}"))
            session.flush()
            for each in (1, 2):
                day = date(2024 + each, 6, 1)
                session.add(m.Visit(user_id=number, day=day, price=number * each))
    return world


def test_a_view_is_queried_like_a_table(visits: World) -> None:
    m = visits.models
    with visits.session() as session:
        every = session.scalars(select(m.LoudUser.name).order_by(m.LoudUser.id)).all()
        one = session.get(m.LoudUser, 4).name

    assert every == [f"USER {number}" for number in USERS]
    assert one == "USER 4"


def test_a_grouping_view_joins_and_loads_beside_its_rows(visits: World) -> None:
    m = visits.models
    with visits.session() as session:
        users = session.scalars(
            select(m.User).options(joinedload(m.User.total)).order_by(m.User.id)
        ).all()
        totals = [(user.total.visits, int(user.total.spent)) for user in users]
        back = session.get(m.Total, 6).user.name
        joined = session.execute(
            select(m.User.name, m.Total.spent)
            .join(m.Total, m.Total.user_id == m.User.id)
            .where(m.Total.spent > 20)
            .order_by(m.User.id)
        ).all()

    assert totals == [(2, 3 * number) for number in USERS]
    assert back == "user 6"
    assert [int(spent) for _, spent in joined] == [21, 24]


def test_a_view_that_can_be_written_is(visits: World) -> None:
    m = visits.models
    with visits.session() as session:
        options = {} if visits.cluster is None else {"shard": "*"}
        simple = "DROP VIEW loud_users; CREATE VIEW loud_users AS SELECT id, name FROM users"
        session.execute(text(simple), execution_options=options)
        session.add(m.LoudUser(id=100, name="through the view"))
        session.get(m.LoudUser, 2).name = "renamed"
        session.flush()
        session.delete(session.get(m.LoudUser, 100))
        session.flush()
        name = session.get(m.User, 2).name
        session.rollback()

    assert name == "renamed"


def test_a_materialized_view_is_refreshed_on_every_shard(visits: World) -> None:
    m = visits.models
    options = {} if visits.cluster is None else {"shard": "*"}
    with visits.session() as session:
        refresh = text("REFRESH MATERIALIZED VIEW best_visits")
        session.execute(refresh, execution_options=options)
        session.commit()
        found = session.scalars(select(m.Best.price).order_by(m.Best.user_id)).all()
        session.execute(refresh.execution_options(**options))

    assert found == [2 * number for number in USERS]


def test_a_partitioned_table_is_read_and_written(visits: World) -> None:
    m = visits.models
    with visits.session() as session:
        for visit in session.scalars(select(m.Visit).where(m.Visit.day < date(2026, 1, 1))):
            visit.price = 0
        moved = session.get(m.Visit, (3, date(2026, 6, 1)))
        moved.day = date(2025, 12, 24)
        session.delete(session.get(m.Visit, (4, date(2025, 6, 1))))
        session.flush()
        changed = session.execute(
            update(m.Visit).where(m.Visit.user_id == 5).values(price=m.Visit.price + 1)
        ).rowcount
        session.commit()
        total = session.scalar(select(func.count()).select_from(m.Visit))

    assert (changed, total) == (2, 15)
    assert len(visits.rows("SELECT * FROM visits_2025")) == 8
    assert visits.rows("SELECT price FROM visits_2025 WHERE user_id = 5") == [(1,)]
