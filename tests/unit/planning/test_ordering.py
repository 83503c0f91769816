"""ORDER BY clauses, taken apart."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    asc,
    desc,
    literal_column,
    select,
    text,
    tuple_,
)

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.planning.ordering import orderings

METADATA = MetaData()
T = Table("t", METADATA, Column("id", Integer), Column("n", Integer))
U = Table("u", METADATA, Column("id", Integer), Column("n", Integer))


def found_in(statement: Any) -> Any:
    compiled = statement.compile(dialect=ShardsDialect())
    return orderings(_compat.select_shape(statement).order_by, _compat.label_meanings(compiled))


@pytest.mark.parametrize(
    ("key", "descending", "nulls_first"),
    [
        (T.c.id, False, False),
        (T.c.id.asc(), False, False),
        (T.c.id.desc(), True, True),
        (T.c.id.nulls_first(), False, True),
        (T.c.id.desc().nulls_last(), True, False),
        (T.c.id.desc().nulls_first(), True, True),
        (asc("id"), False, False),
        (desc("id").nulls_last(), True, False),
    ],
    ids=str,
)
def test_direction_and_place_of_nulls(key: Any, descending: bool, nulls_first: bool) -> None:
    ((expression, *found),) = found_in(select(T.c.id).order_by(key))

    assert expression is T.c.id
    assert found == [descending, nulls_first]


def test_a_label_stands_for_its_expression() -> None:
    label = (T.c.id + 1).label("next")

    ((by_label, *_),) = found_in(select(label).order_by(label.desc()))
    ((by_name, *_),) = found_in(select(label).order_by("next"))

    assert by_label is by_name is label.element


def test_a_name_stands_for_the_selected_label_before_a_column() -> None:
    label = (-T.c.id).label("id")

    ((expression, *_),) = found_in(select(label).order_by("id"))

    assert expression is label.element


def test_a_name_stands_for_what_sqlalchemy_writes() -> None:
    statement = select(T.c.id).select_from(T.join(U, T.c.id == U.c.id)).order_by("n")

    ((expression, *_),) = found_in(statement)

    assert str(expression) in str(statement).partition("ORDER BY")[2]


@pytest.mark.parametrize(
    "key", [text("1"), text("id"), literal_column("1"), tuple_(T.c.id, T.c.n)], ids=str
)
def test_what_may_mean_a_position_is_not_understood(key: Any) -> None:
    assert found_in(select(T.c.id).order_by(key)) is None
