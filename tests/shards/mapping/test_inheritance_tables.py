"""Single-table, joined and concrete inheritance."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Integer, String, func, select
from sqlalchemy.ext.declarative import AbstractConcreteBase, ConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    mapped_column,
    relationship,
    selectin_polymorphic,
    selectinload,
    with_polymorphic,
)

from tests.shards.shop import Statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

FIRMS = range(1, 9)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Firm(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "firms"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str]
        staff: Mapped[list[Any]] = relationship(
            "Employee", back_populates="firm", cascade="all, delete-orphan", order_by="Employee.id"
        )
        vehicles: Mapped[list[Any]] = relationship("Vehicle", order_by="Vehicle.id", viewonly=True)

    class Employee(say.sharded, Base):  # type: ignore[name-defined]
        """Joined: the base's row and the child's row lie on one shard."""

        __tablename__ = "employees"
        __shard_key__ = "firm_id"
        firm_id: Mapped[int] = mapped_column(ForeignKey("firms.id"), primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        kind: Mapped[str]
        name: Mapped[str]
        firm: Mapped[Any] = relationship(Firm, back_populates="staff")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

    def to_employee(table: str) -> tuple[ForeignKeyConstraint]:
        columns = ["firm_id", "id"]
        return (ForeignKeyConstraint(columns, [f"{table}.{column}" for column in columns]),)

    class Engineer(Employee):
        __tablename__ = "engineers"
        __table_args__ = to_employee("employees")
        firm_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        language: Mapped[str]
        __mapper_args__ = {"polymorphic_identity": "engineer", "polymorphic_load": "selectin"}

    class Chief(Engineer):
        """The third level."""

        __tablename__ = "chiefs"
        __table_args__ = to_employee("engineers")
        firm_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        stars: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "chief", "polymorphic_load": "selectin"}

    class Manager(Employee):
        __tablename__ = "managers"
        __table_args__ = to_employee("employees")
        firm_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        office: Mapped[str]
        __mapper_args__ = {"polymorphic_identity": "manager", "polymorphic_load": "inline"}

    class Vehicle(say.sharded, Base):  # type: ignore[name-defined]
        """Single table, with a column of its own for each child."""

        __tablename__ = "vehicles"
        __shard_key__ = "firm_id"
        firm_id: Mapped[int] = mapped_column(ForeignKey("firms.id"), primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}

    class Car(Vehicle):
        seats: Mapped[int | None]
        __mapper_args__ = {"polymorphic_identity": "car"}

    class Truck(Vehicle):
        seats: Mapped[int | None] = mapped_column(Integer, use_existing_column=True)
        tons: Mapped[int | None]
        __mapper_args__ = {"polymorphic_identity": "truck"}

    class Building(say.sharded, ConcreteBase, Base):  # type: ignore[name-defined]
        """Concrete: each class has a table, and says how it spreads."""

        __tablename__ = "buildings"
        __shard_key__ = "firm_id"
        firm_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        street: Mapped[str]
        __mapper_args__ = {"polymorphic_identity": "building", "concrete": True}

    class Tower(Building):
        __tablename__ = "towers"
        firm_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        street: Mapped[str]
        floors: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "tower", "concrete": True}

    class Paper(say.sharded, AbstractConcreteBase, Base):  # type: ignore[name-defined]
        """Has no table, and hands its shard key down."""

        __shard_key__ = "firm_id"
        strict_attrs = True
        firm_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        title: Mapped[str] = mapped_column(String(20))

    class Contract(Paper):
        __tablename__ = "contracts"
        value: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "contract", "concrete": True}

    class Letter(Paper):
        __tablename__ = "letters"
        sender: Mapped[str]
        __mapper_args__ = {"polymorphic_identity": "letter", "concrete": True}

    Base.registry.configure()
    classes = (Firm, Employee, Engineer, Chief, Manager, Vehicle, Car, Truck)
    concrete = (Building, Tower, Paper, Contract, Letter)
    return SimpleNamespace(
        metadata=Base.metadata, **{each.__name__: each for each in (*classes, *concrete)}
    )


@pytest.fixture
def firms(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        for number in FIRMS:
            firm = m.Firm(id=number, name=f"firm {number}")
            firm.staff = [
                m.Employee(id=1, name="a"),
                m.Engineer(id=2, name="b", language=f"l{number}"),
                m.Manager(id=3, name="c", office=f"o{number}"),
                m.Chief(id=4, name="d", language="x", stars=number),
            ]
            session.add(firm)
            session.flush()
            session.add_all(
                [
                    m.Car(firm_id=number, id=1, seats=4),
                    m.Truck(firm_id=number, id=2, tons=number),
                    m.Building(firm_id=number, id=1, street="low"),
                    m.Tower(firm_id=number, id=2, street="high", floors=number),
                    m.Contract(firm_id=number, id=1, title="deal", value=number),
                    m.Letter(firm_id=number, id=2, title="hello", sender=f"s{number}"),
                ]
            )
    return world


def seen(employee: Any) -> tuple[Any, ...]:
    details = {
        name: value
        for name, value in employee.__dict__.items()
        if name in ("language", "office", "stars")
    }
    return type(employee).__name__, employee.firm_id, details


def staff_of(number: int) -> list[tuple[Any, ...]]:
    return [
        ("Employee", number, {}),
        ("Engineer", number, {"language": f"l{number}"}),
        ("Manager", number, {"office": f"o{number}"}),
        ("Chief", number, {"language": "x", "stars": number}),
    ]


EVERYBODY = [one for number in FIRMS for one in staff_of(number)]


class TestJoined:
    def test_children_load_as_their_mappers_say(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            query = select(m.Employee).order_by(m.Employee.firm_id, m.Employee.id)
            found = session.scalars(query).all()
            with Statements(firms.engine) as statements:
                everybody = [seen(each) for each in found]

        assert everybody == EVERYBODY
        assert len(statements) == 0

    def test_one_table_for_all_with_polymorphic(self, firms: World) -> None:
        m = firms.models
        everyone = with_polymorphic(m.Employee, "*")
        with firms.session() as session:
            query = (
                select(everyone)
                .where((everyone.Chief.stars > 4) | (everyone.Manager.office == "o2"))
                .order_by(everyone.firm_id, everyone.id)
            )
            found = [(type(each).__name__, each.firm_id) for each in session.scalars(query)]

        assert found == [("Manager", 2), *(("Chief", number) for number in (5, 6, 7, 8))]

    @pytest.mark.parametrize("loader", [joinedload, selectinload])
    def test_relationships_to_the_children_of_a_base(
        self, firms: World, loader: Callable[..., Any]
    ) -> None:
        m = firms.models
        with firms.session() as session:
            query = (
                select(m.Firm)
                .options(loader(m.Firm.staff.of_type(with_polymorphic(m.Employee, "*", flat=True))))
                .order_by(m.Firm.id)
            )
            found = session.scalars(query).unique().all()
            with Statements(firms.engine) as statements:
                everybody = [seen(each) for firm in found for each in firm.staff]

        assert everybody == EVERYBODY
        assert len(statements) == 0

    def test_a_join_to_one_child(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            found = session.execute(
                select(m.Firm.id, m.Chief.stars)
                .join(m.Firm.staff.of_type(m.Chief))
                .where(m.Chief.stars > 5)
                .order_by(m.Firm.id)
            ).all()
            some = session.scalars(
                select(m.Firm.id).where(
                    m.Firm.staff.of_type(m.Engineer).any(m.Engineer.language == "l3")
                )
            ).all()

        assert found == [(number, number) for number in (6, 7, 8)]
        assert some == [3]

    def test_selectin_polymorphic_below_a_relationship(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            query = (
                select(m.Firm)
                .options(
                    selectinload(m.Firm.staff).options(
                        selectin_polymorphic(m.Employee, [m.Manager, m.Chief])
                    )
                )
                .where(m.Firm.id.in_([2, 3, 7]))
                .order_by(m.Firm.id)
            )
            everybody = [seen(each) for firm in session.scalars(query) for each in firm.staff]

        assert everybody == [each for each in EVERYBODY if each[1] in (2, 3, 7)]

    def test_three_tables_are_changed_and_deleted_together(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            for chief in session.scalars(select(m.Chief)).all():
                chief.name, chief.language, chief.stars = "z", "z", 0
            session.flush()
            session.expire_all()
            for number in (1, 2, 3, 4, 5):
                session.delete(session.get(m.Employee, (number, 4)))
            session.get(m.Firm, 6).staff = []
            session.commit()

        counts = [
            len(firms.rows(f"SELECT * FROM {table}"))
            for table in ("employees", "engineers", "chiefs")
        ]
        assert counts == [23, 9, 2]
        assert firms.rows("SELECT firm_id, stars FROM chiefs") == [(7, 0), (8, 0)]


class TestSingleTable:
    def test_children_share_columns_and_have_their_own(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            trucks = session.scalars(select(m.Truck).order_by(m.Truck.firm_id)).all()
            for truck in trucks:
                truck.seats = 2
            session.commit()
            found = [
                (type(each).__name__, each.seats, getattr(each, "tons", None))
                for each in session.scalars(
                    select(m.Vehicle).order_by(m.Vehicle.firm_id, m.Vehicle.id)
                )
            ]

        assert found == [
            row for number in FIRMS for row in (("Car", 4, None), ("Truck", 2, number))
        ]

    def test_a_collection_of_the_base_holds_children(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            query = select(m.Firm).options(selectinload(m.Firm.vehicles)).order_by(m.Firm.id)
            found = [
                [type(each).__name__ for each in firm.vehicles] for firm in session.scalars(query)
            ]
            total = session.scalar(select(func.count()).select_from(m.Car))

        assert found == [["Car", "Truck"]] * len(FIRMS)
        assert total == 8


class TestConcrete:
    def test_each_class_in_its_own_table(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            towers = session.scalars(select(m.Tower).order_by(m.Tower.firm_id)).all()
            for tower in towers:
                tower.floors += 100
            session.delete(towers[0])
            session.delete(session.get(m.Letter, (3, 2)))
            session.commit()

        assert firms.rows("SELECT floors FROM towers") == [(100 + n,) for n in FIRMS[1:]]
        assert len(firms.rows("SELECT * FROM buildings")) == 8
        assert len(firms.rows("SELECT * FROM letters")) == 7

    def test_the_union_of_all_classes(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            every = session.scalars(
                select(m.Building).order_by(m.Building.firm_id, m.Building.id)
            ).all()
            of_some = session.scalars(select(m.Paper).where(m.Paper.firm_id.in_([2, 5, 6]))).all()
            of_one = session.scalars(
                select(m.Paper).where(m.Paper.firm_id == 6).order_by(m.Paper.id)
            ).all()
            page = session.scalars(
                select(m.Paper).order_by(m.Paper.firm_id.desc(), m.Paper.id).limit(3)
            ).all()
            count = session.scalar(select(func.count()).select_from(m.Building))
            found = [
                [(type(each).__name__, each.firm_id) for each in some]
                for some in (every, of_one, page)
            ]

        assert found == [
            [row for number in FIRMS for row in (("Building", number), ("Tower", number))],
            [("Contract", 6), ("Letter", 6)],
            [("Contract", 8), ("Letter", 8), ("Contract", 7)],
        ]
        assert sorted(each.firm_id for each in of_some) == [2, 2, 5, 5, 6, 6]
        assert count == 16

    def test_a_union_is_joined_beside_its_rows(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            found = session.execute(
                select(m.Firm.name, m.Building.street)
                .join(m.Building, m.Building.firm_id == m.Firm.id)
                .where(m.Firm.id > 6)
                .order_by(m.Firm.id, m.Building.id)
            ).all()

        assert found == [
            (f"firm {number}", street) for number in (7, 8) for street in ("low", "high")
        ]
