"""Plans for several shards, and the statements that shards run in their place."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    distinct,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.elements import ColumnClause

from sqlalchemy_shards import reference_table, shard_table
from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.plan import (
    Aggregate,
    AggregateRow,
    Concatenate,
    FirstCopy,
    OrderedMerge,
    SortKey,
    SumOfCounts,
    Window,
)
from sqlalchemy_shards.planning.planner import Prepared, prepare
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.planning.rewriting import ROWS_MAX, rows_needed
from sqlalchemy_shards.routing.analysis import analyse

METADATA = MetaData()
T = shard_table(
    Table(
        "t",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer),
        Column("name", Text),
    )
)
R = reference_table(
    Table(
        "r",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer),
    )
)


class Facts:
    def type_of(self, expression: Any) -> ColumnType | None:
        is_text = isinstance(expression, ColumnClause) and isinstance(expression.type, String)
        return ColumnType("pg_catalog.text", None, "text") if is_text else None

    def orders_by_code_point(self, expression: Any) -> bool:
        return expression is T.c.name


def prepared(statement: Any, **keywords: Any) -> Prepared:
    dialect = ShardsDialect()
    compiled = statement.compile(dialect=dialect, **keywords)
    sources = analyse(
        compiled, dialect, undeclared_is_global=False, rendered=compiled.rendered_tables
    )
    return prepare(sources, compiled, Facts())


def sql_of(plan: Prepared) -> str:
    assert plan.rewritten is not None
    return " ".join(plan.rewritten.sql.split())


def test_rows_without_order_are_concatenated_as_they_are() -> None:
    plan = prepared(select(T.c.n))

    assert plan.scatter.merge == Concatenate()
    assert plan.rewritten is None


def test_sort_keys_are_added_behind_the_columns() -> None:
    plan = prepared(select(T.c.n).order_by(T.c.name.desc(), T.c.id))

    assert plan.scatter.merge == OrderedMerge(
        (SortKey(1, True, True, True), SortKey(2, False, False, False)), visible=1
    )
    assert sql_of(plan) == (
        "SELECT t.n, t.name AS shards_sort_0, t.id AS shards_sort_1 FROM t "
        "ORDER BY t.name DESC, t.id"
    )


def test_the_limit_is_pushed_down_and_the_offset_is_not() -> None:
    plan = prepared(select(T.c.n).limit(5).offset(3))

    assert sql_of(plan) == "SELECT t.n FROM t LIMIT %(shards_limit_1)s::BIGINT"
    assert isinstance(plan.scatter.merge, Concatenate)
    assert None not in (plan.scatter.merge.window.limit, plan.scatter.merge.window.offset)


def test_aggregates_are_put_together() -> None:
    plan = prepared(
        select(func.count(), func.sum(T.c.n).label("s"), func.max(T.c.n)).select_from(T)
    )

    assert plan.scatter.merge == AggregateRow((Aggregate.COUNT, Aggregate.SUM, Aggregate.MAX))


def test_counts_of_changed_rows_add_up_and_copies_are_one() -> None:
    assert prepared(update(T).values(n=1)).scatter.merge == SumOfCounts()
    assert prepared(update(R).values(n=1)).scatter.merge == FirstCopy()


def test_text_is_not_known_to_be_in_byte_order_under_another_schema() -> None:
    statement = select(T.c.n).order_by(T.c.name)

    with pytest.raises(Refusal, match="known to PostgreSQL alone"):
        prepared(statement, schema_translate_map={None: "other"})


REFUSED = [
    (select(T.c.n).distinct(), "DISTINCT"),
    (select(T.c.n).group_by(T.c.n), "GROUP BY"),
    (select(func.count(T.c.n)).having(func.count(T.c.n) > 1), "HAVING"),
    (select(T.c.n).order_by(T.c.id).fetch(3), "FETCH"),
    (select(T.c.n).limit(3).with_for_update(), "FOR UPDATE"),
    (select(T.c.n).prefix_with("ALL"), "raw SQL text"),
    (select(func.avg(T.c.n)), "avg()"),
    (select(func.count(distinct(T.c.n))), "count()"),
    (select(func.count(T.c.n), T.c.n), "count()"),
    (select(func.count(T.c.n)).limit(1), "LIMIT"),
    (select(func.count(T.c.n)).order_by(func.count(T.c.n)), "ORDER BY"),
    (select(func.sum(T.c.n).filter(T.c.n > 1)), "FILTER"),
    (select(func.row_number().over()).select_from(T), "window"),
    (select(T.c.n).order_by(func.row_number().over().label("x")), "window"),
    (select(T.c.n).where(T.c.n > func.random()), "random()"),
    (select(T.c.n).order_by(text("1")), "ORDER BY"),
    (select(T.c.n).order_by(R.c.n), "FROM list"),
    (select(T.c.n).limit(func.abs(3)), "LIMIT"),
    (
        select(T.c.n).where(T.c.n == bindparam("x", 1, literal_execute=True)).order_by(T.c.n),
        "rendered",
    ),
    (update(T).values(n=func.random()), "random()"),
    (update(R).values(n=func.random()), "random()"),
    (update(R).values(n=text("random()")), "text"),
    (update(R).values(n=select(T.c.n).where(T.c.id == 1).scalar_subquery()), "reference table"),
    (insert(R).values([{"id": 1, "n": 1}, {"id": 2, "n": func.random()}]), "random()"),
    (insert(R).from_select(["id"], select(R.c.id + 10).limit(1)), "any order"),
    (insert(R).from_select(["id"], select(T.c.id)), "reference table"),
    (
        upsert(R)
        .values(id=1)
        .on_conflict_do_update(index_elements=["id"], set_={"n": func.random()}),
        "random()",
    ),
    (update(R).values(n=R.alias("other").c.n), "one of several rows"),
    (select(T.c.n, select(literal(1)).where(func.now() > func.now()).scalar_subquery()), "now()"),
]


@pytest.mark.parametrize(("statement", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_what_shards_cannot_answer_is_refused_with_the_reason(statement: Any, reason: str) -> None:
    with pytest.raises(Refusal) as refusal:
        prepared(statement)

    assert reason in refusal.value.reason


@pytest.mark.skipif(not hasattr(postgresql, "distinct_on"), reason="SQLAlchemy 2.1")
def test_clauses_of_syntax_extensions_are_refused() -> None:
    statement: Any = select(T.c.n).ext(postgresql.distinct_on(T.c.n))

    with pytest.raises(Refusal):
        prepared(statement)
    with pytest.raises(Refusal):
        prepared(select(statement.subquery()))


class TestRowsNeeded:
    @pytest.mark.parametrize(
        ("limit", "offset", "needed"),
        [
            (5, 3, 8),
            (0, 3, 3),
            (5, None, 5),
            (None, 3, None),
            (None, None, None),
            (ROWS_MAX, 5, ROWS_MAX),
        ],
    )
    def test_limit_and_offset_together(
        self, limit: int | None, offset: int | None, needed: int | None
    ) -> None:
        assert rows_needed(Window("l", "o"), {"l": limit, "o": offset}) == needed

    def test_without_limit_all_rows_are_needed(self) -> None:
        assert rows_needed(Window(None, "o"), {"o": 3}) is None

    @pytest.mark.parametrize("value", [-1, 2.5, 2.0, "3", True, ROWS_MAX + 1])
    @pytest.mark.parametrize("name", ["l", "o"])
    def test_what_is_no_number_of_rows_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(UnsupportedStatement):
            rows_needed(Window("l", "o"), {"l": 1, "o": 1, name: value})
