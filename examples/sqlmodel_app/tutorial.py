"""The steps of SQLModel's tutorial, one function for each chapter."""

from collections.abc import Sequence

from sqlmodel import col, func, or_, select

from sqlalchemy_shards import Cluster

from .database import Session
from .models import Hero, HeroMissionLink, Mission, Team


def create_teams(cluster: Cluster) -> None:
    with Session(cluster) as session:
        session.add(Team(code="Preventers", headquarters="Sharp Tower"))
        session.add(Team(code="Z-Force", headquarters="Sister Margaret's Bar"))
        session.commit()


def create_heroes(cluster: Cluster) -> list[Hero]:
    heroes = [
        Hero(name="Deadpond", secret_name="Dive Wilson", team_code="Z-Force"),
        Hero(name="Spider-Boy", secret_name="Pedro Parqueador"),
        Hero(name="Rusty-Man", secret_name="Tommy Sharp", age=48, team_code="Preventers"),
        Hero(name="Tarantula", secret_name="Natalia Roman-on", age=32),
        Hero(name="Black Lion", secret_name="Trevor Challa", age=35),
        Hero(name="Dr. Weird", secret_name="Steve Weird", age=36),
        Hero(name="Captain North America", secret_name="Esteban Rogelios", age=93),
    ]
    with Session(cluster) as session:
        session.add_all(heroes)
        session.commit()
        for hero in heroes:
            session.refresh(hero)
    return heroes


def select_heroes(cluster: Cluster) -> Sequence[Hero]:
    with Session(cluster) as session:
        return session.exec(select(Hero)).all()


def select_by_name(cluster: Cluster, name: str) -> Hero | None:
    with Session(cluster) as session:
        return session.exec(select(Hero).where(Hero.name == name)).first()


def select_young_or_old(cluster: Cluster) -> Sequence[Hero]:
    with Session(cluster) as session:
        statement = select(Hero).where(or_(col(Hero.age) <= 35, col(Hero.age) > 90))
        return session.exec(statement.order_by(col(Hero.age))).all()


def select_page(cluster: Cluster, offset: int, limit: int) -> Sequence[Hero]:
    with Session(cluster) as session:
        return session.exec(select(Hero).order_by(Hero.id).offset(offset).limit(limit)).all()


def count_heroes(cluster: Cluster) -> int:
    with Session(cluster) as session:
        return session.exec(select(func.count()).select_from(Hero)).one()


def update_age(cluster: Cluster, name: str, age: int) -> Hero:
    with Session(cluster) as session:
        hero = session.exec(select(Hero).where(Hero.name == name)).one()
        hero.age = age
        session.add(hero)
        session.commit()
        session.refresh(hero)
        return hero


def delete_hero(cluster: Cluster, name: str) -> None:
    with Session(cluster) as session:
        hero = session.exec(select(Hero).where(Hero.name == name)).one()
        session.delete(hero)
        session.commit()


def join_teams(cluster: Cluster) -> Sequence[tuple[Hero, Team | None]]:
    with Session(cluster) as session:
        return session.exec(select(Hero, Team).join(Team, isouter=True)).all()


def heroes_of(cluster: Cluster, code: str) -> list[str]:
    """Names of a team's heroes, which come from all shards."""
    with Session(cluster) as session:
        return [hero.name for hero in session.get_one(Team, code).heroes]


def join_team(cluster: Cluster, name: str, code: str | None) -> Hero:
    with Session(cluster) as session:
        hero = session.exec(select(Hero).where(Hero.name == name)).one()
        hero.team = None if code is None else session.get_one(Team, code)
        session.add(hero)
        session.commit()
        session.refresh(hero)
        return hero


def send(cluster: Cluster, names: Sequence[str], mission: Mission) -> None:
    """Send heroes on a mission, the first in training: a link model with a field of its own."""
    with Session(cluster) as session:
        session.add(mission)
        heroes = session.exec(select(Hero).where(col(Hero.name).in_(names))).all()
        for hero in heroes:
            is_training = hero.name == names[0]
            session.add(HeroMissionLink(hero=hero, mission=mission, is_training=is_training))
        session.commit()


def who_is_on(cluster: Cluster, code: str) -> dict[str, bool]:
    """The heroes on a mission, and whether they are in training."""
    with Session(cluster) as session:
        mission = session.get_one(Mission, code)
        return {link.hero.name: link.is_training for link in mission.hero_links}
