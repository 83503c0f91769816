"""`python examples/with_shards.py python -m examples.sqlmodel_app`."""

from . import tutorial
from .database import create_cluster, create_db_and_tables
from .models import Mission


def main() -> None:
    cluster = create_cluster()
    create_db_and_tables(cluster)
    tutorial.create_teams(cluster)
    tutorial.create_heroes(cluster)
    print(f"{tutorial.count_heroes(cluster)} heroes on {len(cluster.shards)} shards")
    for hero in tutorial.select_young_or_old(cluster):
        print(f"{hero.name} is {hero.age}")
    tutorial.join_team(cluster, "Spider-Boy", "Preventers")
    print("Preventers:", ", ".join(sorted(tutorial.heroes_of(cluster, "Preventers"))))
    tutorial.send(cluster, ["Deadpond", "Tarantula"], Mission(code="m1", place="Goa"))
    print("On mission m1:", ", ".join(sorted(tutorial.who_is_on(cluster, "m1"))))
    cluster.dispose()


main()
