"""Imperative mapping: tables and classes apart, declared with functions."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    Uuid,
    func,
    join,
    select,
)
from sqlalchemy.orm import column_property, joinedload, registry, relationship

from sqlalchemy_shards import shard_table
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

OWNERS = range(1, 9)


def make_models(say: Saying) -> Any:
    mapping = registry()
    metadata = mapping.metadata
    owners = Table(
        "owners",
        metadata,
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("name", String, nullable=False),
    )
    pets = say.shard_table(
        Table(
            "pets",
            metadata,
            Column("owner_id", ForeignKey("owners.id"), primary_key=True),
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("name", String),
            Column("age", Integer),
        ),
        "owner_id",
    )
    notes = say.shard_table(
        Table(
            "notes",
            metadata,
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("owner_id", BigInteger, nullable=False),
            Column("code", Uuid, unique=True, info={"per_shard": True}),
            Column("text", String),
        ),
        "owner_id",
        globally_unique=True,
    )

    class Owner:
        """Has attributes that the mapping gives it."""

        def __init__(self, **values: Any) -> None:
            for name, value in values.items():
                setattr(self, name, value)

    class Pet(Owner):
        pass

    class PetName(Owner):
        """Another class on the pets' table, with fewer columns."""

    class OldPet(Owner):
        """A class on a selection of the pets."""

    class OwnedPet(Owner):
        """A class on a join of two tables."""

    class Note(Owner):
        """Its identity is not the table's primary key."""

    mapping.map_imperatively(
        Owner,
        owners,
        properties={
            "pets": relationship(
                Pet, back_populates="owner", cascade="all, delete-orphan", order_by=pets.c.id
            )
        },
    )
    say.shard_table(Owner, "id")
    mapping.map_imperatively(
        Pet,
        pets,
        properties={"owner": relationship(Owner, back_populates="pets"), "called": pets.c.name},
    )
    mapping.map_imperatively(
        PetName,
        pets,
        include_properties=["owner_id", "id", "name"],
        primary_key=[*pets.primary_key],
    )
    old = select(pets).where(pets.c.age > 10).subquery("old_pets")
    mapping.map_imperatively(OldPet, old, primary_key=[old.c.owner_id, old.c.id])
    both = join(owners, pets)
    mapping.map_imperatively(
        OwnedPet,
        both,
        properties={
            "owner_id": column_property(owners.c.id, pets.c.owner_id),
            "pet_id": pets.c.id,
            "owner_name": owners.c.name,
            "pet_name": pets.c.name,
        },
    )
    mapping.map_imperatively(Note, notes, primary_key=[notes.c.owner_id, notes.c.code])
    names = (Owner, Pet, PetName, OldPet, OwnedPet, Note)
    return SimpleNamespace(metadata=metadata, pets=pets, **{each.__name__: each for each in names})


@pytest.fixture
def kennel(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        for number in OWNERS:
            owner = m.Owner(id=number, name=f"owner {number}")
            owner.pets = [
                m.Pet(id=each, called=f"pet {number}.{each}", age=each * 6) for each in (1, 2)
            ]
            session.add(owner)
    return world


def test_objects_are_written_and_loaded_with_their_relationships(kennel: World) -> None:
    m = kennel.models
    with kennel.session() as session:
        pets = session.scalars(
            select(m.Pet).options(joinedload(m.Pet.owner)).order_by(m.Pet.owner_id, m.Pet.id)
        ).all()
        found = [(pet.called, pet.owner.name) for pet in pets]
        first = session.get(m.Owner, 1)
        first.pets.pop()
        first.name = "renamed"
        session.commit()
        again = (first.name, [pet.called for pet in first.pets])

    assert found == [(f"pet {n}.{each}", f"owner {n}") for n in OWNERS for each in (1, 2)]
    assert again == ("renamed", ["pet 1.1"])


def test_several_classes_on_one_table(kennel: World) -> None:
    m = kennel.models
    with kennel.session() as session:
        name = session.get(m.PetName, (5, 2))
        name.name = "new name"
        session.commit()
        pet = session.get(m.Pet, (5, 2))
        found = (pet.called, pet.age, pet is name)

    assert found == ("new name", 12, False)


def test_a_class_mapped_to_a_selection_of_rows(kennel: World) -> None:
    m = kennel.models
    with kennel.session() as session:
        olds = session.scalars(select(m.OldPet).order_by(m.OldPet.owner_id)).all()
        found = [(old.owner_id, old.age) for old in olds]
        session.expire(olds[3])
        again = olds[3].name
        one = session.scalars(select(m.OldPet).where(m.OldPet.owner_id == 6)).one().name
        count = session.scalar(select(func.count()).select_from(m.OldPet))

    assert found == [(number, 12) for number in OWNERS]
    assert (again, one, count) == ("pet 4.2", "pet 6.2", 8)


def test_a_class_mapped_to_a_join_is_read_and_written(kennel: World) -> None:
    m = kennel.models
    with kennel.session() as session:
        session.add(m.OwnedPet(owner_id=50, pet_id=1, owner_name="fifty", pet_name="rex", age=1))
        session.flush()
        for each in session.scalars(select(m.OwnedPet).where(m.OwnedPet.pet_id == 2)):
            each.owner_name = f"of {each.pet_name}"
            each.age = 99
        session.commit()
        found = session.scalars(
            select(m.OwnedPet).where(m.OwnedPet.pet_id == 2).order_by(m.OwnedPet.owner_id)
        ).all()
        texts = [(each.owner_name, each.age) for each in found]
        session.delete(session.scalars(select(m.OwnedPet).filter_by(owner_id=50)).one())
        session.commit()

    assert texts == [(f"of pet {number}.2", 99) for number in OWNERS]
    assert len(kennel.rows("SELECT * FROM owners")) == len(OWNERS)
    assert len(kennel.rows("SELECT * FROM pets")) == 2 * len(OWNERS)


def test_an_identity_that_is_not_the_tables_primary_key(world: World) -> None:
    m = world.models
    keys = {number: uuid.UUID(int=number) for number in OWNERS}
    with world.session() as session:
        session.add_all(
            m.Note(id=100 + number, owner_id=number, code=keys[number], text="t")
            for number in OWNERS
        )
        session.commit()
        session.expunge_all()
        notes = [session.get(m.Note, (number, keys[number])) for number in OWNERS]
        for note in notes:
            note.text = f"note {note.id}"
        session.flush()
        session.delete(notes.pop())
        session.commit()
        session.expire_all()
        found = [note.text for note in notes]

    assert found == [f"note {100 + number}" for number in OWNERS[:-1]]
    assert len(world.rows("SELECT * FROM notes")) == 7


def test_a_join_or_select_itself_cannot_be_declared() -> None:
    mapping = registry()
    table = Table("things", mapping.metadata, Column("id", Uuid, primary_key=True))

    class Thing:
        pass

    mapping.map_imperatively(Thing, select(table).subquery())

    with pytest.raises(ConfigurationError, match=r"mapped to a Subquery.*declare the tables below"):
        shard_table(Thing, "id")


def test_a_class_that_is_not_mapped_yet_cannot_be_declared() -> None:
    class Later:
        pass

    with pytest.raises(ConfigurationError, match="neither a Table nor a mapped class"):
        shard_table(Later, "id")
