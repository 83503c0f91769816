"""The 22 queries of TPC-H, as someone who knows SQLAlchemy writes them.

Each is a function of the standard's substitution parameters, whose defaults are those that the
standard validates with. `OTHER_PARAMETERS` is a second set for each, so that a plan which was kept
is met by other values.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Date,
    Interval,
    and_,
    case,
    cast,
    desc,
    exists,
    extract,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.orm import aliased

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
    from collections.abc import Callable, Mapping

    from sqlalchemy import Select

    Query = Callable[..., Select[Any]]

REVENUE: Final = LineItem.extendedprice * (1 - LineItem.discount)


def months_after(day: date, count: int) -> Any:
    """A date and so many months, which PostgreSQL adds."""
    return literal(day) + func.make_interval(0, count, type_=Interval)


def pricing_summary(delta: int = 90) -> Select[Any]:
    return (
        select(
            LineItem.returnflag,
            LineItem.linestatus,
            func.sum(LineItem.quantity).label("sum_qty"),
            func.sum(LineItem.extendedprice).label("sum_base_price"),
            func.sum(REVENUE).label("sum_disc_price"),
            func.sum(REVENUE * (1 + LineItem.tax)).label("sum_charge"),
            func.avg(LineItem.quantity).label("avg_qty"),
            func.avg(LineItem.extendedprice).label("avg_price"),
            func.avg(LineItem.discount).label("avg_disc"),
            func.count().label("count_order"),
        )
        .where(LineItem.shipdate <= literal(date(1998, 12, 1)) - timedelta(days=delta))
        .group_by(LineItem.returnflag, LineItem.linestatus)
        .order_by(LineItem.returnflag, LineItem.linestatus)
    )


def minimum_cost_supplier(
    size: int = 15, kind: str = "BRASS", region: str = "EUROPE"
) -> Select[Any]:
    cheapest = aliased(PartSupp)
    least = (
        select(func.min(cheapest.supplycost))
        .join(cheapest.supplier)
        .join(Supplier.nation)
        .join(Nation.region)
        .where(cheapest.partkey == Part.partkey, Region.name == region)
        .correlate(Part)
        .scalar_subquery()
    )
    return (
        select(
            Supplier.acctbal,
            Supplier.name,
            Nation.name,
            Part.partkey,
            Part.mfgr,
            Supplier.address,
            Supplier.phone,
            Supplier.comment,
        )
        .select_from(Part)
        .join(Part.supplies)
        .join(PartSupp.supplier)
        .join(Supplier.nation)
        .join(Nation.region)
        .where(
            Part.size == size,
            Part.type.endswith(kind),
            Region.name == region,
            PartSupp.supplycost == least,
        )
        .order_by(Supplier.acctbal.desc(), Nation.name, Supplier.name, Part.partkey)
        .limit(100)
    )


def shipping_priority(segment: str = "BUILDING", day: date = date(1995, 3, 15)) -> Select[Any]:
    revenue = func.sum(REVENUE).label("revenue")
    return (
        select(LineItem.orderkey, revenue, Order.orderdate, Order.shippriority)
        .join(LineItem.order)
        .join(Order.customer)
        .where(Customer.mktsegment == segment, Order.orderdate < day, LineItem.shipdate > day)
        .group_by(LineItem.orderkey, Order.orderdate, Order.shippriority)
        .order_by(revenue.desc(), Order.orderdate)
        .limit(10)
    )


def order_priority_checking(day: date = date(1993, 7, 1)) -> Select[Any]:
    return (
        select(Order.orderpriority, func.count().label("order_count"))
        .where(
            Order.orderdate >= day,
            Order.orderdate < months_after(day, 3),
            Order.lines.any(LineItem.commitdate < LineItem.receiptdate),
        )
        .group_by(Order.orderpriority)
        .order_by(Order.orderpriority)
    )


def local_supplier_volume(region: str = "ASIA", day: date = date(1994, 1, 1)) -> Select[Any]:
    revenue = func.sum(REVENUE).label("revenue")
    return (
        select(Nation.name, revenue)
        .select_from(Customer)
        .join(Order, Order.custkey == Customer.custkey)
        .join(LineItem, LineItem.orderkey == Order.orderkey)
        .join(
            Supplier,
            and_(Supplier.suppkey == LineItem.suppkey, Supplier.nationkey == Customer.nationkey),
        )
        .join(Nation, Nation.nationkey == Supplier.nationkey)
        .join(Region, Region.regionkey == Nation.regionkey)
        .where(
            Region.name == region,
            Order.orderdate >= day,
            Order.orderdate < cast(literal(day) + cast("1 year", INTERVAL), Date),
        )
        .group_by(Nation.name)
        .order_by(revenue.desc())
    )


def forecast_revenue_change(
    day: date = date(1994, 1, 1), discount: Decimal = Decimal("0.06"), quantity: int = 24
) -> Select[Any]:
    step = Decimal("0.01")
    return select(func.sum(LineItem.extendedprice * LineItem.discount).label("revenue")).where(
        LineItem.shipdate >= day,
        LineItem.shipdate < months_after(day, 12),
        LineItem.discount.between(literal(discount) - step, literal(discount) + step),
        LineItem.quantity < quantity,
    )


def volume_shipping(one: str = "FRANCE", other: str = "GERMANY") -> Select[Any]:
    of_supplier, of_customer = aliased(Nation, name="n1"), aliased(Nation, name="n2")
    shipping = (
        select(
            of_supplier.name.label("supp_nation"),
            of_customer.name.label("cust_nation"),
            extract("year", LineItem.shipdate).label("l_year"),
            REVENUE.label("volume"),
        )
        .select_from(LineItem)
        .join(LineItem.supplier)
        .join(LineItem.order)
        .join(Order.customer)
        .join(of_supplier, of_supplier.nationkey == Supplier.nationkey)
        .join(of_customer, of_customer.nationkey == Customer.nationkey)
        .where(
            or_(
                and_(of_supplier.name == one, of_customer.name == other),
                and_(of_supplier.name == other, of_customer.name == one),
            ),
            LineItem.shipdate.between(date(1995, 1, 1), date(1996, 12, 31)),
        )
        .subquery("shipping")
    )
    key = (shipping.c.supp_nation, shipping.c.cust_nation, shipping.c.l_year)
    revenue = func.sum(shipping.c.volume).label("revenue")
    return select(*key, revenue).group_by(*key).order_by(*key)


def national_market_share(
    nation: str = "BRAZIL", region: str = "AMERICA", kind: str = "ECONOMY ANODIZED STEEL"
) -> Select[Any]:
    of_customer, of_supplier = aliased(Nation), aliased(Nation)
    all_nations = (
        select(
            extract("year", Order.orderdate).label("o_year"),
            REVENUE.label("volume"),
            of_supplier.name.label("nation"),
        )
        .select_from(LineItem)
        .join(LineItem.part)
        .join(LineItem.supplier)
        .join(LineItem.order)
        .join(Order.customer)
        .join(of_customer, Customer.nationkey == of_customer.nationkey)
        .join(Region, of_customer.regionkey == Region.regionkey)
        .join(of_supplier, Supplier.nationkey == of_supplier.nationkey)
        .where(
            Region.name == region,
            Order.orderdate.between(date(1995, 1, 1), date(1996, 12, 31)),
            Part.type == kind,
        )
        .subquery("all_nations")
    )
    of_nation = case((all_nations.c.nation == nation, all_nations.c.volume), else_=0)
    share = func.sum(of_nation) / func.sum(all_nations.c.volume)
    return (
        select(all_nations.c.o_year, share.label("mkt_share"))
        .group_by(all_nations.c.o_year)
        .order_by(all_nations.c.o_year)
    )


def product_type_profit(color: str = "green") -> Select[Any]:
    profit = (
        select(
            Nation.name.label("nation"),
            extract("year", Order.orderdate).label("o_year"),
            (REVENUE - PartSupp.supplycost * LineItem.quantity).label("amount"),
        )
        .select_from(LineItem)
        .join(LineItem.part)
        .join(LineItem.supplier)
        .join(LineItem.order)
        .join(
            PartSupp,
            and_(PartSupp.suppkey == LineItem.suppkey, PartSupp.partkey == LineItem.partkey),
        )
        .join(Supplier.nation)
        .where(Part.name.contains(color))
        .subquery("profit")
    )
    return (
        select(profit.c.nation, profit.c.o_year, func.sum(profit.c.amount).label("sum_profit"))
        .group_by(profit.c.nation, profit.c.o_year)
        .order_by(profit.c.nation, profit.c.o_year.desc())
    )


def returned_item_reporting(day: date = date(1993, 10, 1)) -> Select[Any]:
    return (
        select(
            Customer.custkey,
            Customer.name,
            func.sum(REVENUE).label("revenue"),
            Customer.acctbal,
            Nation.name,
            Customer.address,
            Customer.phone,
            Customer.comment,
        )
        .join(Customer.orders)
        .join(Order.lines)
        .join(Customer.nation)
        .where(
            Order.orderdate >= day,
            Order.orderdate < months_after(day, 3),
            LineItem.returnflag == "R",
        )
        .group_by(
            Customer.custkey,
            Customer.name,
            Customer.acctbal,
            Customer.phone,
            Nation.name,
            Customer.address,
            Customer.comment,
        )
        .order_by(desc("revenue"))
        .limit(20)
    )


def important_stock(nation: str = "GERMANY", fraction: Decimal = Decimal("0.0001")) -> Select[Any]:
    value = func.sum(PartSupp.supplycost * PartSupp.availqty)
    whole = (
        select(value * fraction)
        .join(PartSupp.supplier)
        .join(Supplier.nation)
        .where(Nation.name == nation)
        .scalar_subquery()
    )
    return (
        select(PartSupp.partkey, value.label("value"))
        .join(PartSupp.supplier)
        .join(Supplier.nation)
        .where(Nation.name == nation)
        .group_by(PartSupp.partkey)
        .having(value > whole)
        .order_by(desc("value"))
    )


def shipping_modes(
    modes: tuple[str, ...] = ("MAIL", "SHIP"), day: date = date(1994, 1, 1)
) -> Select[Any]:
    is_high = Order.orderpriority.in_(["1-URGENT", "2-HIGH"])
    return (
        select(
            LineItem.shipmode,
            func.sum(case((is_high, 1), else_=0)).label("high_line_count"),
            func.sum(case((not_(is_high), 1), else_=0)).label("low_line_count"),
        )
        .join(LineItem.order)
        .where(
            LineItem.shipmode.in_(modes),
            LineItem.commitdate < LineItem.receiptdate,
            LineItem.shipdate < LineItem.commitdate,
            LineItem.receiptdate >= day,
            LineItem.receiptdate < months_after(day, 12),
        )
        .group_by(LineItem.shipmode)
        .order_by(LineItem.shipmode)
    )


def customer_distribution(one: str = "special", other: str = "requests") -> Select[Any]:
    counted = (
        select(Customer.custkey, func.count(Order.orderkey).label("c_count"))
        .outerjoin(
            Order,
            and_(Customer.custkey == Order.custkey, Order.comment.not_like(f"%{one}%{other}%")),
        )
        .group_by(Customer.custkey)
        .subquery("c_orders")
    )
    how_many = func.count().label("custdist")
    return (
        select(counted.c.c_count, how_many)
        .group_by(counted.c.c_count)
        .order_by(how_many.desc(), counted.c.c_count.desc())
    )


def promotion_effect(day: date = date(1995, 9, 1)) -> Select[Any]:
    promoted = case((Part.type.startswith("PROMO"), REVENUE), else_=0)
    share = literal(Decimal("100.00")) * func.sum(promoted) / func.sum(REVENUE)
    return (
        select(share.label("promo_revenue"))
        .select_from(LineItem)
        .join(Part, LineItem.partkey == Part.partkey)
        .where(LineItem.shipdate >= day, LineItem.shipdate < months_after(day, 1))
    )


def top_supplier(day: date = date(1996, 1, 1)) -> Select[Any]:
    revenue = (
        select(LineItem.suppkey.label("supplier_no"), func.sum(REVENUE).label("total_revenue"))
        .where(LineItem.shipdate >= day, LineItem.shipdate < months_after(day, 3))
        .group_by(LineItem.suppkey)
        .cte("revenue")
    )
    most = select(func.max(revenue.c.total_revenue)).scalar_subquery()
    return (
        select(
            Supplier.suppkey,
            Supplier.name,
            Supplier.address,
            Supplier.phone,
            revenue.c.total_revenue,
        )
        .join(revenue, Supplier.suppkey == revenue.c.supplier_no)
        .where(revenue.c.total_revenue == most)
        .order_by(Supplier.suppkey)
    )


def parts_and_suppliers(
    brand: str = "Brand#45",
    kind: str = "MEDIUM POLISHED",
    sizes: tuple[int, ...] = (49, 14, 23, 45, 19, 3, 36, 9),
) -> Select[Any]:
    complained_of = select(Supplier.suppkey).where(Supplier.comment.like("%Customer%Complaints%"))
    count = func.count(PartSupp.suppkey.distinct()).label("supplier_cnt")
    return (
        select(Part.brand, Part.type, Part.size, count)
        .join(Part.supplies)
        .where(
            Part.brand != brand,
            not_(Part.type.startswith(kind)),
            Part.size.in_(sizes),
            PartSupp.suppkey.not_in(complained_of),
        )
        .group_by(Part.brand, Part.type, Part.size)
        .order_by(count.desc(), Part.brand, Part.type, Part.size)
    )


def small_quantity_orders(brand: str = "Brand#23", container: str = "MED BOX") -> Select[Any]:
    every = aliased(LineItem)
    little = (
        select(Decimal("0.2") * func.avg(every.quantity))
        .where(every.partkey == Part.partkey)
        .scalar_subquery()
    )
    return (
        select((func.sum(LineItem.extendedprice) / literal(Decimal("7.0"))).label("avg_yearly"))
        .join(LineItem.part)
        .where(Part.brand == brand, Part.container == container, LineItem.quantity < little)
    )


def large_volume_customers(quantity: int = 300) -> Select[Any]:
    large = (
        select(LineItem.orderkey)
        .group_by(LineItem.orderkey)
        .having(func.sum(LineItem.quantity) > quantity)
    )
    return (
        select(
            Customer.name,
            Customer.custkey,
            Order.orderkey,
            Order.orderdate,
            Order.totalprice,
            func.sum(LineItem.quantity),
        )
        .join(Order.customer)
        .join(Order.lines)
        .where(Order.orderkey.in_(large))
        .group_by(
            Customer.name, Customer.custkey, Order.orderkey, Order.orderdate, Order.totalprice
        )
        .order_by(Order.totalprice.desc(), Order.orderdate)
        .limit(100)
    )


def discounted_revenue(
    brands: tuple[str, ...] = ("Brand#12", "Brand#23", "Brand#34"),
    quantities: tuple[int, ...] = (1, 10, 20),
) -> Select[Any]:
    containers = (
        ("SM CASE", "SM BOX", "SM PACK", "SM PKG"),
        ("MED BAG", "MED BOX", "MED PKG", "MED PACK"),
        ("LG CASE", "LG BOX", "LG PACK", "LG PKG"),
    )
    kinds = [
        and_(
            Part.partkey == LineItem.partkey,
            Part.brand == brand,
            Part.container.in_(containers_of_it),
            LineItem.quantity >= quantity,
            LineItem.quantity <= literal(quantity) + 10,
            Part.size.between(1, largest),
            LineItem.shipmode.in_(["AIR", "AIR REG"]),
            LineItem.shipinstruct == "DELIVER IN PERSON",
        )
        for brand, containers_of_it, quantity, largest in zip(
            brands, containers, quantities, (5, 10, 15), strict=True
        )
    ]
    return select(func.sum(REVENUE).label("revenue")).select_from(LineItem, Part).where(or_(*kinds))


def potential_promotion(
    color: str = "forest", day: date = date(1994, 1, 1), nation: str = "CANADA"
) -> Select[Any]:
    parts = select(Part.partkey).where(Part.name.startswith(color))
    half_of_the_shipped = (
        select(Decimal("0.5") * func.sum(LineItem.quantity))
        .where(
            LineItem.partkey == PartSupp.partkey,
            LineItem.suppkey == PartSupp.suppkey,
            LineItem.shipdate >= day,
            LineItem.shipdate < months_after(day, 12),
        )
        .scalar_subquery()
    )
    keys = select(PartSupp.suppkey).where(
        PartSupp.partkey.in_(parts), PartSupp.availqty > half_of_the_shipped
    )
    return (
        select(Supplier.name, Supplier.address)
        .join(Supplier.nation)
        .where(Supplier.suppkey.in_(keys), Nation.name == nation)
        .order_by(Supplier.name)
    )


def suppliers_who_kept_orders_waiting(nation: str = "SAUDI ARABIA") -> Select[Any]:
    late, other, other_late = aliased(LineItem), aliased(LineItem), aliased(LineItem)
    count = func.count().label("numwait")
    another = and_(other.orderkey == late.orderkey, other.suppkey != late.suppkey)
    another_late = and_(
        other_late.orderkey == late.orderkey,
        other_late.suppkey != late.suppkey,
        other_late.receiptdate > other_late.commitdate,
    )
    return (
        select(Supplier.name, count)
        .join(late, late.suppkey == Supplier.suppkey)
        .join(late.order)
        .join(Supplier.nation)
        .where(
            Order.orderstatus == "F",
            late.receiptdate > late.commitdate,
            exists().where(another),
            ~exists().where(another_late),
            Nation.name == nation,
        )
        .group_by(Supplier.name)
        .order_by(count.desc(), Supplier.name)
        .limit(100)
    )


def global_sales_opportunity(
    codes: tuple[str, ...] = ("13", "31", "23", "29", "30", "18", "17"),
) -> Select[Any]:
    average = (
        select(func.avg(Customer.acctbal))
        .where(
            Customer.acctbal > Decimal("0.00"),
            func.substring(Customer.phone, 1, 2).in_(codes),
        )
        .scalar_subquery()
    )
    code = func.substring(Customer.phone, 1, 2).label("cntrycode")
    found = (
        select(code, Customer.acctbal)
        .where(code.in_(codes), Customer.acctbal > average, ~Customer.orders.any())
        .subquery("custsale")
    )
    return (
        select(
            found.c.cntrycode,
            func.count().label("numcust"),
            func.sum(found.c.acctbal).label("totacctbal"),
        )
        .group_by(found.c.cntrycode)
        .order_by(found.c.cntrycode)
    )


QUERIES: Final[Mapping[str, Query]] = {
    f"Q{number}": query
    for number, query in enumerate(
        (
            pricing_summary,
            minimum_cost_supplier,
            shipping_priority,
            order_priority_checking,
            local_supplier_volume,
            forecast_revenue_change,
            volume_shipping,
            national_market_share,
            product_type_profit,
            returned_item_reporting,
            important_stock,
            shipping_modes,
            customer_distribution,
            promotion_effect,
            top_supplier,
            parts_and_suppliers,
            small_quantity_orders,
            large_volume_customers,
            discounted_revenue,
            potential_promotion,
            suppliers_who_kept_orders_waiting,
            global_sales_opportunity,
        ),
        start=1,
    )
}

OTHER_PARAMETERS: Final[Mapping[str, tuple[Any, ...]]] = {
    "Q1": (63,),
    "Q2": (30, "TIN", "ASIA"),
    "Q3": ("MACHINERY", date(1995, 3, 8)),
    "Q4": (date(1996, 10, 1),),
    "Q5": ("EUROPE", date(1995, 1, 1)),
    "Q6": (date(1995, 1, 1), Decimal("0.05"), 25),
    "Q7": ("CHINA", "JAPAN"),
    "Q8": ("INDIA", "ASIA", "SMALL PLATED COPPER"),
    "Q9": ("rose",),
    "Q10": (date(1994, 2, 1),),
    "Q11": ("INDIA", Decimal("0.002")),
    "Q12": (("RAIL", "FOB"), date(1996, 1, 1)),
    "Q13": ("express", "deposits"),
    "Q14": (date(1993, 12, 1),),
    "Q15": (date(1993, 5, 1),),
    "Q16": ("Brand#11", "STANDARD BRUSHED", (1, 2, 3, 4, 5, 6, 7, 8)),
    "Q17": ("Brand#13", "JUMBO PKG"),
    "Q18": (240,),
    "Q19": (("Brand#31", "Brand#55", "Brand#14"), (5, 15, 25)),
    "Q20": ("khaki", date(1996, 1, 1), "FRANCE"),
    "Q21": ("GERMANY",),
    "Q22": (("10", "11", "12", "15", "20", "26", "33"),),
}


def statements() -> list[tuple[str, Select[Any]]]:
    """Name and statement of each query, with the standard's validation parameters."""
    return [(name, query()) for name, query in QUERIES.items()]
