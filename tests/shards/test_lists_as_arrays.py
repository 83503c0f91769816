"""Long lists, and those of several shards, are sent as arrays, and mean what each value means."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    CHAR,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    Uuid,
    and_,
    bindparam,
    event,
    func,
    literal_column,
    not_,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.exc import DBAPIError

from tests.arrays import items_of
from tests.observing import told
from tests.shards.shop import CUSTOMERS, DECLARED, UNDECLARED, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

MANY = 40

ONE = UUID(int=1)
DAY, NOON = date(2020, 1, 2), datetime(2020, 1, 2, 12)
INSTANT = NOON.replace(tzinfo=timezone.utc)

INTEGERS = (SmallInteger(), Integer(), BigInteger())
TEXTS = (String(), String(3), Text(), CHAR(3))


class Doubled(TypeDecorator[int]):
    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int | None:
        return None if value is None else value * 2


def padded(values: list[Any], other: Any) -> list[Any]:
    """As many values as make a long list."""
    return values + [other] * MANY


# What stands on the left, as SQL; what a model may say its type is; what it is compared with.
MEMBERSHIPS: list[tuple[tuple[str, ...], tuple[Any, ...], tuple[list[Any], ...]]] = [
    (
        (
            *("5::int2", "5::int4", "5::int8", "5::numeric", "5.5::numeric", "5::float8"),
            *("NULL::int4", "5::real", "'5'", "NULL"),
        ),
        INTEGERS,
        (padded([5], 6), padded([5, None], 6), padded([None], 6), padded([], 6)),
    ),
    (("5::int2", "5::int8"), INTEGERS, (padded([2**40], 5), padded([2**70], 5), padded([-1], 0))),
    (
        ("5::int4",),
        INTEGERS,
        (padded([6, 5.0], 6), padded([6, True], 6), padded([Decimal("5.5")], 6)),
    ),
    (("5::int4", "'a'::text"), (Integer(),), (padded(["5"], 6), padded(["x"], 6))),
    (
        (
            *("'a'::text", "'a '::text", "'a'::varchar", "'a'::char(3)", "'a'::name", "'a'"),
            *("'A'::citext", "'a'::text COLLATE \"C\"", "'a'::pg_temp.a_word", "NULL::text"),
        ),
        TEXTS,
        (padded(["a"], "b"), padded(["a "], "b"), padded(["a", None], "b"), padded([None], "b")),
    ),
    (
        ("'{x}'::text", "'say \"a\"'::text", "E'back\\\\slash'::text", "''::text", "'NULL'::text"),
        (Text(),),
        (
            padded(["{x}", 'say "a"'], "b"),
            padded(["back\\slash", ""], "b"),
            padded(["NULL"], "b"),
            padded(["null", "a,b"], '"'),
        ),
    ),
    (("'A'::citext",), (CITEXT(),), (padded(["a"], "b"), padded(["A"], "b"))),
    ((f"'{ONE}'::uuid", "NULL::uuid"), (Uuid(),), (padded([ONE, None], UUID(int=2)),)),
    (
        (f"'{ONE}'::uuid",),
        (Uuid(as_uuid=False),),
        (padded([str(ONE)], str(UUID(int=2))), padded([ONE.hex.upper()], str(UUID(int=2)))),
    ),
    (
        ("'2020-01-02'::date", "'2020-01-02'::timestamp", "'2020-01-02'::timestamptz"),
        (Date(), DateTime(), DateTime(timezone=True)),
        (padded([DAY], date(1, 2, 3)), padded([NOON.replace(hour=0), None], NOON)),
    ),
    (
        ("'2020-01-02 12:00'::timestamp", "'2020-01-02 12:00+00'::timestamptz"),
        (DateTime(), DateTime(timezone=True)),
        (padded([NOON], datetime.max), padded([INSTANT], datetime.min)),
    ),
    (("5::numeric",), (Numeric(),), (padded([Decimal("5.0")], 6),)),
    (("true",), (Boolean(),), (padded([True, None], False),)),
    (("10::int4",), (Doubled(),), (padded([5, None], 6),)),
]


@contextmanager
def prepared(world: World) -> Iterator[Connection]:
    """A connection that knows a domain."""
    with world.engine.connect() as connection:
        connection.execute(text("CREATE DOMAIN pg_temp.a_word AS varchar(10)"))
        yield connection
        connection.rollback()


@pytest.fixture
def citext(plain: World) -> Iterator[None]:
    """Text without case, where the server has it; else both say that there is none."""
    with plain.engine.begin() as connection:
        has_citext = connection.scalar(
            text("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'")
        )
        if has_citext:
            connection.execute(text("CREATE EXTENSION citext"))
    yield
    if has_citext:
        with plain.engine.begin() as connection:
            connection.execute(text("DROP EXTENSION citext"))


def answer(connection: Connection, statement: Any) -> Any:
    """A row, or the SQLSTATE of an error."""
    savepoint = connection.begin_nested()
    try:
        found = tuple(connection.execute(statement).one())
    except DBAPIError as error:
        savepoint.rollback()
        return getattr(error.orig, "sqlstate", None) or type(error.orig).__name__
    savepoint.commit()
    return found


@pytest.mark.usefixtures("citext")
@pytest.mark.parametrize("membership", MEMBERSHIPS, ids=lambda each: each[0][0])
def test_an_array_means_what_each_of_its_values_means(
    plain: World, one_shard: World, membership: Any
) -> None:
    expressions, types, lists = membership
    differing = []
    with prepared(plain) as one, prepared(one_shard) as ours:
        for expression in expressions:
            for type_ in types:
                left = literal_column(expression, type_)
                for listed in lists:
                    statement = select(left.in_(listed), left.not_in(listed))
                    expected, found = answer(one, statement), answer(ours, statement)
                    if expected != found:
                        differing.append((expression, type_, listed[:3], expected, found))

    assert differing == []


def note_in(found: list[tuple[str, dict[str, Any]]]) -> Any:
    """What takes note of each shard's work."""
    return lambda decided: found.extend(
        (work.sql, dict(work.parameters or {})) for work in decided.works
    )


def pairs(numbers: Any) -> list[tuple[int, int]]:
    return [(number, number * 10 + each) for number in numbers for each in (1, 2)]


class TestWhatIsSent:
    def test_the_sql_is_the_same_for_any_number_of_values(self, spread_shop: World) -> None:
        m = spread_shop.models
        found: list[tuple[str, dict[str, Any]]] = []
        with spread_shop.session() as session, told(session.connection(), note_in(found)):
            for count in (6, 20, 300):
                listed = list(range(1, count))
                customers = session.scalars(select(m.Customer.id).where(m.Customer.id.in_(listed)))
                assert set(customers) == set(CUSTOMERS) & set(listed)
                statement = select(m.Order.id).where(m.Order.amount.in_(listed))
                session.execute(statement).all()
                statement = select(m.Order.id).where(
                    tuple_(m.Order.customer_id, m.Order.id).not_in(pairs(listed))
                )
                session.execute(statement).all()

        assert len({sql for sql, _ in found}) == 3
        assert all(len(parameters) in (1, 2) for _, parameters in found)

    def test_a_short_list_for_one_shard_is_sqlalchemys_own(self, spread_shop: World) -> None:
        m = spread_shop.models
        found: list[tuple[str, dict[str, Any]]] = []
        statement = select(m.Order.id).where(m.Order.customer_id == 1)
        with spread_shop.session() as session, told(session.connection(), note_in(found)):
            assert session.scalars(statement.where(m.Order.id.in_([11, 13]))).all() == [11]
            assert session.scalars(statement.where(m.Order.id.in_(range(11, 60)))).all() == [11, 12]

        (short, _), (long, parameters) = found
        assert "orders.id IN (%(id_1_1)s::BIGINT, %(id_1_2)s::BIGINT)" in short
        assert "orders.id = ANY (%(id_1)s::BIGINT[])" in long
        assert len(items_of(parameters["id_1"])) == 49

    def test_rows_are_sent_column_by_column(self, spread_shop: World) -> None:
        m = spread_shop.models
        found: list[tuple[str, dict[str, Any]]] = []
        rows = tuple_(m.Order.customer_id, m.Order.id).in_(pairs(CUSTOMERS))
        with spread_shop.session() as session, told(session.connection(), note_in(found)):
            assert len(session.scalars(select(m.Order.id).where(rows)).all()) == 24

        columns = [[items_of(value) for value in parameters.values()] for _, parameters in found]
        given = [row for column in columns for row in zip(*column, strict=True)]
        assert all("IN (SELECT * FROM unnest(" in sql for sql, _ in found)
        assert sorted((int(one), int(other)) for one, other in given) == sorted(pairs(CUSTOMERS))

    def test_rows_with_text_are_sent_one_by_one(self, spread_shop: World) -> None:
        m = spread_shop.models
        rows = tuple_(m.Customer.id, m.Customer.name).in_(
            [(number, f"customer {number}") for number in CUSTOMERS]
        )
        found: list[tuple[str, dict[str, Any]]] = []
        with spread_shop.session() as session, told(session.connection(), note_in(found)):
            assert len(session.scalars(select(m.Customer).where(rows)).all()) == 12

        assert all("unnest" not in sql for sql, _ in found)

    def test_listeners_see_what_is_sent_to_one_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        seen: list[tuple[str, Any]] = []

        def note(*arguments: Any) -> None:
            seen.append((arguments[2], arguments[3]))

        event.listen(spread_shop.engine, "before_cursor_execute", note)
        with spread_shop.session() as session:
            session.execute(select(m.Flag).where(m.Flag.id.in_([1] * MANY))).all()
        event.remove(spread_shop.engine, "before_cursor_execute", note)

        ((sql, parameters),) = seen
        assert "flags.id = ANY (%(id_1)s::" in sql
        assert items_of(parameters["id_1"]) == ["1"] * MANY


class TestManyValues:
    def test_more_values_than_the_protocol_has_parameters(self, spread_shop: World) -> None:
        m = spread_shop.models
        everything = range(1, 100_001)
        with spread_shop.session() as session:
            found = session.scalars(select(m.Customer.id).where(m.Customer.id.in_(everything)))
            assert sorted(found) == list(CUSTOMERS)
            rows = tuple_(m.Order.customer_id, m.Order.id).in_(pairs(range(1, 50_001)))
            assert session.scalar(select(func.count()).select_from(m.Order).where(rows)) == 24
            one = select(m.Order.id).where(m.Order.customer_id == 1, m.Order.id.in_(everything))
            assert session.scalars(one).all() == [11, 12]


def forms(m: Any, listed: list[Any]) -> dict[str, Any]:
    """Statements that hold lists in many ways."""
    customers, orders = m.Customer.id.in_(listed), m.Order.customer_id.in_(listed)
    numbers = bindparam("of list", listed, expanding=True)
    both = [(number, number * 10 + 1 if number else None) for number in listed]
    rows = tuple_(m.Order.customer_id, m.Order.id)
    ids = select(m.Customer.id).order_by(m.Customer.id)
    return {
        "in": ids.where(customers),
        "not in": ids.where(~customers),
        "or": ids.where(or_(customers, m.Customer.name == "customer 5")),
        "or not": ids.where(or_(~customers, m.Customer.version.in_(listed))),
        "in the columns": ids.add_columns(customers, m.Customer.id.not_in(listed)),
        "is not true": ids.where(customers.is_not(True)),
        "equals": ids.where(customers == (m.Customer.version == 1)),
        "named": ids.where(m.Customer.id.in_(numbers)),
        "named twice": ids.where(m.Customer.id.in_(numbers), m.Customer.version.in_(numbers)),
        "rows": select(m.Order.id).where(rows.in_(both)).order_by(m.Order.id),
        "not rows": select(m.Order.id).where(rows.not_in(both)).order_by(m.Order.id),
        "rows in the columns": select(m.Order.id, rows.in_(both)).order_by(m.Order.id),
        "of a joined table": ids.join(m.Customer.orders).where(orders),
        "in a subquery": ids.where(m.Customer.id.in_(select(m.Order.customer_id).where(orders))),
        "in a filter": select(func.count().filter(customers), func.count().filter(~customers)),
        "not a key": ids.where(m.Customer.name.in_([f"customer {each}" for each in listed])),
        "an expression": ids.where((m.Customer.id + 1).in_(listed)),
        "groups": select(customers, func.count()).group_by(customers).order_by(func.count()),
        "with a limit": ids.where(customers).limit(3).offset(1),
    }


LISTS: dict[str, list[Any]] = {
    "none": [],
    "one": [3],
    "few": [7, 3, 11, 1, 12, 2, 3],
    "a null": [7, 3, None, 1],
    "many": [*range(2, 60), 3],
    "many, a null": [*range(2, 60), None],
    "of another type": [*range(3, 60), Decimal(2)],
    "large": [*range(2, 60), 2**62],
}


@pytest.mark.parametrize("name", LISTS)
def test_the_answers_are_those_of_one_database(plain: World, spread_shop: World, name: str) -> None:
    plain.fill()
    answers: list[dict[str, Any]] = []
    for world in (plain, spread_shop):
        with world.session() as session:
            found: dict[str, Any] = {}
            for form, statement in forms(world.models, LISTS[name]).items():
                savepoint = session.begin_nested()
                try:
                    found[form] = [tuple(row) for row in session.execute(statement)]
                except DBAPIError as error:
                    found[form] = getattr(error.orig, "sqlstate", None)
                    savepoint.rollback()
            answers.append(found)

    assert answers[0] == answers[1]


NUMBERS = st.one_of(st.none(), st.integers(0, 14), st.sampled_from([2**31 - 1, -5]))
ROWS = st.tuples(NUMBERS, st.one_of(st.none(), st.integers(9, 125)))
LEAVES = st.one_of(
    st.tuples(
        st.sampled_from(["customer_id", "id", "amount"]),
        st.booleans(),
        st.lists(NUMBERS, max_size=25),
    ),
    st.tuples(st.just("rows"), st.booleans(), st.lists(ROWS, max_size=25)),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.sampled_from(["and", "or", "not"]), inner, inner),
    max_leaves=5,
)


def condition_of(m: Any, spec: Any) -> Any:
    """A condition on orders, of lists."""
    head, first, second = spec
    if head == "not":
        return not_(condition_of(m, first))
    if head in ("and", "or"):
        join = and_ if head == "and" else or_
        return join(condition_of(m, first), condition_of(m, second))
    left = tuple_(m.Order.customer_id, m.Order.id) if head == "rows" else getattr(m.Order, head)
    return left.not_in(second) if first else left.in_(second)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(spec=CONDITIONS)
def test_any_condition_of_lists_has_the_answer_of_one_database(
    filled: tuple[Session, Session], spec: Any
) -> None:
    answers = []
    for session, m in zip(filled, (UNDECLARED, DECLARED), strict=True):
        condition = condition_of(m, spec)
        found = session.execute(select(m.Order.id).where(condition).order_by(m.Order.id)).all()
        counted = session.scalar(select(func.count()).select_from(m.Order).where(condition))
        answers.append(([tuple(row) for row in found], counted))

    assert answers[0] == answers[1]


@pytest.fixture
def filled(plain: World, spread_shop: World) -> Iterator[tuple[Session, Session]]:
    """Sessions on one database and on four shards, with the same rows."""
    plain.fill()
    with plain.session() as one, spread_shop.session() as ours:
        yield one, ours
