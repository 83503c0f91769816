"""Plans for several shards, and the statements that shards run in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Float,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    bindparam,
    collate,
    delete,
    distinct,
    func,
    insert,
    literal,
    literal_column,
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
    GroupedMerge,
    GroupKey,
    OrderedMerge,
    SortKey,
    SumOfCounts,
    Window,
)
from sqlalchemy_shards.planning.planner import prepare
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.planning.rewriting import ROWS_MAX, rows_needed
from sqlalchemy_shards.routing.analysis import analyse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy_shards.planning.draft import Prepared
    from sqlalchemy_shards.routing.calls import Call

METADATA = MetaData()
T = shard_table(
    Table(
        "t",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer),
        Column("name", Text),
        Column("other", Text),
        Column("price", Numeric(10, 2)),
        Column("ratio", Float),
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
        text_type = ColumnType("pg_catalog.text", None, "text", is_deterministic=True)
        return text_type if is_text else None

    def orders_by_code_point(self, expression: Any) -> bool:
        return expression is T.c.name

    def columns_of(self, table: Table) -> dict[str, ColumnType]:
        return dict.fromkeys([*table.c.keys(), "unmapped"], ColumnType("x", None, "x"))

    def row_wise(self, calls: Iterable[Call]) -> set[str]:
        return {call.name for call in calls} & {"to_char", "random"}


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


def test_aggregates_have_a_filter_a_limit_and_what_is_the_same_beside_them() -> None:
    plan = prepared(
        select(func.bool_or(T.c.n > 1).filter(T.c.id > 3), literal("x"))
        .order_by(func.count())
        .limit(1)
    )

    assert isinstance(plan.scatter.merge, AggregateRow)
    assert plan.scatter.merge.functions == (Aggregate.BOOL_OR, Aggregate.ANY_VALUE)
    assert plan.scatter.merge.window.limit is not None
    assert "LIMIT" not in sql_of(plan)
    assert "ORDER BY" not in sql_of(plan)


NAME, NUMBER = GroupKey(is_exact_text=True), GroupKey()


@pytest.mark.parametrize(
    ("statement", "columns", "visible"),
    [
        (select(T.c.n, func.count()).group_by(T.c.n), (NUMBER, Aggregate.COUNT), 2),
        (select(func.count()).select_from(T).group_by(T.c.n), (Aggregate.COUNT, NUMBER), 1),
        (
            select(T.c.n).group_by(T.c.n).order_by(func.sum(T.c.id)),
            (NUMBER, Aggregate.SUM),
            1,
        ),
        (select(T.c.name).distinct(), (NAME,), 1),
        (select(T.c.n, T.c.n).distinct(), (NUMBER, NUMBER), 2),
        (select((T.c.n % 2).label("h")).group_by("h"), (NUMBER,), 1),
        (select(func.lower(T.c.name)).distinct(), (NAME,), 1),
        (select(func.sum(T.c.price), T.c.n).group_by(T.c.n), (Aggregate.SUM, NUMBER), 2),
        (
            select(R.c.n, func.every(T.c.n > 1)).join(T, T.c.n == R.c.id).group_by(R.c.id),
            (Aggregate.ANY_VALUE, Aggregate.EVERY, NUMBER),
            2,
        ),
    ],
    ids=range(9),
)
def test_groups_are_made_one_by_their_keys(statement: Any, columns: Any, visible: int) -> None:
    merge = prepared(statement).scatter.merge

    assert isinstance(merge, GroupedMerge)
    assert merge.columns == columns
    assert merge.visible == visible


def test_no_text_is_told_apart_under_another_schema() -> None:
    with pytest.raises(Refusal, match="are equal"):
        prepared(select(T.c.name).distinct(), schema_translate_map={None: "other"})


def test_two_aliases_of_a_table_are_two() -> None:
    one, other = T.alias(), T.alias()
    statement = select(one.c.n, other.c.n, func.count()).join_from(
        one, other, one.c.id == other.c.id
    )
    merge = prepared(statement.group_by(one.c.n, other.c.n).order_by(other.c.n)).scatter.merge

    assert isinstance(merge, GroupedMerge)
    assert [key.column for key in merge.order] == [1]


def test_parameters_that_happen_to_be_equal_are_two() -> None:
    keys = [T.c.n + bindparam("one", 1), T.c.n + bindparam("two", 1)]
    merge = prepared(select(*keys).group_by(*keys).order_by(keys[1])).scatter.merge

    assert isinstance(merge, GroupedMerge)
    assert [key.column for key in merge.order] == [1]


def test_the_limit_waits_until_groups_are_whole() -> None:
    counted = prepared(select(T.c.n, func.count()).group_by(T.c.n).order_by(T.c.n).limit(2))
    distinct_rows = prepared(select(T.c.n).distinct().order_by(T.c.n).limit(2))

    assert "LIMIT" not in sql_of(counted)
    assert sql_of(distinct_rows).endswith("ORDER BY t.n LIMIT %(shards_limit_1)s::BIGINT")


def test_groups_of_one_key_each_run_as_they_are() -> None:
    plan = prepared(
        select(T.c.id, func.avg(T.c.n)).group_by(T.c.id).having(func.count(T.c.n.distinct()) > 1)
    )

    assert plan.scatter.merge == Concatenate()
    assert plan.rewritten is None


def test_distinct_rows_are_sorted_by_what_they_show() -> None:
    merge = prepared(select(T.c.n, T.c.id).distinct().order_by(T.c.id)).scatter.merge

    assert merge == OrderedMerge((SortKey(1, False, False, False),), visible=2)


def test_counts_of_changed_rows_add_up_and_copies_are_one() -> None:
    assert prepared(update(T).values(n=1)).scatter.merge == SumOfCounts()
    assert prepared(update(R).values(n=1)).scatter.merge == FirstCopy()


def test_a_row_without_copies_may_be_given_what_functions_make_of_it() -> None:
    drawn = update(T).values(n=func.random()).where(func.to_char(T.c.n, "9") == "1")
    returned = delete(T).returning(func.to_char(T.c.n, "9"))

    assert prepared(drawn).scatter.merge == SumOfCounts()
    assert prepared(returned).scatter.merge == SumOfCounts()


def test_text_is_not_known_to_be_in_byte_order_under_another_schema() -> None:
    statement = select(T.c.n).order_by(T.c.name)

    with pytest.raises(Refusal, match="known to PostgreSQL alone"):
        prepared(statement, schema_translate_map={None: "other"})


REFUSED = [
    (select(T.c.n).group_by(T.c.n).distinct(), "DISTINCT"),
    (select(T.c.n).distinct().order_by(T.c.id), "DISTINCT"),
    (select(T.c.id).distinct().order_by(T.c.n), "DISTINCT"),
    (select(T.c.n).group_by(T.c.n).having(func.count() > 1), "HAVING"),
    (select(func.count(T.c.n)).having(func.count(T.c.n) > 1), "HAVING"),
    (select(T.c.n).order_by(T.c.id).fetch(3, with_ties=True), "FETCH"),
    (select(T.c.n).order_by(T.c.id).fetch(3, percent=True), "FETCH"),
    (select(T.c.n).limit(3).with_for_update(), "FOR UPDATE"),
    (select(T.c.n).prefix_with("ALL"), "raw SQL text"),
    (select(func.avg(T.c.n)), "avg()"),
    (select(func.count(distinct(T.c.n))), "count()"),
    (select(func.count(T.c.n), func.avg(T.c.n)), "avg()"),
    (select(T.c.n, func.avg(T.c.id)).group_by(T.c.n), "neither a key"),
    (select(T.c.n, func.count() + 1).group_by(T.c.n), "neither a key"),
    (select(T.c.n, func.count(T.c.id.distinct())).group_by(T.c.n), "neither a key"),
    (select(T.c.n, func.max(T.c.name)).group_by(T.c.n), "max()"),
    (select(T.c.n).group_by(T.c.n).order_by(func.avg(T.c.id)), "neither a key"),
    (select(func.count(T.c.n)).group_by(func.rollup(T.c.n)), "rollup()"),
    (select(func.count(T.c.n)).group_by(literal_column("1")), "not a column"),
    (select(func.count(T.c.n)).group_by(T.c.price), "are equal"),
    (select(func.count(T.c.n)).group_by(collate(T.c.name, "any")), "are equal"),
    (select(T.c.n.label("name"), func.count()).group_by("name"), "'name'"),
    (select(T.c.n.label("unmapped"), func.count()).group_by("unmapped"), "'unmapped'"),
    (select(T.c.other, func.count()).group_by(T.c.other).order_by(T.c.other), "its text"),
    (select(T.c.n, func.sum(T.c.ratio)).group_by(T.c.n), "sum()"),
    (select(T.c.n, func.count().filter(func.random() > 0.5)).group_by(T.c.n), "random()"),
    (select(T.c.id, func.sum(func.random())).group_by(T.c.id), "random()"),
    (select(T.c.n, select(R.c.n).scalar_subquery()).group_by(T.c.n), "neither a key"),
    (select(func.row_number().over()).select_from(T), "window"),
    (select(T.c.n).order_by(func.row_number().over().label("x")), "window"),
    (select(T.c.n).where(T.c.n > func.random()), "random()"),
    (
        select(T.c.n).select_from(
            T.join(R.join(R.alias("s"), R.c.n > func.random()), T.c.n == R.c.id)
        ),
        "random()",
    ),
    (select(T.c.n).order_by(text("1")), "ORDER BY"),
    (select(T.c.n).order_by(R.c.n), "FROM list"),
    (select(T.c.n).limit(func.abs(3)), "LIMIT"),
    (update(T).values(n=func.pg_backend_pid()), "pg_backend_pid()"),
    (update(T).values(n=func.other.random() + func.random()), "random()"),
    (update(T).values(n=select(func.random()).scalar_subquery()), "random()"),
    (update(T).values(n=R.c.n).where(T.c.id == R.c.id, func.random() > 0.5), "random()"),
    (update(R).values(n=func.to_char(R.c.n, "9")), "to_char()"),
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
