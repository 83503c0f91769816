"""Joined children without a column of the shard key lie beside their base's row."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Uuid,
    delete,
    func,
    insert,
    select,
    update,
)
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

from sqlalchemy_shards.errors import MissingShardKey
from sqlalchemy_shards.plan import Tier
from tests.shards.shop import Statements, enlisted

if TYPE_CHECKING:
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
        staff: Mapped[list[Any]] = relationship(
            "Employee", back_populates="firm", cascade="all, delete-orphan", order_by="Employee.id"
        )

    class Employee(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "employees"
        __shard_key__ = "firm_id"
        id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
        firm_id: Mapped[int] = mapped_column(ForeignKey("firms.id"))
        kind: Mapped[str]
        name: Mapped[str]
        firm: Mapped[Any] = relationship(Firm, back_populates="staff")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

    class Engineer(Employee):
        __tablename__ = "engineers"
        id: Mapped[uuid.UUID] = mapped_column(ForeignKey("employees.id"), primary_key=True)
        language: Mapped[str]
        notes: Mapped[str | None] = mapped_column(deferred=True)
        __mapper_args__ = {"polymorphic_identity": "engineer", "polymorphic_load": "selectin"}

    class Chief(Engineer):
        """The third level."""

        __tablename__ = "chiefs"
        id: Mapped[uuid.UUID] = mapped_column(ForeignKey("engineers.id"), primary_key=True)
        stars: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "chief", "polymorphic_load": "selectin"}

    class Manager(Employee):
        __tablename__ = "managers"
        id: Mapped[uuid.UUID] = mapped_column(
            ForeignKey("employees.id", ondelete="CASCADE"), primary_key=True
        )
        office: Mapped[str]
        __mapper_args__ = {"polymorphic_identity": "manager", "polymorphic_load": "inline"}

    classes = (Firm, Employee, Engineer, Chief, Manager)
    return SimpleNamespace(metadata=Base.metadata, **{each.__name__: each for each in classes})


def key_of(firm: int, number: int) -> uuid.UUID:
    return uuid.UUID(int=firm * 100 + number)


def staff_of(m: Any, firm: int) -> list[Any]:
    return [
        m.Employee(id=key_of(firm, 1), name=f"e{firm}"),
        m.Engineer(id=key_of(firm, 2), name=f"g{firm}", language="python", notes=f"n{firm}"),
        m.Chief(id=key_of(firm, 3), name=f"c{firm}", language="sql", stars=firm),
        m.Manager(id=key_of(firm, 4), name=f"m{firm}", office=f"o{firm}"),
    ]


def seen(employee: Any) -> tuple[Any, ...]:
    details = [getattr(employee, name, None) for name in ("language", "stars", "office", "notes")]
    return (type(employee).__name__, employee.firm_id, employee.name, *details)


EVERY = [
    row
    for firm in FIRMS
    for row in (
        ("Employee", firm, f"e{firm}", None, None, None, None),
        ("Engineer", firm, f"g{firm}", "python", None, None, f"n{firm}"),
        ("Chief", firm, f"c{firm}", "sql", firm, None, None),
        ("Manager", firm, f"m{firm}", None, None, f"o{firm}", None),
    )
]


@pytest.fixture
def firms(world: World) -> World:
    """One employee of each class in each firm."""
    m = world.models
    with world.session() as session, session.begin():
        session.add_all(m.Firm(id=firm, staff=staff_of(m, firm)) for firm in FIRMS)
    return world


def test_the_rows_of_an_object_lie_on_one_shard(firms: World) -> None:
    bases = firms.rows_by_shard("SELECT id FROM employees WHERE kind IN ('engineer', 'chief')")
    engineers = firms.rows_by_shard("SELECT id FROM engineers")

    assert engineers == bases
    assert all(bases.values())


@pytest.mark.parametrize("how", ["as mapped", "with_polymorphic", "selectin_polymorphic"])
def test_every_way_of_loading_gives_every_class(firms: World, how: str) -> None:
    m = firms.models
    entity, options = m.Employee, []
    if how == "with_polymorphic":
        entity = with_polymorphic(m.Employee, "*")
    if how == "selectin_polymorphic":
        options = [selectin_polymorphic(m.Employee, [m.Engineer, m.Chief, m.Manager])]
    with firms.session() as session:
        query = select(entity).options(*options).order_by(entity.id)
        found = [seen(each) for each in session.scalars(query)]

    assert found == EVERY


def test_relationships_load_every_class(firms: World) -> None:
    m = firms.models
    for option in (joinedload, selectinload):
        with firms.session() as session:
            query = select(m.Firm).options(option(m.Firm.staff)).order_by(m.Firm.id)
            found = [seen(each) for firm in session.scalars(query).unique() for each in firm.staff]

        assert found == EVERY


def test_a_query_of_children(firms: World) -> None:
    m = firms.models
    with firms.session() as session:
        engineers = session.scalars(select(m.Engineer).order_by(m.Engineer.id)).all()
        found = [seen(each) for each in engineers]
        of_one = session.scalars(
            select(m.Chief.stars).where(m.Chief.firm_id == 3, m.Chief.stars > 0)
        ).all()
        count = session.scalar(select(func.count()).select_from(m.Chief))
        alone = session.execute(select(m.Manager.__table__.c.office)).scalars().all()

    assert found == [row for row in EVERY if row[0] in ("Engineer", "Chief")]
    assert of_one == [3]
    assert count == len(FIRMS)
    assert sorted(alone) == [f"o{firm}" for firm in FIRMS]


def test_get_gives_the_right_class(firms: World) -> None:
    m = firms.models
    with firms.session() as session:
        found = [seen(session.get(m.Employee, key_of(5, number))) for number in (1, 2, 3, 4)]
        chief = session.get(m.Chief, key_of(6, 3))
        other_class = session.get(m.Manager, key_of(6, 1))

    assert found == [row for row in EVERY if row[1] == 5]
    assert chief.stars == 6
    assert other_class is None


def test_changes_reach_every_table(firms: World) -> None:
    m = firms.models
    with firms.session() as session:
        for chief in session.scalars(select(m.Chief)):
            chief.name, chief.language, chief.stars = "changed", "changed", 100
        session.commit()

    query = """
        SELECT name, language, stars FROM employees
        JOIN engineers USING (id) JOIN chiefs USING (id)
    """
    assert firms.rows(query) == [("changed", "changed", 100)] * len(FIRMS)


@pytest.mark.parametrize("table", ["engineers", "chiefs", "managers"])
def test_deletes_reach_every_table(firms: World, table: str) -> None:
    m = firms.models
    with firms.session() as session:
        for firm in session.scalars(select(m.Firm).where(m.Firm.id > 3)):
            session.delete(firm)
        session.commit()

    left = [(firm,) for firm in FIRMS if firm <= 3]
    assert firms.rows(f"SELECT DISTINCT firm_id FROM {table} JOIN employees USING (id)") == left


def test_an_expired_object_is_read_again(firms: World) -> None:
    m = firms.models
    with firms.session() as session:
        staff = session.scalars(select(m.Employee).order_by(m.Employee.id)).all()
        session.commit()
        found = [seen(each) for each in staff]
        session.rollback()
        again = [seen(each) for each in staff]

    assert found == EVERY
    assert again == EVERY


def test_bulk_inserts_of_children(world: World) -> None:
    m = world.models
    with world.session() as session, session.begin():
        session.execute(insert(m.Firm), [{"id": firm} for firm in FIRMS])
        session.execute(
            insert(m.Chief),
            [
                {"id": key_of(firm, 3), "firm_id": firm, "name": "x", "language": "y", "stars": 1}
                for firm in FIRMS
            ],
        )
        session.bulk_save_objects(
            [m.Manager(firm_id=firm, name="m", office=f"o{firm}") for firm in FIRMS]
        )

    firm_of = "SELECT firm_id, name FROM employees JOIN {} USING (id)"
    assert world.rows(firm_of.format("chiefs")) == [(firm, "x") for firm in FIRMS]
    assert world.rows(firm_of.format("managers")) == [(firm, "m") for firm in FIRMS]


def test_bulk_updates_and_deletes_of_children(firms: World) -> None:
    m = firms.models
    with firms.session() as session, session.begin():
        session.execute(update(m.Chief), [{"id": key_of(firm, 3), "stars": 9} for firm in FIRMS])
        updated = session.execute(
            update(m.Manager.__table__)
            .where(m.Manager.__table__.c.id == key_of(2, 4))
            .values(office="changed")
        ).rowcount
        deleted = session.execute(
            delete(m.Manager.__table__).where(m.Manager.__table__.c.id == key_of(3, 4))
        ).rowcount

    assert firms.rows("SELECT stars FROM chiefs") == [(9,)] * len(FIRMS)
    assert (updated, deleted) == (1, 1)


@pytest.mark.parametrize("world", ["four_shards"], indirect=True)
class TestOneShard:
    """Where the base is known, its child's rows need no look-up."""

    @pytest.fixture
    def home(self, firms: World) -> set[str]:
        assert firms.cluster is not None
        return {firms.cluster.shard_for(firms.models.Chief, 5)}

    def test_a_join_with_the_key_of_the_base(self, firms: World, home: set[str]) -> None:
        m = firms.models
        with firms.session() as session:
            found = session.scalars(select(m.Chief).where(m.Chief.firm_id == 5)).one()
            used = enlisted(session)

        assert found.stars == 5
        assert used == home

    def test_loads_and_writes_of_a_held_object(self, firms: World, home: set[str]) -> None:
        m = firms.models
        with firms.session() as session:
            engineer = session.scalars(
                select(m.Engineer).where(m.Engineer.firm_id == 5, m.Engineer.name == "g5")
            ).one()
            notes = engineer.notes
            session.commit()
            session.refresh(engineer)
            engineer.language, engineer.name = "changed", "changed"
            session.flush()
            session.delete(engineer)
            session.flush()
            used = enlisted(session)
            where = session.shard_of(engineer)

        assert notes == "n5"
        assert used == home == {where}

    def test_a_new_child_of_a_held_base(self, firms: World, home: set[str]) -> None:
        """Its row follows the base's, which this session inserted before, or holds."""
        m = firms.models
        with firms.session() as session:
            session.add(m.Employee(id=key_of(5, 9), firm_id=5, name="new"))
            session.commit()
            table = m.Manager.__table__
            held = session.get(m.Employee, key_of(5, 9))
            session.commit()
            session.execute(insert(table).values(id=key_of(5, 9), office="new"))
            used = enlisted(session)

        assert held is not None
        assert used == home

    def test_a_child_of_a_base_that_is_not_known(self, firms: World, home: set[str]) -> None:
        m = firms.models
        statement = insert(m.Manager.__table__).values(id=key_of(5, 1), office="new")
        with firms.session() as session, session.begin():
            with pytest.raises(MissingShardKey, match="lies beside the row of 'employees'"):
                session.execute(statement)
            session.execute(statement, execution_options={"shard_key": (m.Employee, 5)})
            used = enlisted(session)

        assert used == home

    def test_what_a_savepoint_undid_is_not_remembered(self, firms: World) -> None:
        m = firms.models
        with firms.session() as session:
            savepoint = session.begin_nested()
            session.execute(
                insert(m.Employee.__table__).values(
                    id=key_of(5, 9), firm_id=5, name="new", kind="manager"
                )
            )
            savepoint.rollback()
            with pytest.raises(MissingShardKey):
                session.execute(insert(m.Manager.__table__).values(id=key_of(5, 9), office="o"))


def test_a_loaded_object_needs_no_more_queries(firms: World) -> None:
    m = firms.models
    with firms.session() as session:
        query = select(with_polymorphic(m.Employee, "*"))
        staff = session.scalars(query).all()
        with Statements(firms.engine) as statements:
            names = sorted(each.name for each in staff)

    assert len(names) == len(EVERY)
    assert len(statements) == 0


def test_children_are_looked_up_beside_their_bases(firms: World) -> None:
    m = firms.models
    python = select(m.Engineer.__table__.c.id).where(m.Engineer.__table__.c.language == "python")
    with firms.session() as session:
        found = session.scalars(select(m.Employee.name).where(m.Employee.id.in_(python))).all()
        others = session.scalars(select(m.Employee.name).where(m.Employee.id.not_in(python))).all()

    assert sorted(found) == [f"g{firm}" for firm in FIRMS]
    assert sorted(others) == sorted(f"{kind}{firm}" for kind in "cem" for firm in FIRMS)
    if firms.is_spread and firms.cluster is not None:
        statement = select(m.Employee.name).where(m.Employee.id.in_(python))
        assert firms.cluster.explain(statement).tier is Tier.SCATTER
