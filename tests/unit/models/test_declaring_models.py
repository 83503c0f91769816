from __future__ import annotations

from typing import Optional

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    func,
    inspect,
)
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    column_property,
    mapped_column,
    registry,
    relationship,
)
from sqlalchemy.orm import composite as composite_of

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.declare import (
    GlobalMixin,
    ReferenceMixin,
    ShardKeyMixin,
    global_table,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.models.distribution import Global, Reference, Sharded, distribution_of


def key_column(name="id", **arguments):
    return Column(name, BigInteger, primary_key=True, autoincrement=False, **arguments)


def test_shard_key_mixin_declares_a_declarative_class(base):
    class User(ShardKeyMixin, base):
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)

    base.registry.configure()

    assert distribution_of(User.__table__) == Sharded(("id",), "default", False)


def test_reference_mixin_declares_a_declarative_class(base):
    class Country(ReferenceMixin, base):
        __tablename__ = "countries"
        code: Mapped[str] = mapped_column(primary_key=True)

    base.registry.configure()

    assert distribution_of(Country.__table__) == Reference()


def test_global_mixin_declares_a_declarative_class(base):
    class FeatureFlag(GlobalMixin, base):
        __tablename__ = "flags"
        id: Mapped[int] = mapped_column(primary_key=True)

    base.registry.configure()

    assert distribution_of(FeatureFlag.__table__) == Global()


def test_a_class_that_says_nothing_has_no_distribution(base):
    class Plain(base):
        __tablename__ = "plain"
        id: Mapped[int] = mapped_column(primary_key=True)

    base.registry.configure()

    assert distribution_of(Plain.__table__) is None


def test_keyspace_and_promise_are_taken_from_the_class(base):
    class User(ShardKeyMixin, base):
        __tablename__ = "users"
        __shard_key__ = ("region", "tenant_id")
        __keyspace__ = "tenants"
        __globally_unique__ = True
        id: Mapped[str] = mapped_column(primary_key=True)
        region: Mapped[str]
        tenant_id: Mapped[int]

    assert distribution_of(User.__table__) == Sharded(("region", "tenant_id"), "tenants", True)


def test_attribute_names_become_column_keys(base):
    class User(ShardKeyMixin, base):
        __tablename__ = "Weird Users"
        __table_args__ = {"schema": "My Schema"}
        __shard_key__ = ("tenant", "number")
        tenant: Mapped[int] = mapped_column("Tenant ID", primary_key=True)
        number: Mapped[int] = mapped_column("no", key="uid", primary_key=True)

    base.registry.configure()

    assert distribution_of(User.__table__) == Sharded(("Tenant ID", "uid"))


def test_the_mixins_work_with_mapped_as_dataclass():
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class User(ShardKeyMixin, Base):
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str] = mapped_column(default="")

    Base.registry.configure()

    assert distribution_of(User.__table__) == Sharded(("id",))
    assert User(7).id == 7


def test_the_mixins_work_with_registry_mapped():
    mapper_registry = registry()

    @mapper_registry.mapped
    class User(ShardKeyMixin):
        __tablename__ = "users"
        __shard_key__ = "id"
        id = key_column()

    mapper_registry.configure()

    assert distribution_of(User.__table__) == Sharded(("id",))


def test_the_mixins_work_with_imperative_mapping():
    mapper_registry = registry()
    table = Table("users", mapper_registry.metadata, key_column(), Column("name", String))

    class User(ShardKeyMixin):
        __shard_key__ = "number"

    mapper_registry.map_imperatively(User, table, properties={"number": table.c.id})

    assert distribution_of(table) == Sharded(("id",))


def test_the_mixins_work_on_the_declarative_base_itself():
    class Base(ShardKeyMixin, DeclarativeBase):
        __shard_key__ = "tenant_id"
        tenant_id: Mapped[int] = mapped_column(primary_key=True)

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)

    Base.registry.configure()

    assert distribution_of(Order.__table__) == Sharded(("tenant_id",))


def test_abstract_bases_hand_the_key_down(base):
    class OfTenant(ShardKeyMixin, base):
        __abstract__ = True
        __shard_key__ = "tenant_id"
        __keyspace__ = "tenants"
        tenant_id: Mapped[int] = mapped_column(primary_key=True)

    class Order(OfTenant):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Invoice(OfTenant):
        __tablename__ = "invoices"
        id: Mapped[int] = mapped_column(primary_key=True)

    base.registry.configure()

    assert distribution_of(Order.__table__) == Sharded(("tenant_id",), "tenants")
    assert distribution_of(Invoice.__table__) == Sharded(("tenant_id",), "tenants")


def test_mixins_of_ones_own_hand_the_key_down(base):
    class OfTenant(ShardKeyMixin):
        __shard_key__ = "tenant_id"
        tenant_id: Mapped[int] = mapped_column(primary_key=True)

    class Order(OfTenant, base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert distribution_of(Order.__table__) == Sharded(("tenant_id",))


def test_the_type_of_a_foreign_key_may_become_known_later(base):
    class Order(ShardKeyMixin, base):
        __tablename__ = "orders"
        __shard_key__ = "user_id"
        user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
        id: Mapped[int] = mapped_column(primary_key=True)

    base.registry.configure()

    class User(ShardKeyMixin, base):
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)

    base.registry.configure()

    assert isinstance(Order.__table__.c.user_id.type, BigInteger)


def test_declaring_does_not_configure_mappers(base):
    class Order(ShardKeyMixin, base):
        __tablename__ = "orders"
        __shard_key__ = "user_id"
        user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
        id: Mapped[int] = mapped_column(primary_key=True)
        user = relationship("User")  # not there yet: configuring would fail

    assert not Order.__mapper__.configured


def test_two_mixins_are_refused(base):
    with pytest.raises(ConfigurationError, match="Both has ShardKeyMixin and ReferenceMixin"):

        class Both(ReferenceMixin, ShardKeyMixin, base):
            __tablename__ = "both"
            __shard_key__ = "id"
            id: Mapped[str] = mapped_column(primary_key=True)


def test_a_missing_shard_key_is_refused_and_attributes_are_named(base):
    with pytest.raises(ConfigurationError, match=r"User .*no __shard_key__; .* of number, name"):

        class User(ShardKeyMixin, base):
            __tablename__ = "users"
            number: Mapped[str] = mapped_column("id", primary_key=True)
            name: Mapped[str]


def test_attributes_that_do_not_exist_are_all_refused(base):
    with pytest.raises(ConfigurationError, match="class User") as refusal:

        class User(ShardKeyMixin, base):
            __tablename__ = "users"
            __shard_key__ = ("id", "tenant", "realm")
            id: Mapped[str] = mapped_column(primary_key=True)

    assert refusal.value.faults == ("'tenant' does not exist", "'realm' does not exist")


def test_a_relationship_as_key_is_refused(base):
    class User(base):
        __tablename__ = "users"
        id: Mapped[str] = mapped_column(primary_key=True)

    with pytest.raises(ConfigurationError, match="'user' is a relationship"):

        class Order(ShardKeyMixin, base):
            __tablename__ = "orders"
            __shard_key__ = "user"
            user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
            user = relationship(User)


def test_an_expression_as_key_is_refused(base):
    with pytest.raises(ConfigurationError, match="'prefix' is not a plain column"):

        class User(ShardKeyMixin, base):
            __tablename__ = "users"
            __shard_key__ = "prefix"
            name = mapped_column(String, primary_key=True)
            prefix = column_property(func.left(name, 2))


def test_a_composite_attribute_as_key_is_refused(base):
    with pytest.raises(ConfigurationError, match="'point' is not a plain column"):

        class Place(ShardKeyMixin, base):
            __tablename__ = "places"
            __shard_key__ = "point"
            x = mapped_column(Integer, primary_key=True)
            y = mapped_column(Integer, primary_key=True)
            point = composite_of(lambda x, y: (x, y), x, y)


@pytest.mark.parametrize("key", [(), ("id", "id"), 5, ("id", 5), ["id"], None])
def test_a_key_that_is_no_name_or_names_is_refused(key):
    table = Table("users", MetaData(), key_column())

    with pytest.raises(ConfigurationError, match="neither a name nor a tuple"):
        shard_table(table, key=key)


def test_a_class_mapped_to_a_join_is_refused(base):
    users = Table("users", base.metadata, key_column())
    names = Table("names", base.metadata, key_column("user_id"), Column("name", String))

    with pytest.raises(ConfigurationError, match="mapped to a Join"):

        class User(ShardKeyMixin, base):
            __table__ = users.join(names, users.c.id == names.c.user_id)
            __shard_key__ = "id"


def test_a_core_table_is_declared_and_given_back():
    metadata = MetaData()
    orders = shard_table(
        Table("orders", metadata, Column("user_id", BigInteger, primary_key=True), key_column()),
        key="user_id",
        keyspace="users",
    )
    countries = reference_table(
        Table("countries", metadata, Column("code", String, primary_key=True))
    )
    flags = global_table(Table("flags", metadata, Column("id", Integer, primary_key=True)))

    assert distribution_of(orders) == Sharded(("user_id",), "users")
    assert distribution_of(countries) == Reference()
    assert distribution_of(flags) == Global()


def test_a_core_table_is_keyed_by_its_column_keys():
    table = Table("t", MetaData(), Column("uid", Integer, key="user_id", primary_key=True), quote=1)
    table.c.user_id.autoincrement = False
    shard_table(table, key="user_id")

    assert distribution_of(table) == Sharded(("user_id",))


def test_a_core_table_without_the_key_column_can_be_declared_anew_after_the_refusal():
    table = Table("orders", MetaData(), key_column("user_id"))

    with pytest.raises(ConfigurationError, match="no shard-key column 'id'; name one of user_id"):
        shard_table(table)

    assert distribution_of(shard_table(table, key="user_id")) == Sharded(("user_id",))


def test_a_core_table_that_is_yet_to_be_reflected_is_not_checked():
    table = shard_table(Table("orders", MetaData()), key="user_id")

    assert distribution_of(table) == Sharded(("user_id",))


def test_a_core_table_with_faults_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="autoincrement=False"):
        shard_table(Table("users", MetaData(), Column("id", Integer, primary_key=True)))


def test_the_functions_serve_as_decorators(base):
    @reference_table
    class Country(base):
        __tablename__ = "countries"
        code: Mapped[str] = mapped_column(primary_key=True)

    assert distribution_of(Country.__table__) == Reference()


def test_an_imperatively_mapped_class_is_declared_by_attribute_name():
    mapper_registry = registry()
    table = Table("users", mapper_registry.metadata, key_column("uid"))

    class User:
        pass

    mapper_registry.map_imperatively(User, table, properties={"id": table.c.uid})

    assert shard_table(User) is User
    assert distribution_of(table) == Sharded(("uid",))


def test_an_automapped_class_is_declared():
    metadata = MetaData()
    Table("users", metadata, key_column())
    Table("orders", metadata, key_column("user_id"), key_column())
    automapped = automap_base(metadata=metadata)
    automapped.prepare()
    shard_table(automapped.classes.users)
    shard_table(automapped.classes.orders, key="user_id")

    assert distribution_of(metadata.tables["users"]) == Sharded(("id",))
    assert distribution_of(metadata.tables["orders"]) == Sharded(("user_id",))


def test_a_class_that_was_used_already_can_be_declared(base):
    class User(base):
        __tablename__ = "users"
        id: Mapped[str] = mapped_column(primary_key=True)

    used = inspect(User).__clause_element__()
    shard_table(User)

    assert distribution_of(used) == Sharded(("id",))


def test_a_sqlmodel_class_is_declared():
    sqlmodel = pytest.importorskip("sqlmodel")

    class OwnBase(sqlmodel.SQLModel, registry=registry()):
        metadata = MetaData()

    class Hero(OwnBase, table=True):
        id: Optional[int] = sqlmodel.Field(  # noqa: UP045 (SQLModel reads it)
            default=None,
            primary_key=True,
            sa_type=BigInteger,
            sa_column_kwargs={"autoincrement": False},
        )
        name: str

    shard_table(Hero)

    assert distribution_of(Hero.__table__) == Sharded(("id",))


def test_a_sqlmodel_class_takes_the_mixins():
    sqlmodel = pytest.importorskip("sqlmodel")

    class OwnBase(sqlmodel.SQLModel, registry=registry()):
        metadata = MetaData()

    class Villain(ShardKeyMixin, OwnBase, table=True):
        __shard_key__ = "name"
        name: str = sqlmodel.Field(primary_key=True)

    assert distribution_of(Villain.__table__) == Sharded(("name",))


def test_a_class_that_is_not_mapped_is_refused():
    class Plain:
        pass

    with pytest.raises(ConfigurationError, match="Plain is neither a Table nor a mapped class"):
        shard_table(Plain)


def test_a_name_in_place_of_a_table_is_refused():
    with pytest.raises(ConfigurationError, match="neither a Table nor a mapped class"):
        reference_table("users")


def test_a_class_is_checked_when_it_is_given_to_a_function(base):
    class User(base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(ConfigurationError, match="autoincrement=False"):
        shard_table(User)


def test_a_class_with_a_mixin_is_checked_when_mappers_are_configured(base):
    class User(ShardKeyMixin, base):
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(ConfigurationError, match="autoincrement=False"):
        base.registry.configure()


def test_a_reference_class_is_checked_when_mappers_are_configured(base):
    class Country(ReferenceMixin, base):
        __tablename__ = "countries"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(ConfigurationError, match=r"countries\.id gets its value from the server"):
        base.registry.configure()


def test_declaring_differently_in_class_and_function_is_refused(base):
    class Country(ReferenceMixin, base):
        __tablename__ = "countries"
        id: Mapped[str] = mapped_column(primary_key=True)

    with pytest.raises(ConfigurationError, match="declared twice"):
        shard_table(Country)
