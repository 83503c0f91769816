"""Declarative: annotated columns, mixins, abstract bases and what they hand down."""

from __future__ import annotations

import enum
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest
from sqlalchemy import BigInteger, ForeignKey, Numeric, String, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    declared_attr,
    mapped_column,
    relationship,
)

from sqlalchemy_shards import ShardedSession

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

Number = Annotated[int, mapped_column(BigInteger, primary_key=True, autoincrement=False)]
ShortText = Annotated[str, 40]
Money = Annotated[Decimal, mapped_column(Numeric(10, 2))]
TENANTS = range(1, 11)


class Plan(enum.Enum):
    FREE = "free"
    PAID = "paid"


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        type_annotation_map = {ShortText: String(40)}

    class Named:
        """A mixin that knows nothing of shards."""

        @declared_attr.directive
        def __tablename__(cls) -> str:  # noqa: N805
            return cls.__name__.lower()

        name: Mapped[ShortText]

    class OfTenant(say.sharded, Base):  # type: ignore[name-defined]
        """An abstract base that hands the shard key down."""

        __abstract__ = True
        __shard_key__ = "tenant_id"

        @declared_attr
        def tenant_id(cls) -> Mapped[int]:  # noqa: N805
            return mapped_column(ForeignKey("tenant.id", ondelete="CASCADE"), primary_key=True)

        id: Mapped[Number]

        @declared_attr
        def tenant(cls) -> Mapped[Any]:  # noqa: N805
            return relationship("Tenant", viewonly=True)

    class Tenant(Named, say.sharded, Base):  # type: ignore[misc, name-defined]
        __shard_key__ = "id"
        id: Mapped[Number]
        plan: Mapped[Plan]
        parent_name: Mapped[Optional[str]]  # noqa: UP045
        invoices: Mapped[list[Any]] = relationship(
            "Invoice", cascade="all, delete-orphan", order_by="Invoice.id"
        )

    class Invoice(Named, OfTenant):
        total: Mapped[Money]

    class Item(Named, OfTenant):
        invoice_id: Mapped[int | None] = mapped_column(BigInteger)

    return SimpleNamespace(metadata=Base.metadata, Tenant=Tenant, Invoice=Invoice, Item=Item)


def add_tenants(world: World) -> None:
    m = world.models
    with world.session() as session, session.begin():
        for number in TENANTS:
            tenant = m.Tenant(id=number, name=f"tenant {number}", plan=Plan.FREE)
            tenant.invoices = [
                m.Invoice(id=each, name=f"i{each}", total=Decimal(f"{number}.50"))
                for each in (1, 2)
            ]
            session.add(tenant)
            session.flush()
            session.add(m.Item(tenant_id=number, id=7, name="item", invoice_id=None))


def test_annotated_columns_come_back_as_they_were_written(world: World) -> None:
    m = world.models
    add_tenants(world)
    with world.session() as session:
        found = session.execute(
            select(m.Tenant.id, m.Tenant.name, m.Tenant.plan, m.Invoice.total)
            .join(m.Tenant.invoices)
            .where(m.Invoice.id == 2)
            .order_by(m.Tenant.id)
        ).all()

    assert found == [(n, f"tenant {n}", Plan.FREE, Decimal(f"{n}.50")) for n in TENANTS]


def test_what_a_mixin_and_an_abstract_base_give_each_class(world: World) -> None:
    m = world.models
    add_tenants(world)
    with world.session() as session:
        items = session.scalars(select(m.Item).order_by(m.Item.tenant_id)).all()
        found = [(item.name, item.tenant.name) for item in items]
        where = [
            (session.shard_of(item), session.shard_of(item.tenant))
            for item in items
            if isinstance(session, ShardedSession)
        ]

    assert found == [("item", f"tenant {number}") for number in TENANTS]
    assert all(own == of_tenant for own, of_tenant in where)


def test_changes_are_flushed_expired_and_read_again(world: World) -> None:
    m = world.models
    add_tenants(world)
    with world.session() as session:
        tenants = session.scalars(select(m.Tenant).order_by(m.Tenant.id)).all()
        for tenant in tenants:
            tenant.plan = Plan.PAID
            tenant.invoices[0].total += 1
        session.flush()
        session.expire_all()
        found = [(each.plan, [i.total for i in each.invoices]) for each in tenants]
        session.commit()

    assert found == [(Plan.PAID, [Decimal(f"{n + 1}.50"), Decimal(f"{n}.50")]) for n in TENANTS]


def test_deletes_cascade_in_the_session_and_in_the_database(world: World) -> None:
    m = world.models
    add_tenants(world)
    with world.session() as session:
        for number in (2, 3, 5, 7):
            session.delete(session.get(m.Tenant, number))
        first = session.get(m.Tenant, 1)
        first.invoices.pop()
        session.commit()
        counts = [
            session.scalar(select(func.count()).select_from(each))
            for each in (m.Tenant, m.Invoice, m.Item)
        ]

    assert counts == [6, 11, 6]


def test_core_statements_on_the_classes(world: World) -> None:
    m = world.models
    add_tenants(world)
    with world.session() as session:
        updated = session.execute(
            update(m.Invoice).where(m.Invoice.tenant_id.in_([1, 4, 6])).values(total=0)
        ).rowcount
        deleted = session.execute(
            delete(m.Item).where(m.Item.tenant_id == 9).returning(m.Item.id, m.Item.name)
        ).all()
        session.commit()

    assert updated == 6
    assert deleted == [(7, "item")]
    assert len(world.rows("SELECT * FROM invoice WHERE total = 0")) == 6


def test_a_foreign_key_holds_between_classes_of_one_base(world: World) -> None:
    m = world.models
    with world.session() as session:
        session.add(m.Item(tenant_id=404, id=1, name="nobody's"))

        with pytest.raises(IntegrityError):
            session.flush()
