"""Keys of several shards are asked for first; then every shard ships what they choose, at once.

The answer stays the same, whatever is written between the two rounds. How many rows came is told by
the limit: so many are allowed, one less is not.
"""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    CHAR,
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.exc import OperationalError

from sqlalchemy_shards import reference_table, shard_table
from sqlalchemy_shards.cluster.explain.observing import KEYS, SHIP, SHIP_AGAIN
from sqlalchemy_shards.plan import Gather, KeyChoice
from tests.databases import own_urls
from tests.shards.shipped import (
    analyze,
    answers,
    check_ships,
    count,
    create_collations,
    filled_cluster,
    filled_engine,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

METADATA = MetaData()
SHARDS = ("s0", "s1", "s2")
CUSTOMERS_COUNT, SALES_COUNT = 400, 9_000


def alike() -> list[Column[Any]]:
    """Columns by which customers and sales are joined, of several types."""
    return [
        Column("name", Text),
        Column("label", Text(collation="any_case")),
        Column("code", CHAR(5)),
        Column("price", Numeric),
        Column("weight", Float),
    ]


CUSTOMERS = shard_table(
    Table(
        "customers",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("region", SmallInteger),
        *alike(),
    ),
    key="id",
)
SALES = shard_table(
    Table(
        "sales",
        METADATA,
        Column("user_id", Integer, primary_key=True, autoincrement=False),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("customer", Integer),
        Column("product", Integer),
        *alike(),
    ),
    key="user_id",
)
PRODUCTS = shard_table(
    Table(
        "products",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("kind", Integer),
    ),
    key="id",
)
LINES = shard_table(
    Table(
        "lines",
        METADATA,
        Column("user_id", Integer, primary_key=True, autoincrement=False),
        Column("sale", Integer, primary_key=True, autoincrement=False),
        Column("amount", Integer),
    ),
    key="user_id",
)
COUNTRIES = reference_table(
    Table(
        "countries",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("region", SmallInteger),
    )
)
C, S, P, L, R = CUSTOMERS.c, SALES.c, PRODUCTS.c, LINES.c, COUNTRIES.c
NUMBER = func.row_number().over(order_by=(S.user_id, S.id)).label("number")
SOLD = select(NUMBER, S.user_id, S.id, C.id.label("customer")).join_from(
    CUSTOMERS, SALES, C.id == S.customer
)
NEW = 100_000
"""A customer that is not there yet."""


@pytest.fixture(scope="module")
def databases(servers: PostgresServers) -> Iterator[Mapping[str, str]]:
    """Three shards on servers of their own, and one database with the rows of all."""
    with own_urls(servers, "asked_keys", [*SHARDS, "one"], spread=True) as urls:
        yield urls


@pytest.fixture(scope="module")
def cluster(databases: Mapping[str, str]) -> Iterator[Cluster]:
    create_collations(databases)
    with filled_cluster(databases, "asked_keys", METADATA, fill) as cluster:
        analyze(databases)
        yield cluster


@pytest.fixture(scope="module")
def one(databases: Mapping[str, str], cluster: Cluster) -> Iterator[Engine]:
    with filled_engine(databases, METADATA, fill) as engine:
        yield engine


def values_of(number: int | None) -> dict[str, Any]:
    """Values that are the same for the same number; some numbers have none."""
    if number is None or number % 9 == 8:
        return dict.fromkeys(column.name for column in alike())
    return {
        "name": ("NULL", "", 'a"b\\', "a,b", "{}", "é ", "tab\t", "line\n")[number % 8]
        + str(number),
        "label": f"{('é', 'É', 'e', 'E')[number % 4]}{number // 4}",
        "code": f"{number % 60}",
        "price": float("nan") if number % 70 == 6 else number / 4,
        "weight": {2: float("inf"), 3: -0.0}.get(number % 50, number / 3),
    }


def fill(connection: Any) -> None:
    """400 customers of 20 regions; 9,000 sales to 450 customers by 300 users, some to none."""
    connection.execute(
        insert(CUSTOMERS),
        [{"id": i, "region": i % 20, **values_of(i)} for i in range(CUSTOMERS_COUNT)],
    )
    sold = [None if i % 11 == 0 else i * 7 % 450 for i in range(SALES_COUNT)]
    connection.execute(
        insert(SALES),
        [
            {
                "user_id": i % 300,
                "id": i // 300,
                "customer": customer,
                "product": i % 90,
                # In another spelling, where that is equal.
                **{k: v.swapcase() if k == "label" and v else v for k, v in value.items()},
            }
            for i, customer in enumerate(sold)
            for value in [values_of(customer)]
        ],
    )
    connection.execute(
        insert(LINES),
        [{"user_id": i % 300, "sale": i // 300, "amount": i % 90} for i in range(SALES_COUNT)],
    )
    connection.execute(insert(COUNTRIES), [{"id": i, "region": i % 30} for i in range(90)])
    connection.execute(insert(PRODUCTS), [{"id": i, "kind": i // 4} for i in range(120)])


def choices(cluster: Cluster, statement: Any, **values: Any) -> dict[tuple[str, str], KeyChoice]:
    """What explain() tells: the relation to be narrowed, and that of the keys -> the choice."""
    merge = cluster.explain(statement, values).merge
    assert isinstance(merge, Gather)
    return {(each.origin, each.keys_origin): each.choice for each in merge.key_lists}


ASKED = {("sales", "customers"): KeyChoice.ASKED_FIRST}


class Observer:
    """Knows what was done, and does something when a step was done so many times."""

    def __init__(self, doing: Mapping[tuple[str, int], Callable[[], Any]] | None = None) -> None:
        self._doing = doing or {}
        self.steps: list[str] = []

    def on_dispatch(self, decided: Any) -> None:
        pass

    def on_step(self, name: str, shard: str | None, seconds: float, answer: Any) -> None:
        self.steps.append(name)
        doing = self._doing.get((name, self.steps.count(name)))
        if doing is not None:
            # A session of its own, which ends before anything goes on here.
            thread = Thread(target=doing)
            thread.start()
            thread.join()

    @property
    def rounds(self) -> dict[str, int]:
        return {
            name: self.steps.count(name) for name in (KEYS, SHIP, SHIP_AGAIN) if name in self.steps
        }


def observed(
    cluster: Cluster,
    statement: Any,
    doing: Mapping[tuple[str, int], Callable[[], Any]] | None = None,
    isolation: str = "READ COMMITTED",
) -> tuple[list[Any], dict[str, int]]:
    """The answer, and how often shards told keys and shipped; something is done meanwhile."""
    observer = Observer(doing)
    engine = cluster.engine.execution_options(isolation_level=isolation)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.observer = observer
        try:
            rows = connection.execute(statement).all()
        finally:
            driver.observer = None
    return sorted(map(tuple, rows), key=repr), observer.rounds


class TestAnswers:
    def test_only_sales_to_these_customers_are_shipped(self, cluster: Cluster, one: Engine) -> None:
        statement = SOLD.where(C.region == 3)

        assert choices(cluster, statement) == ASKED
        sales = count(one, S.customer.in_(select(C.id).where(C.region == 3)), SALES)
        check_ships(cluster, one, statement, sales + count(one, C.region == 3, CUSTOMERS))

    @pytest.mark.parametrize("column", ["name", "label", "price", "weight"])
    def test_keys_of_a_type(self, cluster: Cluster, one: Engine, column: str) -> None:
        number = func.row_number().over(order_by=(S.user_id, S.id, C.id))
        statement = (
            select(number, S.user_id, S.id, C.id)
            .join_from(CUSTOMERS, SALES, C[column] == S[column])
            .where(C.region == 4)
        )

        assert choices(cluster, statement) == ASKED
        sales = count(one, S[column].in_(select(C[column]).where(C.region == 4)), SALES)
        check_ships(cluster, one, statement, sales + count(one, C.region == 4, CUSTOMERS))

    @pytest.mark.parametrize(("of_customers", "of_sales"), [("id", "price"), ("price", "customer")])
    def test_keys_of_another_type(
        self, cluster: Cluster, one: Engine, of_customers: str, of_sales: str
    ) -> None:
        statement = (
            select(func.row_number().over(order_by=(S.user_id, S.id, C.id)), S.user_id, S.id, C.id)
            .join_from(CUSTOMERS, SALES, C[of_customers] == S[of_sales])
            .where(C.region == 5)
        )

        assert choices(cluster, statement) == ASKED
        of_these = exists().where(C[of_customers] == S[of_sales], C.region == 5)
        sales = count(one, of_these, SALES)
        check_ships(cluster, one, statement, sales + count(one, C.region == 5, CUSTOMERS))

    def test_keys_of_two_columns(self, cluster: Cluster, one: Engine) -> None:
        statement = (
            select(NUMBER, S.user_id, S.id, C.id)
            .join_from(CUSTOMERS, SALES, (C.id == S.customer) & (C.name == S.name))
            .where(C.region == 6)
        )

        assert choices(cluster, statement) == ASKED
        of_these = S.customer.in_(select(C.id).where(C.region == 6)) & S.name.in_(
            select(C.name).where(C.region == 6)
        )
        sales = count(one, of_these, SALES)
        check_ships(cluster, one, statement, sales + count(one, C.region == 6, CUSTOMERS))

    def test_keys_of_two_partners(
        self, cluster: Cluster, one: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "rows_worth_waiting", 20)
        statement = SOLD.join(PRODUCTS, P.id == S.product).where(C.region == 6, P.kind == 3)

        expected = {**ASKED, ("sales", "products"): KeyChoice.ASKED_FIRST}
        assert expected.items() <= choices(cluster, statement).items()
        of_these = S.customer.in_(select(C.id).where(C.region == 6))
        of_these &= S.product.in_(select(P.id).where(P.kind == 3))
        customers = count(one, C.region == 6, CUSTOMERS)
        check_ships(cluster, one, statement, count(one, of_these, SALES) + customers + 4)

    def test_keys_of_a_partner_of_rows_beside(self, cluster: Cluster, one: Engine) -> None:
        """Lines lie beside their sales, which have the customers."""
        statement = SOLD.add_columns(L.amount).where(
            L.user_id == S.user_id, L.sale == S.id, C.region == 9
        )

        assert choices(cluster, statement) == {
            **ASKED,
            ("lines", "customers"): KeyChoice.ASKED_FIRST,
        }
        sales = count(one, S.customer.in_(select(C.id).where(C.region == 9)), SALES)
        check_ships(cluster, one, statement, 2 * sales + count(one, C.region == 9, CUSTOMERS))

    def test_keys_of_a_partner_of_a_reference_row(self, cluster: Cluster, one: Engine) -> None:
        number = func.row_number().over(order_by=(L.user_id, L.sale, C.id))
        statement = (
            select(number, L.user_id, C.id)
            .join_from(LINES, COUNTRIES, R.id == L.amount)
            .join(CUSTOMERS, C.id == R.region)
            .where(C.region == 10)
        )

        assert choices(cluster, statement) == {("lines", "customers"): KeyChoice.ASKED_FIRST}
        countries = R.region.in_(select(C.id).where(C.region == 10))
        lines = count(one, L.amount.in_(select(R.id).where(countries)), LINES)
        # Of the countries all are shipped: they are few.
        check_ships(cluster, one, statement, lines + 90 + count(one, C.region == 10, CUSTOMERS))

    @pytest.mark.parametrize(
        "statement",
        [
            pytest.param(
                select(NUMBER, S.id, C.id)
                .select_from(CUSTOMERS.outerjoin(SALES, C.id == S.customer))
                .where(C.region == 2),
                id="the filled side of a left join",
            ),
            pytest.param(
                select(NUMBER, S.id).where(S.customer.in_(select(C.id).where(C.region == 2))),
                id="IN",
            ),
            pytest.param(
                select(NUMBER, S.id).where(
                    exists().where(C.id == S.customer, C.region == 2, C.name == S.name)
                ),
                id="EXISTS",
            ),
            pytest.param(
                select(C.id, func.row_number().over(order_by=C.id)).where(
                    not_(exists().where(C.id == S.customer, S.product > 3)), C.region == 2
                ),
                id="what is absent",
            ),
            pytest.param(
                select(
                    C.id,
                    select(func.sum(S.product)).where(S.customer == C.id).scalar_subquery(),
                    select(func.max(S.id)).where(S.customer == C.id).scalar_subquery(),
                ).where(C.region == 2),
                id="two occurrences",
            ),
            pytest.param(
                SOLD.where(
                    C.region == 2,
                    exists().where(L.user_id == S.user_id, L.sale == S.id, L.amount > 30),
                ),
                id="a row beside",
            ),
            pytest.param(
                SOLD.add_columns(L.amount)
                .outerjoin(LINES, and_(L.user_id == S.user_id, L.sale == S.id, L.amount > 30))
                .where(C.region == 2),
                id="a row beside that may be missing",
            ),
            pytest.param(SOLD.where(C.region == 2, C.id > 9_999), id="no keys at all"),
            pytest.param(
                SOLD.where(C.region == 2, C.id + 1 > func.date_part("year", func.now()) - 3000),
                id="the time",
            ),
            pytest.param(
                SOLD.where(C.region == 2, C.name.not_like("%b%"))
                .limit(7)
                .order_by(S.user_id, S.id),
                id="a percent sign, and a limit",
            ),
            pytest.param(
                select(C.region, func.count(), func.string_agg(S.name, literal(",")))
                .join_from(SALES, CUSTOMERS, (C.id == S.customer) & (S.product < 60))
                .where(C.region.in_([1, 2]), C.price > 3)
                .group_by(C.region)
                .having(func.count() < 0),
                id="groups",
            ),
        ],
    )
    def test_it_is_that_of_one_database(
        self, cluster: Cluster, one: Engine, statement: Any
    ) -> None:
        assert ASKED.items() <= choices(cluster, statement).items()
        assert answers(cluster.engine, statement) == answers(one, statement)

    @pytest.mark.parametrize(
        "statement",
        [
            pytest.param(
                select(NUMBER, S.id).where(
                    S.product == 2, S.customer.not_in(select(C.id).where(C.region == 2))
                ),
                id="NOT IN",
            ),
            pytest.param(
                select(NUMBER, S.id).where(
                    or_(S.customer.in_(select(C.id).where(C.region == 2)), S.product == 4)
                ),
                id="an alternative",
            ),
            pytest.param(
                select(NUMBER, S.id, C.id)
                .select_from(SALES.outerjoin(CUSTOMERS, C.id == S.customer))
                .where(or_(C.region == 2, C.id.is_(None))),
                id="the kept side of a left join",
            ),
        ],
    )
    def test_keys_that_prove_nothing_are_not_asked_for(
        self, cluster: Cluster, one: Engine, statement: Any
    ) -> None:
        assert ("sales", "customers") not in choices(cluster, statement)
        assert answers(cluster.engine, statement) == answers(one, statement)

    def test_some_shards_only(self, cluster: Cluster) -> None:
        statement, some = SOLD.where(C.region == 7), ["s0", "s2"]
        users, customers = (
            {row[0] for name in some for row in answers(cluster.engine, select(key), shard=name)}
            for key in (S.user_id, C.id)
        )

        found = answers(cluster.engine, statement, shard=some)

        every = answers(cluster.engine, statement)
        expected = {row[1:] for row in every if row[1] in users and row[3] in customers}
        assert {row[1:] for row in found} == expected
        assert 0 < len(expected) < len(every)

    def test_a_streamed_answer(self, cluster: Cluster, one: Engine) -> None:
        statement = SOLD.where(C.region == 7)

        assert answers(cluster.engine, statement, yield_per=10) == answers(one, statement)

    def test_statements_of_their_own(self, cluster: Cluster, one: Engine) -> None:
        statement = SOLD.where(C.region == 7)

        found, rounds = observed(cluster, statement, isolation="AUTOCOMMIT")

        assert found == answers(one, statement)
        assert rounds == {KEYS: 3, SHIP: 3}

    def test_changes_of_the_session_are_seen(self, cluster: Cluster) -> None:
        statement = SOLD.where(C.region == 999)
        with cluster.engine.connect() as connection:
            connection.execute(
                insert(CUSTOMERS), [{"id": NEW + i, "region": 999} for i in range(5)]
            )
            connection.execute(
                insert(SALES),
                [{"user_id": i, "id": 1000, "customer": NEW + i % 5} for i in range(9)],
            )
            seen = connection.execute(statement).all()
            connection.rollback()
            left = connection.execute(statement).all()

        assert (len(seen), left) == (9, [])


class TestChoice:
    def test_it_is_told(self, cluster: Cluster) -> None:
        # No other test has this statement, so that it is expected what these values give.
        explanation = cluster.explain(SOLD.where(C.region == 3, S.id > -1))

        assert isinstance(explanation.merge, Gather)
        (keys,) = explanation.merge.key_lists
        assert (keys.shards, keys.keys_shards) == (SHARDS, SHARDS)
        assert 5 <= (keys.expected_keys or 0) <= 60
        assert (keys.expected_with_keys or 0) < 500 < 2_000 < keys.expected_rows < 4_000
        (told,) = explanation.as_dict()["key_lists"]
        assert told["choice"] == "the keys are asked for first"
        text = " ".join(str(explanation).replace("│", " ").split())
        assert "keys of customers: s0, s1, s2 are asked for them first, an estimated" in text
        assert "they choose the rows of sales that s0, s1, s2 ship: then an estimated" in text
        assert "ships sales: the rows that may matter, with" in text
        assert "s0, s1, s2 for keys: SELECT 0 AS part" in text

    def test_rounds_are_measured(self, cluster: Cluster, one: Engine) -> None:
        measured = cluster.explain(SOLD.where(C.region == 3), analyze=True).measured

        assert measured is not None
        told = {step.shard: step.rows for step in measured.steps if step.name == KEYS}
        assert list(told) == list(SHARDS)
        assert sum(rows or 0 for rows in told.values()) == count(one, C.region == 3, CUSTOMERS)

    def test_keys_of_most_rows_are_not_asked_for(self, cluster: Cluster, one: Engine) -> None:
        statement = SOLD.where(C.region < 18)

        assert choices(cluster, statement) == {("sales", "customers"): KeyChoice.TOO_FEW_ROWS}
        text = " ".join(str(cluster.explain(statement)).replace("│", " ").split())
        assert "keys of customers: not given to s0, s1, s2, which ship an estimated" in text
        assert "too few rows could be left out" in text
        assert answers(cluster.engine, statement) == answers(one, statement)

    def test_few_rows_are_not_worth_a_round(self, cluster: Cluster) -> None:
        statement = select(NUMBER, P.id).join_from(SALES, PRODUCTS, P.id == S.product)

        assert choices(cluster, statement.where(S.user_id < 3, P.kind == 2)) == {}

    def test_planners_are_asked_once(self, cluster: Cluster) -> None:
        statement = SOLD.where(C.region == 3, S.user_id >= 0)
        observer = Observer()
        with cluster.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.observer = observer
            connection.execute(statement).all()
            before = observer.steps.count("estimate")
            connection.execute(statement).all()
            driver.observer = None

        assert before == observer.steps.count("estimate") == 2

    def test_more_keys_than_expected(
        self, cluster: Cluster, one: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The plan and its estimates are kept, the values are others."""
        statement = SOLD.where(C.region <= bindparam("region"))
        monkeypatch.setattr("sqlalchemy_shards.cluster.gather.shipping.KEYS_MAX", 100)
        few, many = {"region": 1}, {"region": 19}

        assert choices(cluster, statement, **few) == ASKED
        assert answers(cluster.engine, statement, few) == answers(one, statement, few)
        assert answers(cluster.engine, statement, many) == answers(one, statement, many)
        # It was found out, and is not tried again for a while.
        assert answers(cluster.engine, statement, few) == answers(one, statement, few)

    def test_keys_of_too_many_bytes(
        self, cluster: Cluster, one: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        statement = SOLD.where(C.region == 8, C.id < 390)
        monkeypatch.setattr("sqlalchemy_shards.cluster.gather.shipping.KEY_BYTES_MAX", 20)

        found, rounds = observed(cluster, statement)

        assert found == answers(one, statement)
        assert rounds == {KEYS: 3, SHIP: 3}
        assert choices(cluster, statement) == {("sales", "customers"): KeyChoice.TOO_MANY}


class TestBetweenTheRounds:
    """Another session writes when all keys have come, or when all rows have."""

    @pytest.fixture(autouse=True)
    def as_before(self, cluster: Cluster) -> Iterator[None]:
        yield
        with cluster.engine.begin() as connection:
            every = {"shard": "*"}
            connection.execute(delete(CUSTOMERS).where(C.id >= NEW), execution_options=every)
            connection.execute(delete(SALES).where(S.id >= NEW), execution_options=every)
            connection.execute(delete(LINES).where(L.sale >= NEW), execution_options=every)
            connection.execute(update(CUSTOMERS).where(C.id == 23).values(region=3))

    @staticmethod
    def sells(cluster: Cluster, customer: int, number: int = NEW) -> None:
        """A sale to a customer on every shard."""
        with cluster.engine.begin() as connection:
            connection.execute(
                insert(SALES),
                [{"user_id": user, "id": number, "customer": customer} for user in range(12)],
            )

    @staticmethod
    def registers(cluster: Cluster, customer: int) -> None:
        with cluster.engine.begin() as connection:
            connection.execute(insert(CUSTOMERS).values(id=customer, region=3))

    def test_a_new_customer_with_sales(self, cluster: Cluster) -> None:
        statement = SOLD.where(C.region == 3)
        before = answers(cluster.engine, statement)

        def change() -> None:
            self.registers(cluster, NEW)
            self.sells(cluster, NEW)

        found, rounds = observed(cluster, statement, {(KEYS, 3): change})

        assert rounds == {KEYS: 3, SHIP: 3, SHIP_AGAIN: 3}
        assert found == answers(cluster.engine, statement)
        assert len(found) == len(before) + 12

    def test_what_lies_beside_a_new_sale(self, cluster: Cluster) -> None:
        statement = SOLD.add_columns(L.amount).where(
            L.user_id == S.user_id, L.sale == S.id, C.region == 3
        )
        before = answers(cluster.engine, statement)

        def change() -> None:
            self.registers(cluster, NEW)
            self.sells(cluster, NEW)
            with cluster.engine.begin() as connection:
                connection.execute(
                    insert(LINES),
                    [{"user_id": user, "sale": NEW, "amount": 1} for user in range(12)],
                )

        found, rounds = observed(cluster, statement, {(KEYS, 3): change})

        assert rounds == {KEYS: 3, SHIP: 3, SHIP_AGAIN: 3}
        assert len(found) == len(before) + 12

    def test_sales_first_then_the_customer(self, cluster: Cluster) -> None:
        statement = SOLD.where(C.region == 3)
        self.sells(cluster, NEW)
        before = answers(cluster.engine, statement)

        found, rounds = observed(
            cluster, statement, {(KEYS, 3): lambda: self.registers(cluster, NEW)}
        )

        assert rounds == {KEYS: 3, SHIP: 3, SHIP_AGAIN: 3}
        assert len(found) == len(before) + 12

    def test_the_customer_first_then_sales(self, cluster: Cluster) -> None:
        statement = SOLD.where(C.region == 3)
        self.registers(cluster, NEW)
        before = answers(cluster.engine, statement)

        found, rounds = observed(cluster, statement, {(KEYS, 3): lambda: self.sells(cluster, NEW)})

        assert rounds == {KEYS: 3, SHIP: 3}
        assert len(found) == len(before) + 12

    def test_a_customer_that_is_one_no_more(self, cluster: Cluster) -> None:
        statement = SOLD.where(C.region == 3)

        def change() -> None:
            with cluster.engine.begin() as connection:
                connection.execute(update(CUSTOMERS).where(C.id == 23).values(region=4))

        found, rounds = observed(cluster, statement, {(KEYS, 3): change})

        assert rounds == {KEYS: 3, SHIP: 3}
        assert found == answers(cluster.engine, statement)
        assert {row[3] for row in found} >= {3, 43}
        assert 23 not in {row[3] for row in found}

    def test_customers_that_come_each_time(self, cluster: Cluster) -> None:
        """It ends all the same: at last everything is shipped."""
        statement = SOLD.where(C.region == 3)
        before = answers(cluster.engine, statement)

        def change(customer: int) -> None:
            self.registers(cluster, customer)
            self.sells(cluster, customer, customer)

        doing = {(SHIP_AGAIN, 3 * n): lambda n=n: change(NEW + 1 + n) for n in range(1, 4)}
        doing |= {(KEYS, 3): lambda: change(NEW), (SHIP, 3): lambda: change(NEW + 1)}
        found, rounds = observed(cluster, statement, doing)

        assert rounds == {KEYS: 3, SHIP: 3, SHIP_AGAIN: 9}
        # Each customer is there whole, or not at all.
        assert len(found) == len(before) + 12 * 4

    def test_a_snapshot_of_the_transaction_sees_none_of_it(self, cluster: Cluster) -> None:
        statement = SOLD.where(C.region == 3)
        before = answers(cluster.engine, statement)

        def change() -> None:
            self.registers(cluster, NEW)
            self.sells(cluster, NEW)

        found, rounds = observed(cluster, statement, {(KEYS, 3): change}, "REPEATABLE READ")

        assert rounds == {KEYS: 3, SHIP: 3}
        assert found == before

    def test_a_shard_that_dies(
        self, cluster: Cluster, one: Engine, servers: PostgresServers
    ) -> None:
        statement = SOLD.where(C.region == 3)

        with pytest.raises(OperationalError):
            observed(cluster, statement, {(KEYS, 3): lambda: servers.kill(1)})
        servers.start(1)

        assert answers(cluster.engine, statement) == answers(one, statement)

    def test_what_one_shard_ships_is_of_one_moment(self, cluster: Cluster) -> None:
        """A customer and a sale of one shard change at once: both are old, or both are new."""
        statement = select(NUMBER, C.code, S.code).join_from(CUSTOMERS, SALES, C.id == S.customer)
        statement = statement.where(C.region == 3, S.id >= NEW)
        self.registers(cluster, NEW)
        self.sells(cluster, NEW)
        shard = next(
            name
            for name in SHARDS
            if answers(cluster.engine, select(C.id).where(C.id == NEW), shard=name)
        )
        codes = iter("abcdefgh")

        def change() -> None:
            code = next(codes)
            with cluster.connect(shard) as driver:
                driver.execute(f"UPDATE customers SET code = '{code}' WHERE id = {NEW}")
                driver.execute(f"UPDATE sales SET code = '{code}' WHERE id = {NEW}")
                driver.commit()

        change()
        found, _ = observed(cluster, statement, {(KEYS, 1): change, (KEYS, 3): change})

        of_shard = [row for row in found if row[2] is not None]
        assert of_shard
        assert all(row[1] == row[2] for row in of_shard)
