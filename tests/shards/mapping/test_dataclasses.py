"""Classes mapped as dataclasses."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, Column, ForeignKey, String, Table, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    joinedload,
    mapped_column,
    registry,
    relationship,
    selectinload,
)

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

TEAMS = range(1, 9)


@dataclass
class Badge:
    """An ordinary dataclass, mapped imperatively."""

    team_id: int
    number: int
    text: str = "plain"


def make_models(say: Saying) -> Any:
    numbers = itertools.count(1000)

    class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
        pass

    # The order of the bases is free: one of each.
    class Team(say.sharded, Base):  # type: ignore[misc, name-defined]
        __tablename__ = "teams"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str]
        motto: Mapped[str | None] = mapped_column(default=None)
        players: Mapped[list[Any]] = relationship(
            "Player",
            default_factory=list,
            back_populates="team",
            cascade="all, delete-orphan",
            order_by="Player.number",
        )

    class Player(Base, say.sharded):  # type: ignore[misc, name-defined]
        __tablename__ = "players"
        __shard_key__ = "team_id"
        team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"), primary_key=True, init=False)
        # Given by the client at the flush, never by the constructor.
        number: Mapped[int] = mapped_column(
            BigInteger,
            primary_key=True,
            init=False,
            insert_default=lambda: next(numbers),
            autoincrement=False,
        )
        token: Mapped[uuid.UUID] = mapped_column(default_factory=uuid.uuid4, repr=False)
        skill: Mapped[int] = mapped_column(default=1)
        team: Mapped[Any] = relationship(Team, back_populates="players", default=None)

    class Frozen(Base, say.reference, kw_only=False, unsafe_hash=True):  # type: ignore[misc, name-defined, call-arg]
        __tablename__ = "codes"
        code: Mapped[str] = mapped_column(String(4), primary_key=True)
        text: Mapped[str]

    class Badged(Badge):
        pass

    badges = Table(
        "badges",
        Base.metadata,
        Column("team_id", ForeignKey("teams.id"), primary_key=True),
        Column("number", BigInteger, primary_key=True, autoincrement=False),
        Column("text", String),
    )
    registry(metadata=Base.metadata).map_imperatively(Badged, badges)
    say.shard_table(Badged, "team_id")
    return SimpleNamespace(
        metadata=Base.metadata, Team=Team, Player=Player, Code=Frozen, Badge=Badged
    )


@pytest.fixture
def teams(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        for number in TEAMS:
            players = [m.Player(skill=each) for each in (5, 6)]
            session.add(m.Team(id=number, name=f"team {number}", players=players))
    return world


def test_keys_that_the_constructor_does_not_take(teams: World) -> None:
    m = teams.models
    with teams.session() as session:
        found = session.scalars(
            select(m.Team).options(selectinload(m.Team.players)).order_by(m.Team.id)
        ).all()
        skills = [[player.skill for player in team.players] for team in found]
        owners = [{player.team_id for player in team.players} for team in found]
        tokens = {player.token for team in found for player in team.players}

    assert skills == [[5, 6]] * len(TEAMS)
    assert owners == [{number} for number in TEAMS]
    assert len(tokens) == 16


def test_the_parent_is_given_by_its_relationship(teams: World) -> None:
    m = teams.models
    with teams.session() as session:
        for team in session.scalars(select(m.Team)):
            session.add(m.Player(team=team, skill=9))
        session.commit()
        found = session.scalars(
            select(m.Player)
            .where(m.Player.skill == 9)
            .options(joinedload(m.Player.team))
            .order_by(m.Player.team_id)
        ).all()
        names = [player.team.name for player in found]

    assert names == [f"team {number}" for number in TEAMS]


def test_what_dataclasses_generate_works_on_loaded_objects(teams: World) -> None:
    m = teams.models
    with teams.session() as session:
        team = session.get(m.Team, 3)
        text = repr(team.players[0])
        session.expire(team)
        again = session.get(m.Team, 3, populate_existing=True).name
        session.add(m.Code(code="a", text="b"))
        session.commit()
        code = session.get(m.Code, "a")
        is_equal = code == m.Code(code="a", text="b")

    assert "Player(team_id=3" in text
    assert "token" not in text
    assert again == "team 3"
    assert is_equal


def test_orphans_are_deleted_where_they_live(teams: World) -> None:
    m = teams.models
    with teams.session() as session:
        for team in session.scalars(select(m.Team)).all():
            team.players.clear()
        session.delete(session.get(m.Team, 4))
        session.commit()

    assert teams.rows("SELECT * FROM players") == []
    assert len(teams.rows("SELECT * FROM teams")) == 7


def test_a_dataclass_that_is_mapped_imperatively(teams: World) -> None:
    m = teams.models
    with teams.session() as session:
        session.add_all([m.Badge(number, 1) for number in TEAMS])
        session.commit()
        badges = session.scalars(select(m.Badge).order_by(m.Badge.team_id)).all()
        badges[2].text = "gold"
        session.commit()
        found = [badge.text for badge in badges]

    assert found == ["plain", "plain", "gold", *["plain"] * 5]
