from __future__ import annotations

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Table,
    Uuid,
    and_,
)
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import backref, foreign, relationship, remote

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.declare import (
    GlobalMixin,
    ReferenceMixin,
    ShardKeyMixin,
    reference_table,
    shard_table,
)


def key(name="id", *arguments, **keywords):
    keywords = {"primary_key": True, "autoincrement": False, **keywords}
    return Column(name, BigInteger, *arguments, **keywords)


def a_class(base, name, mixin, *items, shard_key=None, **attributes):
    """A class `Name` on the table `names`; `items` are its columns and constraints."""
    if shard_key is not None:
        attributes["__shard_key__"] = shard_key
    parents = (base,) if mixin is None else (mixin, base)
    table = Table(f"{name.lower()}s", base.metadata, *items)
    made = type(name, parents, {"__table__": table, "__module__": __name__, **attributes})
    base.metadata.info.setdefault("classes", []).append(made)  # the registry holds them weakly
    return made


def faults_of(base):
    with pytest.raises(ConfigurationError) as refusal:
        base.registry.configure()
    return refusal.value.faults


def user(base, **attributes):
    return a_class(base, "User", ShardKeyMixin, key(), shard_key="id", **attributes)


class TestOneToMany:
    def test_beside_its_owner_passes(self, base):
        user(base, orders=relationship("Order", back_populates="user"))
        a_class(
            base,
            "Order",
            ShardKeyMixin,
            key("user_id", ForeignKey("users.id")),
            key(),
            shard_key="user_id",
            user=relationship("User", back_populates="orders"),
        )

        base.registry.configure()

    def test_over_a_key_of_several_parts_passes(self, base):
        over_key = ForeignKeyConstraint(
            ["area", "tenant_id", "owner_id"], ["users.area", "users.tenant_id", "users.id"]
        )
        parts = ("area", "tenant_id")
        a_class(
            base,
            "User",
            ShardKeyMixin,
            key("area"),
            key("tenant_id"),
            key(),
            shard_key=parts,
            pets=relationship("Pet", backref="owner"),
        )
        a_class(
            base,
            "Pet",
            ShardKeyMixin,
            key("area"),
            key("tenant_id"),
            key(),
            Column("owner_id", BigInteger),
            over_key,
            shard_key=parts,
        )

        base.registry.configure()

    def test_adjacency_within_the_key_passes(self, base):
        over_key = ForeignKeyConstraint(["tenant_id", "parent_id"], ["nodes.tenant_id", "nodes.id"])
        columns = (key("tenant_id"), key(), Column("parent_id", BigInteger))
        node = a_class(base, "Node", ShardKeyMixin, *columns, over_key, shard_key="tenant_id")
        remote_side = [node.tenant_id, node.id]
        node.children = relationship(node, backref=backref("parent", remote_side=remote_side))

        base.registry.configure()

    def test_of_a_reference_row_to_sharded_rows_passes(self, base):
        a_class(base, "Country", ReferenceMixin, key(), users=relationship("User", backref="at"))
        a_class(
            base,
            "User",
            ShardKeyMixin,
            key(),
            Column("country_id", ForeignKey("countrys.id")),
            shard_key="id",
        )

        base.registry.configure()

    def test_over_a_foreign_key_that_stays_within_the_key_by_promise_passes(self, base):
        tenant = Column("tenant_id", BigInteger, nullable=False)
        id_ = Column("id", Uuid, primary_key=True)
        mark = {"shard_key": "tenant_id"}
        a_class(
            base, "User", ShardKeyMixin, tenant, id_, pets=relationship("Pet", backref="o"), **mark
        )
        a_class(
            base,
            "Pet",
            ShardKeyMixin,
            Column("tenant_id", BigInteger, nullable=False),
            Column("id", Uuid, primary_key=True),
            Column("owner_id", ForeignKey("users.id", info={"per_shard": True})),
            **mark,
        )

        base.registry.configure()

    @pytest.mark.parametrize("viewonly", [True, False])
    def test_without_the_key_can_only_be_read(self, base, viewonly):
        node = a_class(
            base,
            "Node",
            ShardKeyMixin,
            key(),
            Column("parent_id", BigInteger),
            shard_key="id",
        )
        node.children = relationship(
            node,
            primaryjoin=lambda: remote(foreign(node.parent_id)) == node.id,
            viewonly=viewonly,
        )
        if viewonly:
            base.registry.configure()
            return

        (fault,) = faults_of(base)
        assert fault.startswith(
            "relationship Node.children would write rows of 'nodes' that no foreign key can hold "
            "to theirs, since the shard key (id) of 'nodes' is not compared with that (id) of "
        )
        assert "set viewonly=True" in fault

    @pytest.mark.parametrize("viewonly", [True, False])
    def test_into_another_keyspace_can_only_be_read(self, base, viewonly):
        product = a_class(
            base, "Product", ShardKeyMixin, key(), shard_key="id", __keyspace__="catalogue"
        )
        line = a_class(
            base,
            "Line",
            ShardKeyMixin,
            key(),
            Column("product_id", BigInteger),
            shard_key="id",
        )
        join = {"primaryjoin": lambda: foreign(line.product_id) == product.id}
        line.product = relationship(product, overlaps="lines", **join)
        product.lines = relationship(line, viewonly=viewonly, **join)
        if viewonly:
            base.registry.configure()
            return

        (fault,) = faults_of(base)
        assert fault.startswith("relationship Product.lines would write rows of 'lines'")
        assert "'lines' is in keyspace 'default' and 'products' in 'catalogue'" in fault

    @pytest.mark.parametrize(
        ("owner", "owned", "sentence"),
        [
            (GlobalMixin, ShardKeyMixin, "'owners' is a global table"),
            (GlobalMixin, ReferenceMixin, "'owners' is a global table"),
            (ShardKeyMixin, GlobalMixin, "'owners' is sharded, so that no shard has all"),
            (ShardKeyMixin, ReferenceMixin, "'owners' is sharded, so that no shard has all"),
        ],
    )
    def test_between_tables_that_no_foreign_key_joins_is_refused(
        self, base, owner, owned, sentence
    ):
        one = a_class(base, "Owner", owner, key(), __shard_key__="id")
        many = a_class(
            base, "Pet", owned, key(), Column("owner_id", BigInteger), __shard_key__="id"
        )
        one.pets = relationship(many, primaryjoin=lambda: foreign(many.owner_id) == one.id)

        (fault,) = faults_of(base)
        assert sentence in fault

    def test_to_rows_that_say_nothing_is_left_to_their_first_use(self, base):
        owner = user(base)
        pet = a_class(base, "Pet", None, key(), Column("owner_id", BigInteger))
        owner.pets = relationship(pet, primaryjoin=lambda: foreign(pet.owner_id) == owner.id)

        base.registry.configure()


@pytest.mark.parametrize("mixin", [ShardKeyMixin, ReferenceMixin, GlobalMixin])
def test_many_to_one_writes_its_own_row_wherever_the_other_is(base, mixin):
    product = a_class(
        base, "Product", ShardKeyMixin, key(), shard_key="id", __keyspace__="catalogue"
    )
    line = a_class(base, "Line", mixin, key(), Column("p_id", BigInteger), __shard_key__="id")
    line.product = relationship(product, primaryjoin=lambda: foreign(line.p_id) == product.id)

    base.registry.configure()


def association(base, *items):
    return Table("user_groups", base.metadata, *items)


def tenants_class(base, name):
    return a_class(base, name, ShardKeyMixin, key("tenant_id"), key(), shard_key="tenant_id")


def over_key(name, target):
    return ForeignKeyConstraint(["tenant_id", name], [f"{target}.tenant_id", f"{target}.id"])


class TestManyToMany:
    def test_of_co_located_sides_passes(self, base):
        between = association(
            base,
            key("tenant_id"),
            key("user_id"),
            key("group_id"),
            over_key("user_id", "users"),
            over_key("group_id", "groups"),
        )
        shard_table(between, "tenant_id")
        user, group = tenants_class(base, "User"), tenants_class(base, "Group")
        user.groups = relationship(
            group,
            secondary=between,
            primaryjoin=lambda: and_(
                between.c.tenant_id == user.tenant_id, between.c.user_id == user.id
            ),
            secondaryjoin=lambda: and_(
                between.c.tenant_id == group.tenant_id, between.c.group_id == group.id
            ),
            backref="users",
        )

        base.registry.configure()

    def test_of_a_sharded_and_a_reference_side_passes(self, base):
        between = association(
            base, key("user_id", ForeignKey("users.id")), key("tag_id", ForeignKey("tags.id"))
        )
        shard_table(between, "user_id")
        user(base, tags=relationship("Tag", secondary=between, backref="users"))
        a_class(base, "Tag", ReferenceMixin, key())

        base.registry.configure()

    @pytest.mark.parametrize("mixin", [ReferenceMixin, GlobalMixin])
    def test_of_two_reference_or_two_global_sides_passes(self, base, mixin):
        between = association(
            base, key("a_id", ForeignKey("as.id")), key("b_id", ForeignKey("bs.id"))
        )
        if mixin is ReferenceMixin:
            reference_table(between)
        a_class(base, "A", mixin, key(), bs=relationship("B", secondary=between, backref="as_"))
        a_class(base, "B", mixin, key())

        base.registry.configure()

    @pytest.mark.parametrize("viewonly", [True, False])
    def test_of_sides_that_are_not_co_located_can_only_be_read(self, base, viewonly):
        between = association(base, key("user_id"), key("friend_id"))
        shard_table(between, "user_id")
        one = user(base)
        one.friends = relationship(
            one,
            secondary=between,
            primaryjoin=lambda: foreign(between.c.user_id) == one.id,
            secondaryjoin=lambda: foreign(between.c.friend_id) == one.id,
            viewonly=viewonly,
        )
        if viewonly:
            base.registry.configure()
            return

        (fault,) = faults_of(base)
        assert fault.startswith(
            "relationship User.friends cannot keep its rows in 'user_groups', since the shard key "
            "(user_id) of 'user_groups' is not compared with that (id) of 'users'"
        )
        assert "compare it in both joins" in fault

    def test_with_a_secondary_that_is_not_beside_the_sharded_side_is_refused(self, base):
        between = association(
            base, key("user_id", ForeignKey("users.id")), key("tag_id", ForeignKey("tags.id"))
        )
        shard_table(between, "tag_id")
        user(base, tags=relationship("Tag", secondary=between, backref="users"))
        a_class(base, "Tag", ReferenceMixin, key())

        assert any(
            fault.startswith("relationship User.tags cannot keep its rows in 'user_groups'")
            for fault in faults_of(base)
        )

    def test_with_a_secondary_that_says_nothing_is_refused(self, base):
        between = association(
            base, key("user_id", ForeignKey("users.id")), key("tag_id", ForeignKey("tags.id"))
        )
        user(base, tags=relationship("Tag", secondary=between, backref="users"))
        a_class(base, "Tag", ReferenceMixin, key())

        assert faults_of(base)[0].startswith(
            "table 'user_groups', the secondary of relationship Tag.users, does not say how it "
            "spreads; declare it beside its sharded side with shard_table(user_groups, key=...)"
        )

    def test_with_a_side_that_says_nothing_is_left_to_its_first_use(self, base):
        between = association(
            base, key("user_id", ForeignKey("users.id")), key("tag_id", ForeignKey("tags.id"))
        )
        user(base, tags=relationship("Tag", secondary=between, backref="users"))
        a_class(base, "Tag", None, key())

        base.registry.configure()

    def test_with_a_secondary_without_primary_key_is_refused(self, base):
        between = association(
            base,
            Column("user_id", ForeignKey("users.id"), nullable=False),
            Column("tag_id", ForeignKey("tags.id")),
        )
        with pytest.raises(ConfigurationError, match="'user_groups' has no primary key"):
            shard_table(between, "user_id")


def test_both_faults_of_two_sides_and_those_of_tables_are_told_at_once(base):
    owner = user(base, more=relationship("Pet", viewonly=True))
    pet = a_class(
        base,
        "Pet",
        ShardKeyMixin,
        key(),
        Column("owner_id", ForeignKey("users.id"), unique=True),
        shard_key="id",
    )
    owner.pets = relationship(pet, back_populates="owner", overlaps="more")
    pet.owner = relationship(owner, back_populates="pets")

    starts = [" ".join(fault.split(" ")[:2]) for fault in faults_of(base)]
    assert starts == ["unique constraint", "foreign key", "relationship User.pets"]


def test_a_refused_registry_stays_refused(base):
    user(base, pets=relationship("Pet"))
    a_class(
        base,
        "Pet",
        ShardKeyMixin,
        key(),
        Column("owner_id", ForeignKey("users.id")),
        shard_key="id",
    )
    faults_of(base)

    with pytest.raises(InvalidRequestError, match="cannot be checked within a shard"):
        base.registry.configure()


def test_what_is_declared_after_the_mappers_were_configured_is_checked_then(base):
    owner = user(base)
    pet = a_class(base, "Pet", None, key(), Column("owner_id", BigInteger))
    owner.pets = relationship(pet, primaryjoin=lambda: foreign(pet.owner_id) == owner.id)
    base.registry.configure()

    with pytest.raises(ConfigurationError, match=r"relationship User\.pets would write rows"):
        shard_table(pet)


def test_an_inherited_relationship_is_told_of_once(base):
    owner = user(base)
    pet = a_class(base, "Pet", ShardKeyMixin, key(), Column("owner_id", BigInteger), shard_key="id")
    owner.pets = relationship(pet, primaryjoin=lambda: foreign(pet.owner_id) == owner.id)
    admin = type("Admin", (owner,), {"__module__": __name__})

    assert admin.pets is not owner.pets
    assert len(faults_of(base)) == 1
