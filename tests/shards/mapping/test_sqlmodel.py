"""SQLModel: its models, its session, its `exec()`."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, func
from sqlalchemy.orm import registry, selectinload
from sqlmodel import Field, Relationship, Session, SQLModel, delete, select, update

from sqlalchemy_shards import ShardedSession

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

TEAMS = range(1, 9)


def make_models(say: "Saying") -> Any:
    class Base(SQLModel, registry=registry()):
        """A base of its own, so that the models can be made more than once."""

    class Power(Base, table=True):
        name: str = Field(primary_key=True)
        strength: int = 1

    class TeamPower(Base, table=True):
        team_id: int = Field(primary_key=True, foreign_key="team.id", sa_type=BigInteger)
        power_name: str = Field(primary_key=True, foreign_key="power.name")

    class TeamBase(Base):
        """What a request holds: no table."""

        name: str = Field(index=True, max_length=20)
        secret: str | None = None

    class Team(TeamBase, say.sharded, table=True):  # type: ignore[name-defined, call-arg]
        __shard_key__ = "id"
        id: int = Field(
            primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False}
        )
        heroes: list["Hero"] = Relationship(back_populates="team", cascade_delete=True)
        powers: list["Power"] = Relationship(link_model=TeamPower)

    class Hero(Base, table=True):
        team_id: int = Field(primary_key=True, foreign_key="team.id", sa_type=BigInteger)
        number: int = Field(primary_key=True)
        name: str
        team: "Team" = Relationship(back_populates="heroes")

    say.shard_table(Hero, "team_id")
    say.shard_table(TeamPower.__table__, "team_id")  # type: ignore[attr-defined]
    say.reference_table(Power)
    classes = (Power, Team, Hero, TeamPower, TeamBase)
    return SimpleNamespace(
        metadata=Base.metadata, Base=Base, **{each.__name__: each for each in classes}
    )


@pytest.fixture
def teams(world: "World") -> "World":
    m = world.models
    with Session(world.engine) as session:
        powers = [m.Power(name=name) for name in ("fly", "run")]
        session.add_all(powers)
        session.flush()
        for number in TEAMS:
            heroes = [m.Hero(number=each, name=f"hero {number}.{each}") for each in (1, 2)]
            session.add(m.Team(id=number, name=f"team {number}", heroes=heroes, powers=powers))
        session.commit()
    return world


def test_exec_gives_objects_and_rows(teams: "World") -> None:
    m = teams.models
    with Session(teams.engine) as session:
        one = session.exec(select(m.Team).where(m.Team.id == 4)).one().name
        every = session.exec(select(m.Hero).order_by(m.Hero.team_id, m.Hero.number)).all()
        names = [hero.name for hero in every]
        pairs = session.exec(
            select(m.Team, m.Hero)
            .join(m.Hero)
            .where(m.Hero.number == 2)
            .order_by(m.Team.id)
            .offset(2)
            .limit(3)
        ).all()
        found = [(team.id, hero.name) for team, hero in pairs]
        count = session.exec(select(func.count()).select_from(m.Hero)).one()

    assert one == "team 4"
    assert names == [f"hero {number}.{each}" for number in TEAMS for each in (1, 2)]
    assert found == [(3, "hero 3.2"), (4, "hero 4.2"), (5, "hero 5.2")]
    assert count == 16


def test_relationships_load_lazily_and_eagerly(teams: "World") -> None:
    m = teams.models
    with Session(teams.engine) as session:
        lazy = session.get(m.Hero, (6, 1)).team.powers
        names = {power.name for power in lazy}
        teams_found = session.exec(
            select(m.Team).options(selectinload(m.Team.heroes)).order_by(m.Team.id)
        ).all()
        sizes = [len(team.heroes) for team in teams_found]

    assert names == {"fly", "run"}
    assert sizes == [2] * len(TEAMS)


def test_update_from_a_request_and_refresh(teams: "World") -> None:
    m = teams.models
    patch = m.TeamBase(name="changed")
    with Session(teams.engine) as session:
        for number in (1, 2, 3, 4):
            team = session.get(m.Team, number)
            team.sqlmodel_update(patch.model_dump(exclude_unset=True))
            session.add(team)
        session.commit()
        session.refresh(team)
        seen = team.model_dump()

    assert seen == {"id": 4, "name": "changed", "secret": None}
    assert teams.rows("SELECT id FROM team WHERE name = 'changed'") == [(n,) for n in (1, 2, 3, 4)]


def test_deletes_cascade_over_links(teams: "World") -> None:
    m = teams.models
    with Session(teams.engine) as session:
        session.delete(session.get(m.Team, 2))
        team, kept = session.get(m.Team, 3), session.get(m.Team, 5)
        team.powers.clear()
        kept.heroes.pop()
        session.commit()

    assert len(teams.rows("SELECT * FROM team")) == 7
    assert len(teams.rows("SELECT * FROM hero")) == 13
    assert len(teams.rows("SELECT * FROM teampower")) == 12


def test_update_and_delete_statements(teams: "World") -> None:
    m = teams.models
    with Session(teams.engine) as session:
        renamed = session.exec(
            update(m.Hero).where(m.Hero.team_id.in_([1, 2])).values(name="x")
        ).rowcount
        deleted = session.exec(delete(m.TeamPower).where(m.TeamPower.team_id == 8)).rowcount
        session.commit()

    assert (renamed, deleted) == (4, 2)


def test_models_in_a_sharded_session(teams: "World") -> None:
    m = teams.models
    with teams.session() as session:
        found = session.scalars(select(m.Team).order_by(m.Team.id)).all()
        names = [team.name for team in found]
        same = {
            (session.shard_of(team), session.shard_of(team.heroes[0]))
            for team in found
            if isinstance(session, ShardedSession)
        }

    assert names == [f"team {number}" for number in TEAMS]
    assert all(of_team == of_hero for of_team, of_hero in same)
