"""What each query of TPC-H needs at most: of each table the rows and columns that can matter.

Written by hand from the queries, with the standard's validation parameters: a table's rows are
those that meet what the query asks of that table by itself, in any of its places, and its columns
are those that it names. No query may bring more than these together.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, or_, select, union_all

from tests.tpch.models import (
    Customer,
    LineItem,
    Nation,
    Order,
    Part,
    PartSupp,
    Region,
    Supplier,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Select

REVENUE: Final = (LineItem.extendedprice, LineItem.discount)
NATION: Final = select(Nation.nationkey, Nation.name)
REGION: Final = select(Region.regionkey, Region.name)
SUPPLIER: Final = select(Supplier.suppkey, Supplier.nationkey)
ORDER: Final = select(Order.orderkey, Order.custkey)
CUSTOMER: Final = select(Customer.custkey, Customer.nationkey)
PARTSUPP: Final = select(PartSupp.partkey, PartSupp.suppkey)
DELIVERED: Final = ("AIR", "AIR REG")

INPUTS: Final[Mapping[str, Sequence[Select[Any]]]] = {
    "Q1": [
        select(*REVENUE, LineItem.quantity, LineItem.tax, LineItem.shipdate)
        .add_columns(LineItem.returnflag, LineItem.linestatus)
        .where(LineItem.shipdate <= date(1998, 9, 2))
    ],
    "Q2": [
        select(Part.partkey, Part.mfgr, Part.size, Part.type).where(
            Part.size == 15, Part.type.endswith("BRASS")
        ),
        PARTSUPP.add_columns(PartSupp.supplycost),
        select(Supplier),
        NATION.add_columns(Nation.regionkey),
        REGION.where(Region.name == "EUROPE"),
    ],
    "Q3": [
        select(Customer.custkey, Customer.mktsegment).where(Customer.mktsegment == "BUILDING"),
        ORDER.add_columns(Order.orderdate, Order.shippriority).where(
            Order.orderdate < date(1995, 3, 15)
        ),
        select(LineItem.orderkey, *REVENUE, LineItem.shipdate).where(
            LineItem.shipdate > date(1995, 3, 15)
        ),
    ],
    "Q4": [
        select(Order.orderkey, Order.orderpriority, Order.orderdate).where(
            Order.orderdate >= date(1993, 7, 1), Order.orderdate < date(1993, 10, 1)
        ),
        select(LineItem.orderkey, LineItem.commitdate, LineItem.receiptdate).where(
            LineItem.commitdate < LineItem.receiptdate
        ),
    ],
    "Q5": [
        CUSTOMER,
        ORDER.add_columns(Order.orderdate).where(
            Order.orderdate >= date(1994, 1, 1), Order.orderdate < date(1995, 1, 1)
        ),
        select(LineItem.orderkey, LineItem.suppkey, *REVENUE),
        SUPPLIER,
        NATION.add_columns(Nation.regionkey),
        REGION.where(Region.name == "ASIA"),
    ],
    "Q6": [
        select(*REVENUE, LineItem.shipdate, LineItem.quantity).where(
            LineItem.shipdate >= date(1994, 1, 1),
            LineItem.shipdate < date(1995, 1, 1),
            LineItem.discount.between(0.05, 0.07),
            LineItem.quantity < 24,
        )
    ],
    "Q7": [
        SUPPLIER,
        select(LineItem.orderkey, LineItem.suppkey, LineItem.shipdate, *REVENUE).where(
            LineItem.shipdate.between(date(1995, 1, 1), date(1996, 12, 31))
        ),
        ORDER,
        CUSTOMER,
        NATION,
    ],
    "Q8": [
        select(Part.partkey, Part.type).where(Part.type == "ECONOMY ANODIZED STEEL"),
        SUPPLIER,
        select(LineItem.orderkey, LineItem.partkey, LineItem.suppkey, *REVENUE),
        ORDER.add_columns(Order.orderdate).where(
            Order.orderdate.between(date(1995, 1, 1), date(1996, 12, 31))
        ),
        CUSTOMER,
        NATION.add_columns(Nation.regionkey),
        REGION.where(Region.name == "AMERICA"),
    ],
    "Q9": [
        select(Part.partkey, Part.name).where(Part.name.contains("green")),
        SUPPLIER,
        select(LineItem.orderkey, LineItem.partkey, LineItem.suppkey, *REVENUE).add_columns(
            LineItem.quantity
        ),
        PARTSUPP.add_columns(PartSupp.supplycost),
        select(Order.orderkey, Order.orderdate),
        NATION,
    ],
    "Q10": [
        select(Customer),
        ORDER.add_columns(Order.orderdate).where(
            Order.orderdate >= date(1993, 10, 1), Order.orderdate < date(1994, 1, 1)
        ),
        select(LineItem.orderkey, *REVENUE, LineItem.returnflag).where(LineItem.returnflag == "R"),
        NATION,
    ],
    "Q11": [
        PARTSUPP.add_columns(PartSupp.supplycost, PartSupp.availqty),
        SUPPLIER,
        NATION.where(Nation.name == "GERMANY"),
    ],
    "Q12": [
        select(Order.orderkey, Order.orderpriority),
        select(LineItem.orderkey, LineItem.shipmode, LineItem.commitdate)
        .add_columns(LineItem.receiptdate, LineItem.shipdate)
        .where(
            LineItem.shipmode.in_(["MAIL", "SHIP"]),
            LineItem.commitdate < LineItem.receiptdate,
            LineItem.shipdate < LineItem.commitdate,
            LineItem.receiptdate >= date(1994, 1, 1),
            LineItem.receiptdate < date(1995, 1, 1),
        ),
    ],
    "Q13": [
        select(Customer.custkey),
        ORDER.add_columns(Order.comment).where(Order.comment.not_like("%special%requests%")),
    ],
    "Q14": [
        select(LineItem.partkey, *REVENUE, LineItem.shipdate).where(
            LineItem.shipdate >= date(1995, 9, 1), LineItem.shipdate < date(1995, 10, 1)
        ),
        select(Part.partkey, Part.type),
    ],
    "Q15": [
        select(LineItem.suppkey, *REVENUE, LineItem.shipdate).where(
            LineItem.shipdate >= date(1996, 1, 1), LineItem.shipdate < date(1996, 4, 1)
        ),
        select(Supplier.suppkey, Supplier.name, Supplier.address, Supplier.phone),
    ],
    "Q16": [
        PARTSUPP,
        select(Part.partkey, Part.brand, Part.type, Part.size).where(
            Part.brand != "Brand#45",
            Part.type.not_like("MEDIUM POLISHED%"),
            Part.size.in_([49, 14, 23, 45, 19, 3, 36, 9]),
        ),
        select(Supplier.suppkey, Supplier.comment).where(
            Supplier.comment.like("%Customer%Complaints%")
        ),
    ],
    "Q17": [
        select(LineItem.partkey, LineItem.extendedprice, LineItem.quantity),
        select(Part.partkey, Part.brand, Part.container).where(
            Part.brand == "Brand#23", Part.container == "MED BOX"
        ),
    ],
    "Q18": [
        select(LineItem.orderkey, LineItem.quantity),
        select(Customer.custkey, Customer.name),
        ORDER.add_columns(Order.orderdate, Order.totalprice),
    ],
    "Q19": [
        select(LineItem.partkey, LineItem.quantity, *REVENUE)
        .add_columns(LineItem.shipmode, LineItem.shipinstruct)
        .where(LineItem.shipmode.in_(DELIVERED), LineItem.shipinstruct == "DELIVER IN PERSON"),
        select(Part.partkey, Part.brand, Part.container, Part.size).where(
            or_(Part.brand == "Brand#12", Part.brand == "Brand#23", Part.brand == "Brand#34")
        ),
    ],
    "Q20": [
        SUPPLIER.add_columns(Supplier.name, Supplier.address),
        NATION.where(Nation.name == "CANADA"),
        PARTSUPP.add_columns(PartSupp.availqty),
        select(Part.partkey, Part.name).where(Part.name.startswith("forest")),
        select(LineItem.partkey, LineItem.suppkey, LineItem.quantity, LineItem.shipdate).where(
            LineItem.shipdate >= date(1994, 1, 1), LineItem.shipdate < date(1995, 1, 1)
        ),
    ],
    "Q21": [
        SUPPLIER.add_columns(Supplier.name),
        select(LineItem.orderkey, LineItem.suppkey, LineItem.receiptdate, LineItem.commitdate),
        select(Order.orderkey, Order.orderstatus).where(Order.orderstatus == "F"),
        NATION.where(Nation.name == "SAUDI ARABIA"),
    ],
    "Q22": [
        select(Customer.custkey, Customer.phone, Customer.acctbal).where(
            func.substring(Customer.phone, 1, 2).in_(["13", "31", "23", "29", "30", "18", "17"])
        ),
        select(Order.custkey),
        select(Customer.acctbal).limit(4),  # what each shard makes an average of
    ],
}


class Size(NamedTuple):
    """Rows, and bytes of them as COPY writes them."""

    rows: int
    bytes: int


def size_of(connection: Connection, inputs: Sequence[Select[Any]]) -> Size:
    """How much some inputs are together, in one database."""
    sizes = []
    for each in inputs:
        rows = each.subquery()
        # A tab or the line's end stands behind each value.
        lengths = [func.octet_length(func.format("%s", column)) + 1 for column in rows.c]
        whole = func.sum(sum(lengths[1:], lengths[0])).label("bytes")
        sizes.append(select(func.count().label("rows"), whole).select_from(rows))
    found = union_all(*sizes).subquery()
    rows, size = connection.execute(select(func.sum(found.c.rows), func.sum(found.c.bytes))).one()
    return Size(int(rows), int(size))
