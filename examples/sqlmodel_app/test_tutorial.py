import sqlmodel
from sqlmodel import select

from sqlalchemy_shards import Cluster

from . import tutorial
from .database import Session
from .models import Hero, HeroMissionLink, Mission


def test_rows_are_created_and_selected(cluster: Cluster) -> None:
    heroes = tutorial.select_heroes(cluster)

    assert len(heroes) == tutorial.count_heroes(cluster) == 7
    assert tutorial.select_by_name(cluster, "Tarantula").age == 32
    assert tutorial.select_by_name(cluster, "Nobody") is None


def test_where_and_or(cluster: Cluster) -> None:
    heroes = tutorial.select_young_or_old(cluster)

    assert [hero.age for hero in heroes] == [32, 35, 93]


def test_pages_hold_every_hero_once(cluster: Cluster) -> None:
    pages = [tutorial.select_page(cluster, offset, 3) for offset in (0, 3, 6)]

    ids = [hero.id for page in pages for hero in page]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert ids == sorted(hero.id for hero in tutorial.select_heroes(cluster))


def test_a_row_is_updated(cluster: Cluster) -> None:
    assert tutorial.update_age(cluster, "Spider-Boy", 16).age == 16

    assert tutorial.select_by_name(cluster, "Spider-Boy").age == 16


def test_a_row_is_deleted_with_its_links(cluster: Cluster) -> None:
    tutorial.send(cluster, ["Tarantula"], Mission(code="m1", place="Goa"))

    tutorial.delete_hero(cluster, "Tarantula")

    assert tutorial.select_by_name(cluster, "Tarantula") is None
    assert tutorial.who_is_on(cluster, "m1") == {}


def test_a_left_join_keeps_heroes_without_a_team(cluster: Cluster) -> None:
    teams = {hero.name: team and team.code for hero, team in tutorial.join_teams(cluster)}

    assert teams["Deadpond"] == "Z-Force"
    assert teams["Rusty-Man"] == "Preventers"
    assert list(teams.values()).count(None) == 5


def test_a_hero_joins_and_leaves_a_team(cluster: Cluster) -> None:
    for name in ("Spider-Boy", "Black Lion", "Dr. Weird"):
        tutorial.join_team(cluster, name, "Preventers")
    tutorial.join_team(cluster, "Rusty-Man", None)

    names = tutorial.heroes_of(cluster, "Preventers")

    assert sorted(names) == ["Black Lion", "Dr. Weird", "Spider-Boy"]


def test_many_heroes_go_on_many_missions(cluster: Cluster) -> None:
    tutorial.send(cluster, ["Deadpond", "Tarantula", "Dr. Weird"], Mission(code="m1", place="Goa"))
    tutorial.send(cluster, ["Tarantula"], Mission(code="m2", place="Pune"))

    assert tutorial.who_is_on(cluster, "m1") == {
        "Deadpond": True,
        "Tarantula": False,
        "Dr. Weird": False,
    }
    with Session(cluster) as session:
        tarantula = session.exec(select(Hero).where(Hero.name == "Tarantula")).one()
        assert {link.mission.place for link in tarantula.mission_links} == {"Goa", "Pune"}


def test_a_link_lives_beside_its_hero(cluster: Cluster) -> None:
    tutorial.send(cluster, ["Deadpond", "Tarantula"], Mission(code="m1", place="Goa"))

    with Session(cluster) as session:
        for link in session.exec(select(HeroMissionLink)):
            assert session.shard_of(link) == session.shard_of(link.hero)


def test_a_plain_session_of_sqlmodel_works_too(cluster: Cluster) -> None:
    with sqlmodel.Session(cluster.engine) as session:
        hero = session.exec(select(Hero).where(Hero.name == "Deadpond")).one()
        hero.age = 40
        session.commit()

        assert session.get_one(Hero, hero.id).age == 40
