"""Mappings of SQLAlchemy's own documentation, spread by a key: what is sound is not refused."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    UniqueConstraint,
    func,
    select,
)
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.orm import aliased, backref, column_property, mapped_column, relationship

from sqlalchemy_shards import GlobalMixin, ReferenceMixin, ShardKeyMixin


def key(*arguments: Any) -> Any:
    return mapped_column(BigInteger, *arguments, primary_key=True, autoincrement=False)


def one_to_one(base: Any) -> None:
    class Parent(ShardKeyMixin, base):
        __tablename__ = "parent"
        __shard_key__ = "id"
        id = key()
        child = relationship("Child", back_populates="parent", uselist=False)

    class Child(ShardKeyMixin, base):
        __tablename__ = "child"
        __shard_key__ = "parent_id"
        __table_args__ = (UniqueConstraint("parent_id"),)
        parent_id = key(ForeignKey("parent.id"))
        id = key()
        parent = relationship("Parent", back_populates="child")


def association_object(base: Any) -> None:
    class User(ShardKeyMixin, base):
        __tablename__ = "users"
        __shard_key__ = "id"
        id = key()
        links = relationship("Link", back_populates="user", cascade="all, delete-orphan")
        keywords = association_proxy("links", "keyword")

    class Keyword(ReferenceMixin, base):
        __tablename__ = "keywords"
        id = key()

    class Link(ShardKeyMixin, base):
        __tablename__ = "links"
        __shard_key__ = "user_id"
        user_id = key(ForeignKey("users.id"))
        keyword_id = key(ForeignKey("keywords.id"))
        user = relationship(User, back_populates="links")
        keyword = relationship(Keyword, backref="links")


def overlapping_foreign_keys(base: Any) -> None:
    class Magazine(ShardKeyMixin, base):
        __tablename__ = "magazine"
        __shard_key__ = "id"
        id = key()

    class Writer(ShardKeyMixin, base):
        __tablename__ = "writer"
        __shard_key__ = "magazine_id"
        id = key()
        magazine_id = key(ForeignKey("magazine.id"))
        magazine = relationship(Magazine)

    class Article(ShardKeyMixin, base):
        __tablename__ = "article"
        __shard_key__ = "magazine_id"
        __table_args__ = (
            ForeignKeyConstraint(["writer_id", "magazine_id"], ["writer.id", "writer.magazine_id"]),
        )
        article_id = key()
        magazine_id = key(ForeignKey("magazine.id"))
        writer_id = mapped_column(BigInteger)
        magazine = relationship(Magazine)
        writer = relationship(
            Writer,
            primaryjoin="and_(Writer.id == foreign(Article.writer_id), "
            "Writer.magazine_id == Article.magazine_id)",
            backref="articles",
        )


def rows_that_point_to_themselves(base: Any) -> None:
    class Entry(ShardKeyMixin, base):
        __tablename__ = "entry"
        __shard_key__ = "widget_id"
        __table_args__ = (
            ForeignKeyConstraint(
                ["widget_id"], ["widget.widget_id"], name="fk_widget", use_alter=True
            ),
        )
        entry_id = key()
        widget_id = key()

    class Widget(ShardKeyMixin, base):
        __tablename__ = "widget"
        __shard_key__ = "widget_id"
        __table_args__ = (
            ForeignKeyConstraint(
                ["widget_id", "favorite_entry_id"], ["entry.widget_id", "entry.entry_id"]
            ),
        )
        widget_id = key()
        favorite_entry_id = mapped_column(BigInteger)
        entries = relationship(Entry, primaryjoin=widget_id == Entry.widget_id)
        favorite_entry = relationship(
            Entry,
            primaryjoin=favorite_entry_id == Entry.entry_id,
            foreign_keys=favorite_entry_id,
            post_update=True,
        )


def adjacency_list_of_a_composite_key(base: Any) -> None:
    class Folder(ShardKeyMixin, base):
        __tablename__ = "folder"
        __shard_key__ = "account_id"
        __table_args__ = (
            ForeignKeyConstraint(
                ["account_id", "parent_id"], ["folder.account_id", "folder.folder_id"]
            ),
        )
        account_id = key()
        folder_id = key()
        parent_id = mapped_column(BigInteger)
        parent_folder = relationship(
            "Folder", backref="child_folders", remote_side=[account_id, folder_id]
        )


def custom_join_conditions(base: Any) -> None:
    class User(ShardKeyMixin, base):
        __tablename__ = "user"
        __shard_key__ = "id"
        id = key()
        addresses = relationship("Address", lazy="write_only", overlaps="boston_addresses,tall")
        boston_addresses = relationship(
            "Address",
            primaryjoin="and_(User.id == Address.user_id, Address.city == 'Boston')",
            overlaps="addresses,tall",
        )

    class Address(ShardKeyMixin, base):
        __tablename__ = "address"
        __shard_key__ = "user_id"
        user_id = key(ForeignKey("user.id"))
        id = key()
        city = mapped_column(String)

    User.count = column_property(
        select(func.count(Address.id)).where(Address.user_id == User.id).scalar_subquery()
    )
    oldest = aliased(
        Address, select(Address).order_by(Address.id).limit(1).subquery(), name="oldest"
    )
    User.oldest = relationship(oldest, primaryjoin=lambda: User.id == oldest.user_id, viewonly=True)


def joined_inheritance_with_relationships(base: Any) -> None:
    class Company(ShardKeyMixin, base):
        __tablename__ = "company"
        __shard_key__ = "id"
        id = key()
        employees = relationship("Employee", back_populates="company")

    class Employee(ShardKeyMixin, base):
        __tablename__ = "employee"
        __shard_key__ = "company_id"
        company_id = key(ForeignKey("company.id"))
        id = key()
        type = mapped_column(String)
        company = relationship(Company, back_populates="employees")
        __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "employee"}

    class Manager(Employee):
        __tablename__ = "manager"
        __table_args__ = (
            ForeignKeyConstraint(["company_id", "id"], ["employee.company_id", "employee.id"]),
        )
        company_id = key()
        id = key()
        paperwork = relationship("Paperwork", backref=backref("manager", lazy="joined"))
        __mapper_args__ = {"polymorphic_identity": "manager"}

    class Paperwork(ShardKeyMixin, base):
        __tablename__ = "paperwork"
        __shard_key__ = "company_id"
        __table_args__ = (
            ForeignKeyConstraint(
                ["company_id", "manager_id"], ["manager.company_id", "manager.id"]
            ),
        )
        company_id = key()
        id = key()
        manager_id = mapped_column(BigInteger)


def plain_models(base: Any, mixin: type) -> None:
    number = (
        {"primary_key": True} if mixin is GlobalMixin else {"primary_key": True, "default": int}
    )

    class Node(mixin, base):  # type: ignore[misc, valid-type]
        __tablename__ = "node"
        id = mapped_column(Integer, **number)
        name = mapped_column(String, unique=True)
        parent_id = mapped_column(ForeignKey("node.id", ondelete="SET NULL", onupdate="CASCADE"))
        children = relationship("Node", backref=backref("parent", remote_side="Node.id"))


ORDINARY = (
    one_to_one,
    association_object,
    overlapping_foreign_keys,
    rows_that_point_to_themselves,
    adjacency_list_of_a_composite_key,
    custom_join_conditions,
    joined_inheritance_with_relationships,
)


@pytest.mark.parametrize("make", ORDINARY, ids=lambda make: make.__name__)
def test_a_sound_mapping_is_not_refused(make: Any, base: Any) -> None:
    make(base)

    base.registry.configure()


@pytest.mark.parametrize("mixin", [ReferenceMixin, GlobalMixin])
def test_rows_that_are_all_together_may_refer_to_each_other(mixin: type, base: Any) -> None:
    plain_models(base, mixin)

    base.registry.configure()
