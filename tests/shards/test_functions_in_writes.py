"""Functions in UPDATE and DELETE over several shards: as on one database, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Select,
    Sequence,
    String,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from sqlalchemy_shards.errors import UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.shop import World

EVERYWHERE = {"scatter": "allow"}

EVERYTHING = [
    "SELECT id, name, notes, region_code FROM customers",
    "SELECT customer_id, id, amount, status FROM orders",
    "SELECT customer_id, id, text FROM labels",
]


class OwnFormat(FunctionElement[str]):
    """Is called like a function of PostgreSQL, and writes another."""

    name = "format"
    type = String()
    inherit_cache = True


@compiles(OwnFormat)
def _write_own_format(*_: Any, **__: Any) -> str:
    return "pg_backend_pid()::text"


def as_text(m: Any, *values: Any) -> Any:
    return cast(func.jsonb_build_object(*values), String)


WRITES: dict[str, Callable[[Any], Any]] = {
    "documents": lambda m: update(m.Order).values(status=as_text(m, "n", m.Order.amount)),
    "documents of some keys": lambda m: (
        update(m.Customer)
        .where(m.Customer.id.in_([1, 2, 3, 4, 5]))
        .values(notes=as_text(m, "n", m.Customer.name))
    ),
    "formats": lambda m: update(m.Order).values(
        status=func.format("%s of %s", m.Order.id, m.Order.customer_id)
    ),
    "formatted numbers": lambda m: (
        update(m.Order)
        .where(func.to_char(m.Order.amount, "FM999") < "5")
        .values(status=func.to_char(m.Order.amount, "FM000"))
    ),
    "immutable functions": lambda m: update(m.Customer).values(
        notes=func.quote_ident(m.Customer.name)
    ),
    "a condition of a deletion": lambda m: delete(m.Label).where(
        func.to_char(m.Label.id, "FM999").like("%2")
    ),
    "a document of a reference row": lambda m: (
        update(m.Customer)
        .where(m.Customer.region_code == m.Region.code)
        .values(notes=as_text(m, "region", m.Region.name))
    ),
    "a document of a row beside it": lambda m: (
        update(m.Order)
        .where(m.Order.customer_id == m.Customer.id)
        .values(status=as_text(m, "of", m.Customer.name))
    ),
    "a document of another shard's row": lambda m: (
        update(m.Order)
        .where(m.Order.amount == m.Customer.id)
        .values(status=as_text(m, "of", m.Customer.name))
    ),
    "a condition by a subquery": lambda m: (
        update(m.Customer)
        .where(func.to_char(m.Customer.id, "FM999").in_(select(cast(m.Order.amount, String))))
        .values(notes=func.format("<%s>", m.Customer.id))
    ),
}


def everything(world: World) -> list[Any]:
    return [world.rows(each) for each in EVERYTHING]


@pytest.mark.parametrize("name", WRITES)
def test_rows_become_what_they_become_on_one_database(
    plain: World, four_shards: World, name: str
) -> None:
    counts = []
    plain.fill()
    four_shards.fill()
    for world in (plain, four_shards):
        with world.engine.begin() as connection:
            statement = WRITES[name](world.models)
            counts.append(connection.execute(statement, execution_options=EVERYWHERE).rowcount)

    assert counts[0] == counts[1] > 0
    assert everything(plain) == everything(four_shards)


def test_functions_are_returned(plain: World, four_shards: World) -> None:
    found = []
    plain.fill()
    four_shards.fill()
    for world in (plain, four_shards):
        m = world.models
        statement = (
            update(m.Order)
            .values(amount=7)
            .returning(
                m.Order.id, func.jsonb_build_object("n", m.Order.amount, "of", m.Order.customer_id)
            )
        )
        with world.engine.begin() as connection:
            rows = connection.execute(statement, execution_options=EVERYWHERE).all()
        found.append(sorted(map(repr, rows)))

    assert found[0] == found[1]
    assert found[0]


def test_each_of_several_parameter_sets_is_written(plain: World, four_shards: World) -> None:
    plain.fill()
    four_shards.fill()
    sets = [{"least": 1, "word": "a"}, {"least": 8, "word": "b"}]
    for world in (plain, four_shards):
        m = world.models
        statement = (
            update(m.Customer)
            .where(m.Customer.id > bindparam("least"))
            .values(notes=func.format("%s-%s", m.Customer.name, bindparam("word", type_=String())))
        )
        with world.engine.begin() as connection:
            connection.execute(statement, sets, execution_options=EVERYWHERE)

    assert everything(plain) == everything(four_shards)
    assert ("customer 12-b",) in four_shards.rows("SELECT notes FROM customers")


@pytest.mark.parametrize("synchronize", ["fetch", "auto"])
def test_objects_of_a_session_follow(shop: World, synchronize: Any) -> None:
    m = shop.models
    with shop.session() as session:
        found = session.scalars(select(m.Customer).where(m.Customer.id.in_([1, 2, 3]))).all()
        session.execute(
            update(m.Customer).values(notes=func.format("<%s>", m.Customer.name)),
            execution_options={**EVERYWHERE, "synchronize_session": synchronize},
        )

        assert {each.notes for each in found} == {f"<customer {number}>" for number in (1, 2, 3)}


@pytest.mark.parametrize("draw", [func.random, func.gen_random_uuid])
def test_each_row_draws_a_value_of_its_own(shop: World, draw: Any) -> None:
    m = shop.models
    with shop.session() as session:
        session.execute(
            update(m.Order).where(func.random() < 2).values(status=cast(draw(), String)),
            execution_options=EVERYWHERE,
        )
        drawn = session.scalars(select(m.Order.status)).all()

    assert len(set(drawn)) == len(drawn) > 1


@pytest.mark.parametrize("as_relation", [Select.cte, Select.subquery])
def test_what_is_drawn_beside_the_rows_is_drawn_once(shop: World, as_relation: Any) -> None:
    m = shop.models
    one = as_relation(select(func.random().label("r")))
    with shop.session() as session:
        session.execute(
            update(m.Order)
            .where(m.Order.amount > one.c.r - 9)
            .values(status=cast(one.c.r, String)),
            execution_options=EVERYWHERE,
        )
        drawn = session.scalars(select(m.Order.status)).all()

    assert len(drawn) > 1
    assert len(set(drawn)) == 1
    assert 0 <= float(drawn[0]) < 1


def test_a_row_may_be_left_to_chance(shop: World) -> None:
    m = shop.models
    with shop.session() as session:
        none = session.execute(
            delete(m.Label).where(func.random() > 2), execution_options=EVERYWHERE
        )

        assert none.rowcount == 0


def one_draw(m: Any) -> Any:
    return update(m.Order).values(status=cast(select(func.random()).scalar_subquery(), String))


REFUSED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "one draw for all rows": ("the function random", one_draw),
    "a draw for a row of a reference table": (
        "the function random",
        lambda m: (
            update(m.Customer)
            .where(m.Customer.region_code == m.Region.code, func.random() < 0.5)
            .values(notes="x")
        ),
    ),
    "a sequence": (
        "the function nextval",
        lambda m: update(m.Order).values(amount=Sequence("some_numbers").next_value()),
    ),
    "a sequence in rows that are selected": (
        "the function nextval",
        lambda m: insert(m.Order).from_select(
            ["customer_id", "id", "amount"],
            select(m.Order.customer_id, m.Order.id + 10, Sequence("some_numbers").next_value()),
        ),
    ),
    "a sequence by name": (
        "the function nextval",
        lambda m: update(m.Order).values(amount=func.nextval("some_numbers")),
    ),
    "the statement's time": (
        "the function statement_timestamp",
        lambda m: update(m.Customer).values(created=func.statement_timestamp()),
    ),
    "the transaction": (
        "the function txid_current",
        lambda m: update(m.Order).values(amount=func.txid_current()),
    ),
    "an effect elsewhere": (
        "the function pg_notify",
        lambda m: delete(m.Label).where(func.pg_notify("gone", m.Label.text).is_(None)),
    ),
    "a namesake in a schema": (
        "the function other.format",
        lambda m: update(m.Order).values(
            status=func.format("%s", m.Order.id) + func.other.format("%s", m.Order.id)
        ),
    ),
    "a construct that writes another function": (
        "the function format",
        lambda m: update(m.Order).values(status=OwnFormat() + func.format("%s", 1)),
    ),
    "a document of a reference table": (
        "the function jsonb_build_object",
        lambda m: update(m.Region).values(name=as_text(m, "n", m.Region.name)),
    ),
    "chance in a reference table": (
        "the function random",
        lambda m: update(m.Region).values(name=cast(func.random(), String)),
    ),
    "raw text": (
        "raw SQL text",
        lambda m: update(m.Order).values(status=literal_column("format('%s', pg_backend_pid())")),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_differ_is_refused(four_shards: World, name: str) -> None:
    sentence, make = REFUSED[name]
    with (
        four_shards.engine.begin() as connection,
        pytest.raises(UnsupportedStatement, match=sentence),
    ):
        connection.execute(make(four_shards.models), execution_options=EVERYWHERE)
