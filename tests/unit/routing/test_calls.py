"""How many arguments a function is called with is known for certain, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Sequence,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    text,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import REGCONFIG, aggregate_order_by, array

from sqlalchemy_shards.routing.calls import Call, call_of

A = column("a")


@pytest.mark.parametrize(
    ("function", "call"),
    [
        (func.f(), Call("f", 0)),
        (func.f(A, 1, None), Call("f", 3)),
        (func.app.F(A + 1, func.g(A, 2)), Call("app.f", 2)),
        (func.f(array([A, 2]), tuple_(A, 2), type_coerce(A, A.type)), Call("f", 3)),
        (func.f(select(A).scalar_subquery(), A.in_([1, 2])), Call("f", 2)),
        (func.f(literal_column("a"), literal_column("g(1, 2)")), Call("f", 2)),
        (func.f(literal_column("a, b")), Call("f")),
        (func.f(literal_column("'a")), Call("f")),
        (func.f(text("a")), Call("f")),
        (func.f(bindparam("a", [1, 2], expanding=True)), Call("f")),
        (func.f(aggregate_order_by(A, A)), Call("f")),
        (func.to_tsquery("simple", "a"), Call("to_tsquery", 2, is_configured=True)),
        (func.f(cast("simple", REGCONFIG), A), Call("f", 2, is_configured=True)),
        (func.f(column("c", REGCONFIG), A), Call("f", 2)),
        (func.unnest(A), Call("unnest", 1)),
        (func.unnest(A, A), Call("unnest")),
        (Sequence("numbers").next_value(), Call("nextval")),
    ],
)
def test_a_call(function: Any, call: Call) -> None:
    assert call_of(function) == call
