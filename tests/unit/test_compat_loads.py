"""Which SELECTs the ORM makes by itself, to load attributes, is told on every SQLAlchemy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    JSON,
    Engine,
    ForeignKey,
    Integer,
    String,
    create_engine,
    event,
    inspect,
    literal,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import (
    DeclarativeBase,
    Session,
    mapped_column,
    relationship,
    selectin_polymorphic,
    selectinload,
    subqueryload,
)

from sqlalchemy_shards import _compat

if TYPE_CHECKING:
    from collections.abc import Iterator


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}
    id = mapped_column(Integer, primary_key=True)
    kind = mapped_column(String)
    name = mapped_column(String)
    notes = mapped_column(String, deferred=True)
    pets = relationship("Pet", back_populates="owner")


class Engineer(Person):
    __tablename__ = "engineers"
    __mapper_args__ = {"polymorphic_identity": "engineer"}
    id = mapped_column(ForeignKey("people.id"), primary_key=True)
    language = mapped_column(String)


class Pet(Base):
    __tablename__ = "pets"
    id = mapped_column(Integer, primary_key=True)
    owner_id = mapped_column(ForeignKey("people.id"))
    owner = relationship(Person, back_populates="pets")


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Engineer(id=1, language="python", pets=[Pet(id=1)]))
    yield engine
    engine.dispose()


@contextmanager
def told(engine: Engine) -> Iterator[list[tuple[bool, bool]]]:
    """For each SELECT that runs meanwhile: is it a refresh, is it the loaders'?"""
    answers: list[tuple[bool, bool]] = []

    def note(connection: Any, cursor: Any, sql: str, values: Any, context: Any, many: bool) -> None:
        compiled = context.compiled
        answers.append((_compat.is_refresh(compiled), _compat.is_loaders(compiled)))

    event.listen(engine, "before_cursor_execute", note)
    yield answers
    event.remove(engine, "before_cursor_execute", note)


def test_loads_of_one_objects_attributes(engine: Engine) -> None:
    with Session(engine) as session:
        person = session.scalars(select(Person)).one()
        with told(engine) as answers:
            _ = person.language
            _ = person.notes
            session.refresh(person)
            session.expire(person)
            _ = person.name

    assert answers == [(True, True)] * len(answers)
    assert len(answers) >= 4


def test_what_an_application_asks_is_no_load_of_an_attribute(engine: Engine) -> None:
    with Session(engine) as session, told(engine) as answers:
        session.scalars(select(Person).where(Person.id.in_([1]))).one()
        session.scalars(select(Engineer)).one()
        session.execute(select(Person.__table__.c.id))
        session.query(Person).count()

    assert answers == [(False, False)] * 4


@pytest.mark.parametrize(
    "option",
    [
        selectinload(Person.pets),
        subqueryload(Person.pets),
        selectin_polymorphic(Person, [Engineer]),
    ],
    ids=["selectinload", "subqueryload", "selectin_polymorphic"],
)
def test_loads_beside_a_query(engine: Engine, option: Any) -> None:
    with Session(engine) as session, told(engine) as answers:
        session.scalars(select(Person).options(option)).one()

    assert answers == [(False, False), (False, True)]


def test_lazy_loads(engine: Engine) -> None:
    with Session(engine) as session:
        person = session.scalars(select(Person)).one()
        pet = session.scalars(select(Pet)).one()
        session.expunge(person)
        with told(engine) as answers:
            owner = pet.owner
            _ = owner.pets

    assert answers == [(False, True), (False, True)]


def test_an_identity_that_was_switched_comes_back_with_a_rollback(engine: Engine) -> None:
    with Session(engine) as session:
        pet = session.scalars(select(Pet)).one()
        _compat.switch_identity(session, inspect(pet), (Pet, (2,), None))
        _compat.switch_identity(session, inspect(pet), (Pet, (3,), None))
        switched = session.identity_map.get((Pet, (3,), None))
        session.rollback()
        restored = session.identity_map.get((Pet, (1,), None))

    assert switched is pet
    assert restored is pet


def test_parameters_are_bound_as_the_driver_takes_them() -> None:
    kind = literal({"a": 1}, JSON)
    compiled = select(kind, literal(5)).compile(dialect=sqlite.dialect())
    values = _compat.bound_values(compiled)

    assert list(values.values()) == ['{"a": 1}', 5]
