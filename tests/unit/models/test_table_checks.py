from __future__ import annotations

import time
import uuid

import pytest
from sqlalchemy import (
    CHAR,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    Enum,
    FetchedValue,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Integer,
    MetaData,
    Numeric,
    Sequence,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import CITEXT, DOMAIN, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.checks import check_mappers, check_table, undeclared_error
from sqlalchemy_shards.models.declare import ReferenceMixin, ShardKeyMixin
from sqlalchemy_shards.models.distribution import (
    Global,
    Reference,
    Sharded,
    note_distribution,
)
from sqlalchemy_shards.models.generated_id import GeneratedId


class Decorated(TypeDecorator):
    """Of the application's own, over a type of PostgreSQL's."""

    impl = String
    cache_ok = True

    def __init__(self, type_, *arguments, **keywords):
        super().__init__()
        self.made = type_(*arguments, **keywords)

    def load_dialect_impl(self, dialect):
        return self.made


class OwnUuid(TypeDecorator):
    impl = Uuid(native_uuid=False)
    cache_ok = True


def next_id():
    return 1


def tenant(*arguments, **keywords):
    keywords = {"primary_key": True, "autoincrement": False, **keywords}
    return Column("tenant_id", *(arguments or (BigInteger,)), **keywords)


def number(*arguments, **keywords):
    return Column("id", *(arguments or (BigInteger,)), primary_key=True, **keywords)


def a_table(distribution, *columns, **keywords):
    table = Table("orders", MetaData(), *columns, **keywords)
    note_distribution(table, distribution)
    return table


def faults_of(table, dialect):
    with pytest.raises(ConfigurationError) as refusal:
        check_table(table, dialect)
    return refusal.value.faults


BY_TENANT = Sharded(("tenant_id",))

SOUND_SHARDED = {
    "composite primary key": [tenant(), number()],
    "key as whole primary key": [tenant()],
    "client-side default on the key": [tenant(default=next_id, autoincrement="auto")],
    "single uuid primary key": [tenant(primary_key=False, nullable=False), number(Uuid)],
    "uuid stored as text": [
        tenant(primary_key=False, nullable=False),
        number(Uuid(native_uuid=False)),
    ],
    "single generated primary key": [
        tenant(primary_key=False, nullable=False),
        number(GeneratedId, default=next_id),
    ],
    "part of the primary key is generated": [
        tenant(primary_key=False, nullable=False),
        number(GeneratedId, default=next_id),
        Column("position", Integer, primary_key=True),
    ],
    "uuid type of one's own": [tenant(primary_key=False, nullable=False), number(OwnUuid)],
    "uuid made by the server": [
        tenant(primary_key=False, nullable=False),
        number(Uuid, server_default=func.gen_random_uuid()),
    ],
    "server default beside the key": [
        tenant(),
        Column("created", DateTime, server_default=func.now(), onupdate=func.now()),
    ],
    "computed column beside the key": [tenant(), Column("twice", Integer, Computed("2 * id"))],
    "autoincrement that the client overrides": [
        tenant(),
        number(autoincrement=True, default=next_id),
    ],
}


@pytest.mark.parametrize("columns", SOUND_SHARDED.values(), ids=SOUND_SHARDED.keys())
def test_a_sound_sharded_table_passes(columns, dialect):
    table = a_table(BY_TENANT, *columns, schema="My Schema")

    check_table(table, dialect)


FAULTY_SHARDED = {
    "nullable key": (
        [tenant(primary_key=False, nullable=True), number(Uuid)],
        "can be NULL; make it nullable=False",
    ),
    "char key": ([tenant(CHAR(3)), number(default=next_id)], "has type CHAR"),
    "citext key": ([tenant(CITEXT)], "has type CITEXT"),
    "float key": ([tenant(Float)], "has type Float"),
    "collation of one's own": ([tenant(String(collation="nocase"))], "has type String"),
    "computed key": (
        [tenant(Integer, Computed("id / 2"), primary_key=False, nullable=False), number(Uuid)],
        "is computed by the server",
    ),
    "server default on the key": ([tenant(server_default="7")], "has a server default"),
    "fetched value on the key": (
        [tenant(server_default=FetchedValue())],
        "has a server default",
    ),
    "expression as default of the key": (
        [tenant(default=func.my_key())],
        "has an SQL expression as default",
    ),
    "onupdate of the key": ([tenant(onupdate=next_id)], "has onupdate"),
    "server-side onupdate of the key": (
        [tenant(server_onupdate=FetchedValue())],
        "has onupdate",
    ),
    "no primary key": ([tenant(primary_key=False, nullable=False)], "has no primary key"),
    "primary key without the shard key": (
        [tenant(primary_key=False, nullable=False), number(default=next_id)],
        "primary key (id) of 'orders' lacks the shard key (tenant_id)",
    ),
    "uuid in a longer primary key": (
        [
            tenant(primary_key=False, nullable=False),
            number(Uuid, default=uuid.uuid4),
            Column("line", Integer, primary_key=True),
        ],
        "primary key (id, line) of 'orders' lacks the shard key",
    ),
    "serial": ([tenant(autoincrement="auto")], "set autoincrement=False"),
    "autoincrement in a composite primary key": (
        [tenant(), number(autoincrement=True)],
        "orders.id gets its value from the server (SQLAlchemy would make it SERIAL)",
    ),
    "identity": (
        [tenant(), Column("no", Integer, Identity())],
        "orders.no gets its value from an identity of the server",
    ),
    "identity on the key": (
        [tenant(BigInteger, Identity(), autoincrement="auto")],
        "an identity of the server",
    ),
    "sequence": (
        [tenant(), Column("no", Integer, Sequence("nos"))],
        "orders.no gets its value from the sequence 'nos'",
    ),
    "sequence as server default": (
        [tenant(), Column("no", Integer, server_default=Sequence("nos").next_value())],
        "orders.no gets its value from a sequence of the server",
    ),
    "sequence in reflected text": (
        [tenant(), Column("no", Integer, server_default=text("NEXTVAL('nos'::regclass)"))],
        "orders.no gets its value from a sequence of the server",
    ),
    "sequence in an expression": (
        [tenant(), Column("no", Integer, default=func.nextval("nos") + 1)],
        "orders.no gets its value from a sequence of the server",
    ),
}


@pytest.mark.parametrize(
    ("columns", "sentence"), FAULTY_SHARDED.values(), ids=FAULTY_SHARDED.keys()
)
def test_a_faulty_sharded_table_is_refused_with_one_sentence(columns, sentence, dialect):
    table = a_table(BY_TENANT, *columns)

    (fault,) = faults_of(table, dialect)
    assert sentence in fault


def test_the_advice_against_server_numbers_names_both_steps(dialect):
    (fault,) = faults_of(a_table(Sharded(("id",)), number()), dialect)

    assert "autoincrement=False" in fault
    assert "client-side default" in fault


def test_all_faults_of_a_table_are_told_at_once(dialect):
    table = a_table(
        BY_TENANT,
        tenant(Float, primary_key=False, nullable=True, server_default="1"),
        number(),
    )

    assert len(faults_of(table, dialect)) == 5


def test_each_part_of_a_key_is_checked(dialect):
    table = a_table(
        Sharded(("tenant_id", "region")),
        tenant(),
        Column("region", String, primary_key=True, server_default="west"),
    )

    (fault,) = faults_of(table, dialect)
    assert "orders.region" in fault


def test_a_primary_key_with_only_a_part_of_the_key_is_refused(dialect):
    table = a_table(
        Sharded(("tenant_id", "region")), tenant(), Column("region", String, nullable=False)
    )

    (fault,) = faults_of(table, dialect)
    assert "lacks the shard key (tenant_id, region)" in fault


def test_a_promise_lets_a_primary_key_without_the_key_pass(dialect):
    table = a_table(
        Sharded(("tenant_id",), globally_unique=True),
        tenant(primary_key=False, nullable=False),
        number(default=next_id),
    )

    check_table(table, dialect)


def test_a_generated_id_as_shard_key_is_refused(dialect):
    (fault,) = faults_of(a_table(BY_TENANT, tenant(GeneratedId)), dialect)

    assert "shard key orders.tenant_id is a GeneratedId" in fault


def test_columns_are_found_by_key_not_name(dialect):
    table = a_table(Sharded(("user_id",)), Column("uid", String, key="user_id", primary_key=True))

    check_table(table, dialect)


def test_a_key_column_that_does_not_exist_is_refused(dialect):
    (fault,) = faults_of(a_table(Sharded(("nobody",)), tenant()), dialect)

    assert "no shard-key column 'nobody'; name one of tenant_id" in fault


def test_a_key_whose_foreign_key_cannot_be_resolved_is_refused_in_the_end(dialect):
    table = a_table(BY_TENANT, Column("tenant_id", ForeignKey("tenants.id"), primary_key=True))

    check_table(table, dialect, allow_unresolved=True)
    (fault,) = faults_of(table, dialect)
    assert "has no type" in fault


SOUND_REFERENCE = {
    "text primary key": [number(String)],
    "client-side defaults": [
        number(default=next_id),
        Column("on", Boolean, default=True, onupdate=next_id),
    ],
    "computed column": [
        number(autoincrement=False),
        Column("twice", Integer, Computed("2 * id")),
    ],
}


@pytest.mark.parametrize("columns", SOUND_REFERENCE.values(), ids=SOUND_REFERENCE.keys())
def test_a_sound_reference_table_passes(columns, dialect):
    check_table(a_table(Reference(), *columns), dialect)


FAULTY_REFERENCE = {
    "serial": (number(), "the server (SQLAlchemy would make it SERIAL)"),
    "identity": (number(BigInteger, Identity()), "an identity of the server"),
    "sequence": (number(BigInteger, Sequence("nos")), "the sequence 'nos'"),
    "server default": (number(String, server_default=func.gen_random_uuid()), "a server default"),
    "fetched value": (number(String, server_default=FetchedValue()), "a server default"),
    "expression": (number(String, default=func.random()), "an SQL expression as default"),
    "server-side onupdate": (
        number(String, server_onupdate=FetchedValue()),
        "a server-side onupdate",
    ),
    "expression onupdate": (number(String, onupdate=func.now()), "an SQL expression as onupdate"),
}


@pytest.mark.parametrize(
    ("column", "sentence"), FAULTY_REFERENCE.values(), ids=FAULTY_REFERENCE.keys()
)
def test_a_faulty_reference_table_is_refused_with_one_sentence(column, sentence, dialect):
    (fault,) = faults_of(a_table(Reference(), column), dialect)

    assert fault.startswith("orders.id ")
    assert sentence in fault
    assert "client-side default" in fault


def test_a_global_table_may_count(dialect):
    check_table(a_table(Global(), number(BigInteger, Identity())), dialect)


def test_an_undeclared_table_passes(dialect):
    check_table(Table("orders", MetaData(), number()), dialect)


def test_the_faults_of_all_mappers_are_told_at_once(base, dialect):
    class User(ShardKeyMixin, base):
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Country(ReferenceMixin, base):
        __tablename__ = "countries"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(ConfigurationError) as refusal:
        check_mappers(base.registry, dialect)

    assert [fault.split()[0] for fault in refusal.value.faults] == ["countries.id", "users.id"]


def test_an_identity_that_the_mapping_takes_from_fewer_columns_is_refused(base, dialect):
    class Order(ShardKeyMixin, base):
        __table__ = Table("orders", base.metadata, tenant(), number(default=next_id))
        __shard_key__ = "tenant_id"
        __mapper_args__ = {"primary_key": [__table__.c.id]}

    with pytest.raises(ConfigurationError, match=r"mapped primary key \(id\) of class Order"):
        check_mappers([Order.__mapper__], dialect)


def test_the_error_for_an_undeclared_table_names_the_four_ways():
    error = undeclared_error(Table("orders", MetaData(), schema="sales"))

    assert "'sales.orders'" in error.problem
    for way in ("ShardKeyMixin", "ReferenceMixin", "GlobalMixin", 'undeclared="global"'):
        assert way in error.advice
    for function in ("shard_table()", "reference_table()", "global_table()"):
        assert function in error.advice


UNFIT = {
    "citext": (CITEXT(), "differ in case", "let the client lower its values"),
    "citext below a decorator": (Decorated(CITEXT), "differ in case", "TypeDecorator"),
    "char": (CHAR(3), "ignores trailing blanks", "use String or Text"),
    "float": (Float(), "two zeros", "use Numeric or an integer"),
    "real below a decorator": (Decorated(REAL), "two zeros", "use Numeric"),
    "numeric read as float": (Numeric(10, 2, asdecimal=False), "two zeros", "use Numeric"),
    "collation": (String(collation="und-x-icu"), "a collation of its own", 'use "C"'),
    "collation below a decorator": (
        Decorated(String, collation="und-x-icu"),
        "a collation of its own",
        "leave the collation out",
    ),
    "enum": (Enum("a", "b", name="letters"), "can be renamed", "native_enum=False"),
    "domain": (DOMAIN("email", CITEXT()), "a domain", "CheckConstraint"),
    "domain below a decorator": (Decorated(DOMAIN, "n", Integer()), "a domain", "CheckConstraint"),
    "anything else": (JSONB(), "is unknown", "use an integer"),
}


@pytest.mark.parametrize(("type_", "reason", "mend"), UNFIT.values(), ids=UNFIT.keys())
def test_a_type_that_cannot_be_a_key_is_refused_with_the_reason(type_, reason, mend, dialect):
    (fault,) = faults_of(a_table(BY_TENANT, tenant(type_)), dialect)

    assert reason in fault
    assert mend in fault


def make_models(base, count):
    """Tenants of `count` kinds, each with what its table and its relationships need checked."""
    made = []
    for at in range(count):
        previous = ForeignKeyConstraint(
            ["tenant_id", "previous_id"],
            [f"table_{max(at - 1, 0)}.tenant_id", f"table_{max(at - 1, 0)}.id"],
        )
        columns = {
            "tenant_id": mapped_column(BigInteger, primary_key=True, autoincrement=False),
            "id": mapped_column(BigInteger, primary_key=True, default=next_id),
            "previous_id": mapped_column(BigInteger),
        }
        if at < count - 1:
            columns["next"] = relationship(f"Model{at + 1}")
        columns |= {f"field_{number}": mapped_column(String) for number in range(15)}
        name = f"Model{at}"
        unique = UniqueConstraint("tenant_id", "field_0")
        words = {"__tablename__": f"table_{at}", "__shard_key__": "tenant_id"}
        words["__table_args__"] = (previous, unique)
        made.append(type(name, (ShardKeyMixin, base), {**words, **columns}))
    return made


@pytest.mark.slow
def test_many_models_are_checked_in_little_time(base, dialect):
    models = make_models(base, 300)
    base.registry.configure()

    begun = time.perf_counter()
    check_mappers(base.registry, dialect)
    assert time.perf_counter() - begun < 5
    assert len(models) == 300
