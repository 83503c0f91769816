from __future__ import annotations

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
)

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.checks import check_table, check_tables
from sqlalchemy_shards.models.declare import global_table, reference_table, shard_table
from sqlalchemy_shards.models.distribution import Global
from sqlalchemy_shards.models.generated_id import GeneratedId


def key(name, type_=BigInteger, *arguments, **keywords):
    return Column(
        name, type_, *arguments, **{"primary_key": True, "autoincrement": False, **keywords}
    )


class Schema:
    """A metadata with some tables to refer to."""

    def __init__(self):
        self.metadata = MetaData()
        self.tenants = shard_table(self.table("tenants", key("id")))
        self.users = shard_table(self.table("users", key("tenant_id"), key("id")), "tenant_id")
        self.products = shard_table(self.table("products", key("id")), keyspace="catalogue")
        self.countries = reference_table(
            self.table("countries", key("code", String), Column("old", String, unique=True))
        )
        self.flags = global_table(self.table("flags", key("id")))

    def table(self, name, *items, **keywords):
        return Table(name, self.metadata, *items, **keywords)


@pytest.fixture
def schema():
    return Schema()


def sharded(table, key_name="tenant_id", **keywords):
    return shard_table(table, key_name, **keywords)


SOUND = {
    "key to key": lambda s: sharded(
        s.table("a", key("tenant_id", BigInteger, ForeignKey("tenants.id")))
    ),
    "key within a longer foreign key": lambda s: sharded(
        s.table(
            "a",
            key("tenant_id"),
            key("id"),
            Column("user_id", BigInteger),
            ForeignKeyConstraint(["user_id", "tenant_id"], ["users.id", "users.tenant_id"]),
        )
    ),
    "itself, over the key": lambda s: sharded(
        s.table(
            "a",
            key("tenant_id"),
            key("id"),
            Column("parent_id", BigInteger),
            ForeignKeyConstraint(["tenant_id", "parent_id"], ["a.tenant_id", "a.id"]),
        )
    ),
    "cascades beside the parent": lambda s: sharded(
        s.table(
            "a",
            key(
                "tenant_id",
                BigInteger,
                ForeignKey("tenants.id", ondelete="CASCADE", onupdate="CASCADE"),
            ),
        )
    ),
    "to a reference table": lambda s: sharded(
        s.table("a", key("tenant_id"), Column("code", ForeignKey("countries.code")))
    ),
    "cascade from a reference table beside the key": lambda s: sharded(
        s.table(
            "a",
            key("tenant_id"),
            Column("code", ForeignKey("countries.code", onupdate="CASCADE", ondelete="SET NULL")),
        )
    ),
    "key to a reference table": lambda s: sharded(
        s.table("a", key("code", String, ForeignKey("countries.code"))), "code"
    ),
    "reference to reference": lambda s: reference_table(
        s.table("a", key("id"), Column("code", ForeignKey("countries.code")))
    ),
    "global to reference": lambda s: global_table(
        s.table("a", key("id"), Column("code", ForeignKey("countries.code")))
    ),
    "global to global": lambda s: global_table(
        s.table("a", key("id"), Column("flag_id", ForeignKey("flags.id")))
    ),
    "number types that hash alike": lambda s: sharded(
        s.table("a", key("tenant_id", Numeric, ForeignKey("tenants.id")))
    ),
    "to a table that is not defined": lambda s: sharded(
        s.table("a", key("tenant_id"), Column("x", Integer, ForeignKey("elsewhere.id")))
    ),
    "to a column that is not defined": lambda s: sharded(
        s.table("a", key("tenant_id"), Column("x", Integer, ForeignKey("users.nothing")))
    ),
    "use_alter": lambda s: sharded(
        s.table(
            "a", key("tenant_id", BigInteger, ForeignKey("tenants.id", use_alter=True, name="fk"))
        )
    ),
    "a generated id, which is of its row's key": lambda s: [
        sharded(s.table("b", Column("tenant_id", Integer, nullable=False), key("id", GeneratedId))),
        sharded(s.table("a", key("tenant_id"), key("b_id", GeneratedId, ForeignKey("b.id")))),
    ][1],
    "promised to stay within the key": lambda s: sharded(
        s.table(
            "a",
            key("tenant_id"),
            Column("user_id", ForeignKey("users.id", info={"per_shard": True})),
        )
    ),
    "a constraint that is promised to": lambda s: sharded(
        s.table(
            "a",
            key("tenant_id"),
            Column("user_id", BigInteger),
            ForeignKeyConstraint(["user_id"], ["users.id"], info={"per_shard": True}),
        )
    ),
}


@pytest.mark.parametrize("make", SOUND.values(), ids=SOUND.keys())
def test_a_foreign_key_that_each_shard_can_check_passes(make, schema, dialect):
    table = make(schema)

    check_table(table, dialect)


FAULTY = {
    "without the key": (
        lambda s: sharded_a(
            s, key("tenant_id"), key("id"), Column("user_id", ForeignKey("users.id"))
        ),
        "foreign key (user_id) of 'a' to 'users' cannot be checked within a shard: the shard key "
        "(tenant_id) of 'a' is not compared with that (tenant_id) of 'users'",
        "let a ForeignKeyConstraint map the shard key as well",
    ),
    "the key to another column": (
        lambda s: sharded_a(s, key("tenant_id", BigInteger, ForeignKey("users.id"))),
        "is not compared with that (tenant_id) of 'users'",
        'info={"per_shard": True}',
    ),
    "itself, without the key": (
        lambda s: sharded_a(s, key("id"), Column("parent_id", ForeignKey("a.id")), by="id"),
        "foreign key (parent_id) of 'a' to 'a' cannot be checked within a shard",
        "ForeignKeyConstraint",
    ),
    "use_alter, without the key": (
        lambda s: sharded_a(
            s,
            key("tenant_id"),
            Column("user_id", ForeignKey("users.id", use_alter=True, name="fk")),
        ),
        "foreign key (user_id) of 'a' to 'users'",
        "ForeignKeyConstraint",
    ),
    "another keyspace": (
        lambda s: sharded_a(
            s,
            key("tenant_id"),
            Column("product_id", ForeignKey("products.id", info={"per_shard": True})),
        ),
        "'a' is in keyspace 'default' and 'products' in 'catalogue'",
        "take it away",
    ),
    "key types that hash differently": (
        lambda s: [
            shard_table(s.table("days", key("id", Date))),
            sharded_a(s, key("id", DateTime, ForeignKey("days.id")), by="id"),
        ][1],
        "a.id (DateTime()) and days.id (Date()) have types that are hashed differently",
        "give both columns one type",
    ),
    "another number of parts": (
        lambda s: [
            shard_table(s.table("areas", key("id"), key("part")), ("id", "part")),
            sharded_a(s, key("id"), key("part"), by="id", to=("id", "areas.id")),
        ][1],
        "the shard key (id) of 'a' is not compared with that (id, part) of 'areas'",
        "part by part",
    ),
    "sharded to global": (
        lambda s: sharded_a(s, key("tenant_id"), Column("flag_id", ForeignKey("flags.id"))),
        "'flags' is a global table, whose rows are on one shard only",
        "make that one a reference table",
    ),
    "reference to global": (
        lambda s: reference_table(s.table("a", key("id"), refers("flag_id", "flags.id"))),
        "'flags' is a global table",
        "make that one a reference table",
    ),
    "reference to sharded": (
        lambda s: reference_table(s.table("a", key("id"), refers("tenant_id", "tenants.id"))),
        "'tenants' is sharded, so that no shard has all of its rows, and 'a' is a reference table",
        "shard both tables by one key",
    ),
    "global to sharded": (
        lambda s: global_table(s.table("a", key("id"), refers("tenant_id", "tenants.id"))),
        "'tenants' is sharded, so that no shard has all of its rows, and 'a' is a global table",
        "take it away",
    ),
    "cascade from a reference table into the key": (
        lambda s: sharded_a(
            s, key("code", String, ForeignKey("countries.code", onupdate="cascade")), by="code"
        ),
        "shard key a.code follows countries.code by ON UPDATE CASCADE",
        "leave onupdate out",
    ),
    "cascade from a column that is no key": (
        lambda s: sharded_a(
            s,
            key("tenant_id"),
            ForeignKeyConstraint(
                ["tenant_id"], ["users.id"], onupdate="CASCADE", info={"per_shard": True}
            ),
        ),
        "shard key a.tenant_id follows users.id by ON UPDATE CASCADE",
        "leave onupdate out",
    ),
}


def sharded_a(s, *items, by="tenant_id", to=None):
    constraints = () if to is None else (ForeignKeyConstraint([to[0]], [to[1]]),)
    return shard_table(s.table("a", *items, *constraints), by)


def refers(name, target):
    return Column(name, ForeignKey(target))


@pytest.mark.parametrize(("make", "sentence", "mend"), FAULTY.values(), ids=FAULTY.keys())
def test_a_foreign_key_that_no_shard_can_check_is_refused(make, sentence, mend, schema):
    with pytest.raises(ConfigurationError) as refusal:
        make(schema)

    (fault,) = refusal.value.faults
    what, _, advice = fault.partition("; ")
    assert sentence in what
    assert mend in advice


def test_a_table_that_is_declared_later_is_looked_at_when_all_are_checked(dialect):
    metadata = MetaData()
    orders = shard_table(
        Table("orders", metadata, key("tenant_id"), Column("user_id", ForeignKey("users.id"))),
        "tenant_id",
    )
    check_table(orders, dialect)
    shard_table(Table("users", metadata, key("id")))

    with pytest.raises(ConfigurationError, match=r"foreign key \(user_id\) of 'orders'"):
        check_tables(metadata.tables.values(), dialect)


def test_an_undeclared_table_can_count_as_global(dialect):
    metadata = MetaData()
    shard_table(Table("users", metadata, key("id")))
    shard_table(Table("b", metadata, key("id"), Column("c_id", ForeignKey("c.id"))))
    Table("a", metadata, key("id"), Column("user_id", ForeignKey("users.id")))
    Table("c", metadata, key("id"), Column("a_id", ForeignKey("a.id")))
    tables = metadata.tables.values()
    check_tables(tables, dialect)

    with pytest.raises(ConfigurationError) as refusal:
        check_tables(tables, dialect, undeclared=Global())

    assert [fault.split(" cannot")[0] for fault in sorted(refusal.value.faults)] == [
        "foreign key (c_id) of 'b' to 'c'",
        "foreign key (user_id) of 'a' to 'users'",
    ]
