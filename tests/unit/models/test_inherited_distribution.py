from __future__ import annotations

import pytest
from sqlalchemy import BigInteger, Column, ForeignKey, ForeignKeyConstraint, Integer, String, Table
from sqlalchemy.orm import (
    Mapped,
    mapped_column,
    registry,
)

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.declare import (
    GlobalMixin,
    ReferenceMixin,
    ShardKeyMixin,
    shard_table,
)
from sqlalchemy_shards.models.distribution import (
    Beside,
    Global,
    Reference,
    Sharded,
    distribution_of,
    key_columns,
)


@pytest.fixture
def employee(base):
    class Employee(ShardKeyMixin, base):
        __tablename__ = "employees"
        __shard_key__ = "id"
        __keyspace__ = "staff"
        __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "employee"}
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        type: Mapped[str]

    return Employee


@pytest.fixture
def tenant_item(base):
    """The key is a part of the primary key, and its column is called otherwise."""

    class Item(ShardKeyMixin, base):
        __tablename__ = "items"
        __shard_key__ = "tenant_id"
        tenant_id: Mapped[int] = mapped_column("tenant", key="tenant_key", primary_key=True)
        id: Mapped[int] = mapped_column(primary_key=True)

    return Item


def test_a_single_table_child_has_its_bases(base, employee):
    class Manager(employee):
        __mapper_args__ = {"polymorphic_identity": "manager"}
        office: Mapped[str | None]

    base.registry.configure()

    assert Manager.__table__ is employee.__table__
    assert distribution_of(Manager.__table__) == Sharded(("id",), "staff")


def test_a_column_that_a_single_table_child_adds_is_checked(base, employee):
    class Manager(employee):
        __mapper_args__ = {"polymorphic_identity": "manager"}
        badge = mapped_column(Integer, server_default="nextval('badges')", nullable=True)

    with pytest.raises(ConfigurationError, match=r"employees\.badge"):
        base.registry.configure()


def test_a_joined_child_is_sharded_by_its_foreign_key(base, employee):
    class Manager(employee):
        __tablename__ = "managers"
        __mapper_args__ = {"polymorphic_identity": "manager"}
        employee_number: Mapped[int] = mapped_column(
            "emp_no", ForeignKey("employees.id"), primary_key=True
        )

    base.registry.configure()

    assert distribution_of(Manager.__table__) == Sharded(("emp_no",), "staff")


def test_a_grandchild_is_sharded_by_its_foreign_key(base, employee):
    class Manager(employee):
        __tablename__ = "managers"
        __mapper_args__ = {"polymorphic_identity": "manager"}
        id: Mapped[int] = mapped_column(ForeignKey("employees.id"), primary_key=True)

    class Director(Manager):
        __tablename__ = "directors"
        __mapper_args__ = {"polymorphic_identity": "director"}
        manager_id: Mapped[int] = mapped_column(ForeignKey("managers.id"), primary_key=True)

    base.registry.configure()

    assert distribution_of(Director.__table__) == Sharded(("manager_id",), "staff")


def test_a_joined_child_of_a_single_table_child_is_sharded(base, employee):
    class Manager(employee):
        __mapper_args__ = {"polymorphic_identity": "manager"}

    class Director(Manager):
        __tablename__ = "directors"
        __mapper_args__ = {"polymorphic_identity": "director"}
        id: Mapped[int] = mapped_column(ForeignKey("employees.id"), primary_key=True)

    base.registry.configure()

    assert distribution_of(Director.__table__) == Sharded(("id",), "staff")


def test_a_joined_child_with_a_foreign_key_of_several_columns_is_sharded(base, tenant_item):
    class Book(tenant_item):
        __tablename__ = "books"
        __table_args__ = (ForeignKeyConstraint(["owner", "id"], ["items.tenant_key", "items.id"]),)
        owner: Mapped[int] = mapped_column(primary_key=True)
        id: Mapped[int] = mapped_column(primary_key=True)

    base.registry.configure()

    assert distribution_of(Book.__table__) == Sharded(("owner",))


def test_a_joined_child_is_sharded_by_what_the_inherit_condition_equates(base, tenant_item):
    class Book(tenant_item):
        __table__ = Table(
            "books",
            base.metadata,
            Column("owner", Integer, primary_key=True),
            Column("number", Integer, primary_key=True),
        )
        __mapper_args__ = {
            "inherit_condition": (tenant_item.__table__.c.tenant_key == __table__.c.owner)
            & (__table__.c.number == tenant_item.__table__.c.id),
            "inherit_foreign_keys": [__table__.c.owner, __table__.c.number],
        }

    assert distribution_of(Book.__table__) == Sharded(("owner",))


def test_a_joined_child_without_a_key_column_lies_beside_its_base(base):
    class Account(ShardKeyMixin, base):
        __tablename__ = "accounts"
        __shard_key__ = "tenant_id"
        __globally_unique__ = True
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        tenant_id: Mapped[int]

    class Savings(Account):
        __tablename__ = "savings"
        number: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True)

    class Bonds(Savings):
        __tablename__ = "bonds"
        bond: Mapped[int] = mapped_column(ForeignKey("savings.number"), primary_key=True)

    base.registry.configure()

    savings, bonds = distribution_of(Savings.__table__), distribution_of(Bonds.__table__)
    assert savings.beside == Beside("accounts", (("id", "number"),))
    assert bonds.beside == Beside("accounts", (("id", "bond"),))
    assert key_columns(Bonds.__table__, bonds) == (Account.__table__.c.tenant_id,)


def test_a_joined_child_without_a_foreign_key_to_its_base_is_refused(base):
    class Account(ShardKeyMixin, base):
        __tablename__ = "accounts"
        __shard_key__ = "tenant_id"
        __globally_unique__ = True
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        tenant_id: Mapped[int]

    savings = Table("savings", base.metadata, Column("number", Integer, primary_key=True))

    with pytest.raises(ConfigurationError, match="nor a foreign key to its whole primary key"):

        class Savings(Account):
            __table__ = savings
            __mapper_args__ = {"inherit_condition": savings.c.number == Account.id}


def test_a_joined_child_with_a_rival_of_the_key_is_refused(base):
    class Account(ShardKeyMixin, base):
        __tablename__ = "accounts"
        __shard_key__ = "tenant_id"
        __globally_unique__ = True
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        tenant_id: Mapped[int]

    with pytest.raises(ConfigurationError, match="'tenant_id' like the shard key of its base"):

        class Savings(Account):
            __tablename__ = "savings"
            id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
            other_tenant: Mapped[int] = mapped_column("tenant_id")


@pytest.mark.parametrize(
    "condition",
    [
        lambda items, books: (items.tenant_key == books.owner) | (items.id == books.number),
        lambda items, books: (items.tenant_key <= books.owner) & (items.id == books.number),
        lambda items, books: (items.tenant_key == 5) & (items.id == books.number),
    ],
    ids=["or", "less or equal", "constant"],
)
def test_a_key_that_the_condition_does_not_always_equate_does_not_count(
    base, tenant_item, condition
):
    books = Table(
        "books",
        base.metadata,
        Column("owner", Integer, primary_key=True),
        Column("number", Integer, primary_key=True),
    )
    items = tenant_item.__table__

    with pytest.raises(ConfigurationError, match="has neither columns that equal the shard key"):

        class Book(tenant_item):
            __table__ = books
            __mapper_args__ = {
                "inherit_condition": condition(items.c, books.c),
                "inherit_foreign_keys": [books.c.owner, books.c.number],
            }


@pytest.mark.parametrize(
    ("mixin", "distribution"), [(ReferenceMixin, Reference()), (GlobalMixin, Global())]
)
def test_a_joined_child_of_an_unsharded_base_has_its_bases(base, mixin, distribution):
    class Place(mixin, base):
        __tablename__ = "places"
        code: Mapped[str] = mapped_column(primary_key=True)

    class Country(Place):
        __tablename__ = "countries"
        code: Mapped[str] = mapped_column(ForeignKey("places.code"), primary_key=True)

    base.registry.configure()

    assert distribution_of(Country.__table__) == distribution


def test_a_concrete_child_declares_itself_through_the_key_it_inherits(base, employee):
    class Contractor(employee):
        __tablename__ = "contractors"
        __mapper_args__ = {"concrete": True, "polymorphic_identity": "contractor"}
        id: Mapped[int] = mapped_column("number", BigInteger, primary_key=True, default=iter)
        type: Mapped[str]

    base.registry.configure()

    assert distribution_of(Contractor.__table__) == Sharded(("number",), "staff")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("__shard_key__", "type"), ("__keyspace__", "other"), ("__globally_unique__", True)],
)
def test_a_child_that_says_otherwise_than_its_base_is_refused(employee, attribute, value):
    with pytest.raises(ConfigurationError, match=f"Manager sets {attribute}, but has that of"):
        type(employee)(
            "Manager",
            (employee,),
            {"__mapper_args__": {"polymorphic_identity": "manager"}, attribute: value},
        )


def test_a_child_with_another_mixin_than_its_base_is_refused(employee):
    with pytest.raises(ConfigurationError, match="Manager has ShardKeyMixin and GlobalMixin"):

        class Manager(GlobalMixin, employee):
            __mapper_args__ = {"polymorphic_identity": "manager"}


def test_a_child_that_declares_what_its_base_does_not_is_refused(base):
    class Employee(base):
        __tablename__ = "employees"
        id: Mapped[str] = mapped_column(primary_key=True)

    with pytest.raises(ConfigurationError, match="but its base Employee does not"):

        class Manager(ReferenceMixin, Employee):
            pass


def imperative_hierarchy(mapper_registry):
    employees = Table("employees", mapper_registry.metadata, Column("id", String, primary_key=True))
    managers = Table(
        "managers",
        mapper_registry.metadata,
        Column("number", String, ForeignKey("employees.id"), primary_key=True),
    )

    class Employee:
        pass

    class Manager(Employee):
        pass

    mapper_registry.map_imperatively(Employee, employees)
    return Employee, Manager, managers


def test_a_function_reaches_the_children_that_are_there():
    mapper_registry = registry()
    employee_class, manager_class, managers = imperative_hierarchy(mapper_registry)
    mapper_registry.map_imperatively(manager_class, managers, inherits=employee_class)
    shard_table(employee_class)

    assert distribution_of(managers) == Sharded(("number",))


def test_a_function_reaches_the_children_that_come_later():
    mapper_registry = registry()
    employee_class, manager_class, managers = imperative_hierarchy(mapper_registry)
    shard_table(employee_class)
    mapper_registry.map_imperatively(manager_class, managers, inherits=employee_class)

    assert distribution_of(managers) == Sharded(("number",))


def test_children_that_come_later_are_checked():
    mapper_registry = registry()
    employee_class, manager_class, managers = imperative_hierarchy(mapper_registry)
    managers.append_column(Column("badge", Integer, server_default="nextval('badges')"))
    shard_table(employee_class)
    mapper_registry.map_imperatively(manager_class, managers, inherits=employee_class)

    with pytest.raises(ConfigurationError, match=r"managers\.badge"):
        mapper_registry.configure()
    mapper_registry.dispose()


def test_a_function_called_with_a_child_is_refused():
    mapper_registry = registry()
    employee_class, manager_class, managers = imperative_hierarchy(mapper_registry)
    mapper_registry.map_imperatively(manager_class, managers, inherits=employee_class)

    with pytest.raises(ConfigurationError, match="declare the base class only"):
        shard_table(manager_class, key="number")
