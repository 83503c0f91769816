"""Soft deletes: `with_loader_criteria`, put on every statement by an event."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, event, func, select, update
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    joinedload,
    lazyload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
    with_loader_criteria,
)
from sqlalchemy.schema import ForeignKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import ORMExecuteState, Session

    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

TEAMS = range(1, 9)


class SoftDeleted:
    """A mixin of the application's, which its event names."""

    is_deleted: Mapped[bool] = mapped_column(default=False)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Team(SoftDeleted, say.sharded, Base):  # type: ignore[misc, name-defined]
        __tablename__ = "teams"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        players: Mapped[list[Any]] = relationship(
            "Player", back_populates="team", order_by="Player.id"
        )

    class Player(SoftDeleted, say.sharded, Base):  # type: ignore[misc, name-defined]
        __tablename__ = "players"
        __shard_key__ = "team_id"
        team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"), primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        team: Mapped[Team] = relationship(back_populates="players")

    return SimpleNamespace(metadata=Base.metadata, Team=Team, Player=Player)


def leave_out_deleted(state: ORMExecuteState) -> None:
    if state.execution_options.get("include_deleted") or not (
        state.is_select or state.is_update or state.is_delete
    ):
        return
    if state.is_column_load or state.is_relationship_load:
        return
    state.statement = state.statement.options(
        with_loader_criteria(
            SoftDeleted, lambda cls: cls.is_deleted.is_(False), include_aliases=True
        )
    )


@pytest.fixture
def session(world: World) -> Iterator[Session]:
    """Of each team's three players the second is deleted; so is team 2."""
    m = world.models
    with world.session() as session:
        for number in TEAMS:
            players = [m.Player(id=each, is_deleted=each == 2) for each in (1, 2, 3)]
            session.add(m.Team(id=number, is_deleted=number == 2, players=players))
        session.commit()
    with world.session() as session:
        event.listen(session, "do_orm_execute", leave_out_deleted)
        yield session


LEFT = [number for number in TEAMS if number != 2]


@pytest.mark.parametrize("loader", [lazyload, joinedload, selectinload, subqueryload])
def test_deleted_rows_are_not_loaded_in_any_way(
    world: World, session: Session, loader: Callable[..., Any]
) -> None:
    m = world.models
    query = select(m.Team).options(loader(m.Team.players)).order_by(m.Team.id)
    teams = session.scalars(query).unique().all()

    found = [(team.id, [player.id for player in team.players]) for team in teams]

    assert found == [(number, [1, 3]) for number in LEFT]


def test_a_subquery_load_of_one_key_leaves_them_out(world: World, session: Session) -> None:
    m = world.models
    query = select(m.Team).where(m.Team.id == 3).options(subqueryload(m.Team.players))

    team = session.scalars(query).one()

    assert [player.id for player in team.players] == [1, 3]


def test_joins_aliases_and_counts_leave_them_out(world: World, session: Session) -> None:
    m = world.models
    other = aliased(m.Player)
    pairs = session.execute(
        select(m.Team.id, other.id)
        .join(other, other.team_id == m.Team.id)
        .where(m.Team.id.in_([1, 2, 3]))
        .order_by(m.Team.id, other.id)
    ).all()
    count = session.scalar(select(func.count()).select_from(m.Player))

    assert pairs == [(1, 1), (1, 3), (3, 1), (3, 3)]
    assert count == 16


def test_get_and_refresh_of_a_deleted_object(world: World, session: Session) -> None:
    m = world.models

    gone = session.get(m.Team, 2)
    kept = session.get(m.Team, 2, execution_options={"include_deleted": True})

    assert gone is None
    assert kept.is_deleted


def test_updates_leave_deleted_rows_alone(world: World, session: Session) -> None:
    m = world.models
    session.execute(
        update(m.Player)
        .where(m.Player.team_id.in_([4, 5]))
        .values(is_deleted=True)
        .execution_options(synchronize_session=False)
    )
    changed = session.execute(
        update(m.Player).where(m.Player.team_id == 6).values(is_deleted=True)
    ).rowcount
    session.commit()

    assert changed == 2
    rows = world.rows("SELECT team_id, id FROM players WHERE is_deleted")
    assert len(rows) == 5 * 1 + 3 * 3


def test_the_option_is_switched_off_for_one_statement(world: World, session: Session) -> None:
    m = world.models
    query = select(func.count()).select_from(m.Player)

    every = session.scalar(query, execution_options={"include_deleted": True})

    assert every == 24
