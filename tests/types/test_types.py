"""Every type goes through every way of answering as it goes through one PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Text, case, cast, exists, func, literal, select, union, union_all
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.plan import Tier
from tests.types.answers import answer, is_refusal
from tests.types.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Table

    from tests.types.conftest import Typed

pytestmark = pytest.mark.filterwarnings("ignore:Type object")

every_kind = pytest.mark.parametrize("name", KINDS)


def statements(table: Table, *, is_vague: bool) -> Mapping[str, Any]:
    """Statements of every tier.

    Of values that are equal and look different, PostgreSQL itself shows one or the other where one
    is asked for; then only what is certain is looked at.
    """
    t, other = table, table.alias("other")
    one_of: Any = (lambda column: column.is_(None)) if is_vague else (lambda column: column)
    shown: Any = [] if is_vague else [t.c.v]
    return {
        "rows": select(t.c.id, t.c.v),
        "by id": select(t.c.v, t.c.id).order_by(t.c.id.desc()).limit(7).offset(1),
        "in order": select(t.c.v, t.c.id).order_by(t.c.v, t.c.id),
        "in order, not shown": select(t.c.id).order_by(t.c.v.desc().nulls_last(), t.c.id).limit(5),
        "as text, in order": select(cast(t.c.v, Text), t.c.id).order_by(t.c.v, t.c.id.desc()),
        "case": select(t.c.id, case((t.c.id > 3, t.c.v), else_=None)),
        "distinct with the key": select(t.c.id, t.c.v).distinct(),
        "groups in order": select(func.count(), func.min(t.c.id)).group_by(t.c.v).order_by(t.c.v),
        "groups of parity": select(t.c.g, func.count(t.c.v)).group_by(t.c.g),
        "greatest of parity": select(t.c.g, one_of(func.max(t.c.v))).group_by(t.c.g),
        "greatest of the key": select(t.c.id, func.max(t.c.v)).group_by(t.c.id),
        "count distinct": select(func.count(t.c.v.distinct())),
        "least and greatest": select(one_of(func.min(t.c.v)), one_of(func.max(t.c.v))),
        "greatest": select(one_of(func.max(t.c.v))).where(t.c.id > 2),
        "of nothing": select(func.max(t.c.v), func.count(t.c.v)).where(t.c.id < 0),
        "texts in order": select(
            func.string_agg(cast(t.c.v, Text), aggregate_order_by(literal("|"), t.c.id))
        ),
        "outer join": select(t.c.id, other.c.v).outerjoin(other, t.c.id == other.c.id + 7),
        "union all": union_all(select(t.c.v), select(other.c.v).where(other.c.g == 1)),
        "greater than some": select(t.c.id).where(
            t.c.v > select(other.c.v).where(other.c.id == 1).scalar_subquery()
        ),
        "distinct": select(func.count()).select_from(select(t.c.v).distinct().subquery()),
        "groups": select(*shown, func.count(), func.min(t.c.id)).group_by(t.c.v),
        **gathered_statements(table, is_vague=is_vague),
    }


def gathered_statements(table: Table, *, is_vague: bool) -> Mapping[str, Any]:
    """Those that nothing but PostgreSQL can answer, with all rows at hand."""
    t, other = table, table.alias("other")
    both = union(select(t.c.v), select(other.c.v).where(other.c.id > 4)).subquery()
    shown: Any = [] if is_vague else [func.count(both.c.v)]
    return {
        "window": select(t.c.id, t.c.v, func.count().over(partition_by=t.c.g)),
        "ranks": select(t.c.id, func.rank().over(order_by=t.c.v)),
        "self-join": select(t.c.id, other.c.id, other.c.v).join(other, t.c.v == other.c.v),
        "join with one row": select(t.c.id, other.c.v)
        .join(other, t.c.v == other.c.v)
        .where(other.c.id == 1),
        "join with some rows": select(t.c.id, other.c.v)
        .join(other, t.c.v == other.c.v)
        .where(other.c.id.in_([0, 2, 3, 5])),
        "outer join with one row": select(t.c.id, other.c.id)
        .select_from(other)
        .outerjoin(t, t.c.v == other.c.v)
        .where(other.c.id == 2),
        "exists with one row": select(t.c.id, func.count().over()).where(
            exists().where(other.c.v == t.c.v, other.c.id == 3)
        ),
        "union": select(func.count(), *shown).select_from(both),
        "in a subquery": select(t.c.id).where(
            t.c.v.in_(select(other.c.v).where(other.c.id < 3)), t.c.g == 0
        ),
    }


@every_kind
def test_answers_are_those_of_one_database(typed_world: Typed, name: str) -> None:
    asked = statements(typed_world.table(name), is_vague=KINDS[name].is_vague)
    if name == "regtype":
        # PostgreSQL makes an OID of it, which each server gives another one.
        del asked["greatest of the key"]

    check_answers(typed_world, name, asked)


@every_kind
def test_temporary_tables_hold_what_the_tables_hold(
    typed_world: Typed, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked = gathered_statements(typed_world.table(name), is_vague=KINDS[name].is_vague)

    monkeypatch.setattr(typed_world.cluster.workspace, "cte_rows_max", 0)

    check_answers(typed_world, name, {key: asked[key] for key in ("window", "ranks", "self-join")})


def check_answers(world: Typed, name: str, asked: Mapping[str, Any]) -> None:
    """Hold the shards' answers against those of one database."""
    expected = {key: answer(world.one, each) for key, each in asked.items()}
    found = {key: answer(world.cluster.engine, each) for key, each in asked.items()}
    if KINDS[name].is_refused:
        found = {key: expected[key] if is_refusal(each) else each for key, each in found.items()}

    assert found == expected


ALIKE = [
    ("integer", "numeric"),
    ("integer", "double"),
    ("smallint", "bigint"),
    ("numeric", "numeric(10, 2)"),
    ("numeric", "real"),
    ("real", "double"),
    ("cents", "numeric"),
    ("text", "varchar(5)"),
    ("text", "char(5)"),
    ("varchar(5)", "char(5)"),
    ("citext", "text"),
    ("code", "text"),
    ("text, C", "name"),
    ("date", "timestamp"),
    ("date", "timestamptz"),
    ("timestamp", "timestamptz"),
    ("inet", "cidr"),
    ("positive", "smallint"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), [*ALIKE, *((b, a) for a, b in ALIKE)])
def test_joins_of_two_types_compare_as_one_database_does(
    typed_world: Typed, one: str, other: str
) -> None:
    left, right = typed_world.table(one), typed_world.table(other)
    pairs = select(left.c.id, right.c.id).join(right, left.c.v == right.c.v)
    asked = {
        "all": pairs,
        "rows of one shard": pairs.where(right.c.id == 1),
        "rows of some shards": pairs.where(left.c.id.in_([0, 1, 4])),
        "in": select(left.c.id).where(
            left.c.v.in_(select(right.c.v).where(right.c.id.in_([0, 3]))), left.c.g == 0
        ),
        "not in": select(left.c.id).where(
            left.c.v.not_in(select(right.c.v).where(right.c.id == 1)), left.c.g == 0
        ),
        "union": select(func.count()).select_from(
            union(select(left.c.v), select(right.c.v)).subquery()
        ),
    }

    expected = {key: answer(typed_world.one, each) for key, each in asked.items()}
    found = {key: answer(typed_world.cluster.engine, each) for key, each in asked.items()}

    assert found == expected


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.is_refused])
def test_values_of_one_server_are_not_shipped(typed_world: Typed, name: str) -> None:
    table = typed_world.table(name)
    ranks = select(table.c.id, func.count().over(), table.c.v)

    with (
        pytest.raises(UnsupportedStatement, match=r"values of type \S+ cannot be shipped"),
        Session(typed_world.cluster.engine) as session,
    ):
        session.execute(ranks)


def test_a_value_beyond_python_does_not_send_a_statement_to_the_workspace_for_ever(
    typed_world: Typed,
) -> None:
    table = typed_world.table("date, beyond Python")
    ordered = select(table.c.id).order_by(table.c.v).limit(3)

    with Session(typed_world.cluster.engine) as session:
        found = session.scalars(ordered).all()

    assert len(found) == 3
    assert typed_world.cluster.explain(ordered).tier is Tier.SCATTER


def test_a_streamed_value_beyond_python_is_an_error_and_no_wrong_answer(
    typed_world: Typed,
) -> None:
    table = typed_world.table("date, beyond Python")
    ordered = select(table.c.id).order_by(table.c.v)

    with (
        Session(typed_world.cluster.engine) as session,
        pytest.raises(DataError, match="date too"),
    ):
        session.execute(ordered, execution_options={"yield_per": 5}).all()
