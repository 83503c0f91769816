from __future__ import annotations

from typing import Annotated

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import DATERANGE, ExcludeConstraint
from sqlalchemy.orm import Mapped, column_property, mapped_column

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.checks import check_mappers, check_table
from sqlalchemy_shards.models.declare import (
    ShardKeyMixin,
    global_table,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.models.generated_id import GeneratedId

MEANT = {"per_shard": True}

Handle = Annotated[str, mapped_column(unique=True, info=MEANT)]


def tenant(**keywords):
    keywords = {"primary_key": True, "autoincrement": False, **keywords}
    return Column("tenant_id", BigInteger, **keywords)


def number(type_=BigInteger, **keywords):
    return Column("id", type_, primary_key=True, autoincrement=False, **keywords)


def a_table(*items, name="orders", metadata=None):
    return Table(name, metadata if metadata is not None else MetaData(), *items)


def sharded(*items, **keywords):
    return shard_table(a_table(tenant(), number(), *items), "tenant_id", **keywords)


def email(**keywords):
    return Column("email", String, **keywords)


SOUND = {
    "constraint with the key": lambda: [UniqueConstraint("email", "tenant_id")],
    "index with the key": lambda: [Index("i", "tenant_id", "email", unique=True)],
    "index with the key and an expression": lambda: [
        Index("i", text("tenant_id"), "email"),
        Index("j", "tenant_id", func.lower(text("email")), unique=True),
    ],
    "constraint over more than the primary key": lambda: [
        UniqueConstraint("id", "tenant_id", "email")
    ],
    "index that is not unique": lambda: [Index("i", "email")],
    "constraint that is meant per shard": lambda: [UniqueConstraint("email", info=MEANT)],
    "index that is meant per shard": lambda: [Index("i", "email", unique=True, info=MEANT)],
    "expression that is meant per shard": lambda: [
        Index("i", func.lower(text("email")), unique=True, info=MEANT)
    ],
    "exclusion with the key": lambda: [ExcludeConstraint(("tenant_id", "="), ("stay", "&&"))],
    "exclusion that is meant per shard": lambda: [ExcludeConstraint(("stay", "&&"), info=MEANT)],
}


@pytest.mark.parametrize("items", SOUND.values(), ids=SOUND.keys())
def test_what_each_shard_can_keep_unique_passes(items):
    sharded(email(), Column("stay", DATERANGE), *items())


UNIQUE_COLUMNS = {
    "unique column": lambda **info: email(unique=True, **info),
    "column with a unique index": lambda **info: email(unique=True, index=True, **info),
    "a uuid, which need not be new": lambda **info: Column("id2", Uuid, unique=True, **info),
}


@pytest.mark.parametrize("column", UNIQUE_COLUMNS.values(), ids=UNIQUE_COLUMNS.keys())
def test_a_unique_column_beside_the_key_is_refused_unless_it_is_meant(column):
    with pytest.raises(ConfigurationError, match="lacks the shard key"):
        sharded(column())
    sharded(column(info=MEANT))


FAULTY = {
    "constraint": (
        lambda: [UniqueConstraint("email", "day")],
        "unique constraint (email, day) of 'orders' lacks the shard key (tenant_id)",
    ),
    "index": (lambda: [Index("i", "email", unique=True)], "unique index 'i'"),
    "partial index": (
        lambda: [Index("i", "email", unique=True, postgresql_where=text("day IS NULL"))],
        "unique index 'i'",
    ),
    "expression of the key": (
        lambda: [Index("i", func.abs(text("tenant_id")), unique=True)],
        "unique index 'i'",
    ),
    "column that is meant per shard, and another": (
        lambda: [UniqueConstraint("meant", "day")],
        "unique constraint (meant, day)",
    ),
    "exclusion": (
        lambda: [ExcludeConstraint(("stay", "&&"), name="no_overlap")],
        "exclusion constraint (no_overlap) of 'orders' does not compare the shard key (tenant_id)",
    ),
    "exclusion with another operator on the key": (
        lambda: [ExcludeConstraint(("tenant_id", "<>"), ("stay", "&&"))],
        "exclusion constraint (tenant_id, stay) of 'orders'",
    ),
}


@pytest.mark.parametrize(("items", "sentence"), FAULTY.values(), ids=FAULTY.keys())
def test_what_each_shard_would_keep_for_its_own_rows_only_is_refused(items, sentence):
    columns = [
        email(),
        Column("day", Date),
        Column("stay", DATERANGE),
        Column("meant", Integer, info=MEANT),
    ]
    with pytest.raises(ConfigurationError) as refusal:
        sharded(*columns, *items())

    (fault,) = refusal.value.faults
    assert fault.startswith(sentence)
    assert 'info={"per_shard": True}' in fault


def test_an_exclusion_of_an_expression_of_the_key_is_refused():
    key = tenant()
    constraint = ExcludeConstraint((func.abs(key), "="), (Column("stay", DATERANGE), "&&"))
    with pytest.raises(ConfigurationError, match="exclusion constraint"):
        shard_table(a_table(key, number(), constraint), "tenant_id")


def test_a_sorted_column_of_an_index_is_compared_as_it_is():
    key, other = tenant(), Column("email", String)
    index = Index("i", key.desc().nulls_last(), other.asc(), unique=True)

    shard_table(a_table(key, number(), other, index), "tenant_id")


def test_a_function_of_the_key_is_not_the_key():
    key = tenant()
    index = Index("i", func.abs(key), unique=True)
    with pytest.raises(ConfigurationError, match="unique index 'i'"):
        shard_table(a_table(key, number(), index), "tenant_id")


IDENTITIES = {
    "uuid": (Uuid, {}),
    "generated id": (GeneratedId, {}),
    "promised": (BigInteger, {"globally_unique": True}),
}


@pytest.mark.parametrize(("type_", "promise"), IDENTITIES.values(), ids=IDENTITIES.keys())
def test_more_columns_than_a_globally_unique_primary_key_are_unique(type_, promise):
    table = a_table(
        tenant(primary_key=False, nullable=False),
        number(type_),
        email(),
        UniqueConstraint("id", "email"),
    )

    shard_table(table, "tenant_id", **promise)


def test_the_promise_of_a_unique_primary_key_says_nothing_of_other_constraints():
    with pytest.raises(ConfigurationError, match=r"unique constraint \(email\)"):
        sharded(Column("email", String, unique=True), globally_unique=True)


def test_a_row_that_is_named_once_has_one_key(dialect):
    metadata = MetaData()
    owner = tenant(primary_key=False, nullable=False)
    shard_table(a_table(owner, number(Uuid), name="users", metadata=metadata), "tenant_id")
    columns = [
        tenant(),
        Column("user_id", Uuid),
        Column("line", Integer, primary_key=True, autoincrement=False),
        UniqueConstraint("user_id", "line"),
    ]
    over_key = ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"])
    lines = shard_table(a_table(*columns, over_key, metadata=metadata), "tenant_id")

    check_table(lines, dialect)


@pytest.mark.parametrize(
    "constraint",
    [
        lambda: ForeignKeyConstraint(["user_id"], ["users.id"], info=MEANT),
        lambda: ForeignKeyConstraint(
            ["tenant_id", "user_id", "day"], ["users.tenant_id", "users.id", "users.day"]
        ),
    ],
    ids=["the foreign key lacks the key", "the foreign key is not looked at without a day"],
)
def test_a_row_that_may_be_named_from_elsewhere_proves_nothing(constraint):
    metadata = MetaData()
    owner = tenant(primary_key=False, nullable=False)
    users = a_table(owner, number(Uuid), Column("day", Date), name="users", metadata=metadata)
    shard_table(users, "tenant_id")
    columns = [tenant(), number(), Column("user_id", Uuid, unique=True), Column("day", Date)]

    with pytest.raises(ConfigurationError, match=r"unique constraint \(user_id\)"):
        shard_table(a_table(*columns, constraint(), metadata=metadata), "tenant_id")


def test_nulls_that_are_not_distinct_name_nothing():
    metadata = MetaData()
    owner = tenant(primary_key=False, nullable=False)
    shard_table(a_table(owner, number(Uuid), name="users", metadata=metadata), "tenant_id")
    over_key = ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"])
    once = UniqueConstraint("user_id", postgresql_nulls_not_distinct=True)

    with pytest.raises(ConfigurationError, match=r"unique constraint \(user_id\)"):
        shard_table(
            a_table(tenant(), number(), Column("user_id", Uuid), over_key, once, metadata=metadata),
            "tenant_id",
        )


@pytest.mark.parametrize("declare", [reference_table, global_table])
def test_where_all_rows_are_together_anything_can_be_unique(declare):
    declare(a_table(number(), Column("email", String, unique=True)))


def test_info_comes_through_annotated_types_and_mixins(base, dialect):
    class Named:
        name: Mapped[Handle]
        code: Mapped[str] = mapped_column(unique=True, info=MEANT)

    class User(Named, ShardKeyMixin, base):
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[str] = mapped_column(primary_key=True)

    check_mappers(base.registry, dialect)

    assert len(User.__table__.constraints) == 3


def test_a_one_to_one_foreign_key_over_the_key_is_unique():
    metadata = MetaData()
    shard_table(a_table(number(), name="users", metadata=metadata))
    profile = Column("user_id", ForeignKey("users.id"), unique=True, nullable=False)

    shard_table(a_table(number(Uuid), profile, metadata=metadata), "user_id")


@pytest.mark.parametrize("is_short", [True, False])
def test_the_identity_of_a_class_on_a_join_holds_a_shard_key(base, dialect, is_short):
    users = shard_table(a_table(number(), name="users", metadata=base.metadata))
    owner = Column("user_id", ForeignKey("users.id"), primary_key=True)
    line = Column("line", Integer, primary_key=True, autoincrement=False)
    lines = shard_table(a_table(owner, line, name="lines", metadata=base.metadata), "user_id")

    class UserLine(base):
        __table__ = users.join(lines)
        id = column_property(users.c.id, lines.c.user_id)
        __mapper_args__ = {"primary_key": [lines.c.line]} if is_short else {}

    if not is_short:
        check_mappers(base.registry, dialect)
        return
    with pytest.raises(ConfigurationError, match=r"mapped primary key \(line\) of class UserLine"):
        check_mappers([UserLine.__mapper__], dialect)
