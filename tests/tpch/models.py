"""The tables of TPC-H, as an application would map and spread them.

Orders and their lines lie by order key, customers by theirs, parts and who supplies them by part
key. All three are hashed in one keyspace: only the columns tell whether two tables are co-located,
so that a line that joins its part by `partkey` looks almost like one that joins its order.
"""

from __future__ import annotations

from datetime import date  # noqa: TC003 (SQLAlchemy reads the annotations)
from decimal import Decimal
from typing import Annotated

from sqlalchemy import CHAR, ForeignKey, Numeric, String
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from sqlalchemy_shards import ReferenceMixin, ShardKeyMixin

Money = Annotated[Decimal, mapped_column(Numeric(15, 2))]


class Base(DeclarativeBase):
    pass


class Region(ReferenceMixin, Base):
    __tablename__ = "region"
    regionkey: Mapped[int] = mapped_column("r_regionkey", primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column("r_name", CHAR(25))
    comment: Mapped[str] = mapped_column("r_comment", String(152))


class Nation(ReferenceMixin, Base):
    __tablename__ = "nation"
    nationkey: Mapped[int] = mapped_column("n_nationkey", primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column("n_name", CHAR(25))
    regionkey: Mapped[int] = mapped_column("n_regionkey", ForeignKey(Region.regionkey))
    comment: Mapped[str] = mapped_column("n_comment", String(152))
    region: Mapped[Region] = relationship()


class Supplier(ReferenceMixin, Base):
    __tablename__ = "supplier"
    suppkey: Mapped[int] = mapped_column("s_suppkey", primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column("s_name", CHAR(25))
    address: Mapped[str] = mapped_column("s_address", String(40))
    nationkey: Mapped[int] = mapped_column("s_nationkey", ForeignKey(Nation.nationkey))
    phone: Mapped[str] = mapped_column("s_phone", CHAR(15))
    acctbal: Mapped[Money] = mapped_column("s_acctbal")
    comment: Mapped[str] = mapped_column("s_comment", String(101))
    nation: Mapped[Nation] = relationship()


class Part(ShardKeyMixin, Base):
    __tablename__ = "part"
    __shard_key__ = "partkey"
    partkey: Mapped[int] = mapped_column("p_partkey", primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column("p_name", String(55))
    mfgr: Mapped[str] = mapped_column("p_mfgr", CHAR(25))
    brand: Mapped[str] = mapped_column("p_brand", CHAR(10))
    type: Mapped[str] = mapped_column("p_type", String(25))
    size: Mapped[int] = mapped_column("p_size")
    container: Mapped[str] = mapped_column("p_container", CHAR(10))
    retailprice: Mapped[Money] = mapped_column("p_retailprice")
    comment: Mapped[str] = mapped_column("p_comment", String(23))
    supplies: Mapped[list[PartSupp]] = relationship(back_populates="part")


class PartSupp(ShardKeyMixin, Base):
    __tablename__ = "partsupp"
    __shard_key__ = "partkey"
    partkey: Mapped[int] = mapped_column("ps_partkey", ForeignKey(Part.partkey), primary_key=True)
    suppkey: Mapped[int] = mapped_column(
        "ps_suppkey", ForeignKey(Supplier.suppkey), primary_key=True
    )
    availqty: Mapped[int] = mapped_column("ps_availqty")
    supplycost: Mapped[Money] = mapped_column("ps_supplycost")
    comment: Mapped[str] = mapped_column("ps_comment", String(199))
    part: Mapped[Part] = relationship(back_populates="supplies")
    supplier: Mapped[Supplier] = relationship()


class Customer(ShardKeyMixin, Base):
    __tablename__ = "customer"
    __shard_key__ = "custkey"
    custkey: Mapped[int] = mapped_column("c_custkey", primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column("c_name", String(25))
    address: Mapped[str] = mapped_column("c_address", String(40))
    nationkey: Mapped[int] = mapped_column("c_nationkey", ForeignKey(Nation.nationkey))
    phone: Mapped[str] = mapped_column("c_phone", CHAR(15))
    acctbal: Mapped[Money] = mapped_column("c_acctbal")
    mktsegment: Mapped[str] = mapped_column("c_mktsegment", CHAR(10))
    comment: Mapped[str] = mapped_column("c_comment", String(117))
    nation: Mapped[Nation] = relationship()
    orders: Mapped[list[Order]] = relationship(
        primaryjoin=lambda: Customer.custkey == foreign(Order.custkey),
        viewonly=True,
    )


class Order(ShardKeyMixin, Base):
    __tablename__ = "orders"
    __shard_key__ = "orderkey"
    orderkey: Mapped[int] = mapped_column("o_orderkey", primary_key=True, autoincrement=False)
    custkey: Mapped[int] = mapped_column("o_custkey")
    orderstatus: Mapped[str] = mapped_column("o_orderstatus", CHAR(1))
    totalprice: Mapped[Money] = mapped_column("o_totalprice")
    orderdate: Mapped[date] = mapped_column("o_orderdate")
    orderpriority: Mapped[str] = mapped_column("o_orderpriority", CHAR(15))
    clerk: Mapped[str] = mapped_column("o_clerk", CHAR(15))
    shippriority: Mapped[int] = mapped_column("o_shippriority")
    comment: Mapped[str] = mapped_column("o_comment", String(79))
    customer: Mapped[Customer] = relationship(
        primaryjoin=lambda: foreign(Order.custkey) == Customer.custkey,
    )
    lines: Mapped[list[LineItem]] = relationship(back_populates="order")


class LineItem(ShardKeyMixin, Base):
    __tablename__ = "lineitem"
    __shard_key__ = "orderkey"
    orderkey: Mapped[int] = mapped_column(
        "l_orderkey", ForeignKey(Order.orderkey), primary_key=True
    )
    partkey: Mapped[int] = mapped_column("l_partkey")
    suppkey: Mapped[int] = mapped_column("l_suppkey", ForeignKey(Supplier.suppkey))
    linenumber: Mapped[int] = mapped_column("l_linenumber", primary_key=True, autoincrement=False)
    quantity: Mapped[Money] = mapped_column("l_quantity")
    extendedprice: Mapped[Money] = mapped_column("l_extendedprice")
    discount: Mapped[Money] = mapped_column("l_discount")
    tax: Mapped[Money] = mapped_column("l_tax")
    returnflag: Mapped[str] = mapped_column("l_returnflag", CHAR(1))
    linestatus: Mapped[str] = mapped_column("l_linestatus", CHAR(1))
    shipdate: Mapped[date] = mapped_column("l_shipdate")
    commitdate: Mapped[date] = mapped_column("l_commitdate")
    receiptdate: Mapped[date] = mapped_column("l_receiptdate")
    shipinstruct: Mapped[str] = mapped_column("l_shipinstruct", CHAR(25))
    shipmode: Mapped[str] = mapped_column("l_shipmode", CHAR(10))
    comment: Mapped[str] = mapped_column("l_comment", String(44))
    order: Mapped[Order] = relationship(back_populates="lines")
    part: Mapped[Part] = relationship(
        primaryjoin=lambda: foreign(LineItem.partkey) == Part.partkey,
    )
    supplier: Mapped[Supplier] = relationship()
