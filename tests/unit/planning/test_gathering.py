"""What is shipped to the workspace, and what it is refused to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    CHAR,
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    column,
    exists,
    func,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement

from sqlalchemy_shards import reference_table, shard_table
from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.catalog.functions import Doubt
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.planning.gathering import plan_gathering
from sqlalchemy_shards.planning.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy_shards.planning.parts import Gathering

METADATA = MetaData()
A = shard_table(
    Table(
        "a",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer, key="number"),
        Column("code", CHAR(5)),
        Column("s", Text),
    )
)
AWAY = shard_table(
    Table(
        "b",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer),
        schema="away",
    )
)
PAIRS = shard_table(
    Table(
        "pairs",
        METADATA,
        Column("a", Integer, primary_key=True, autoincrement=False),
        Column("b", Integer, primary_key=True, autoincrement=False),
    ),
    key="a",
)
R = reference_table(Table("r", METADATA, Column("name", Text, primary_key=True)))
DERIVED = select(A.c.id, A.c.s).distinct().subquery()
BASES = {
    "id": "integer",
    "a": "integer",
    "b": "integer",
    "n": "integer",
    "code": "character",
    "s": "text",
    "name": "text",
}


def types_of(table: Table) -> Mapping[str, ColumnType]:
    return {
        column.name: ColumnType(f"pg_catalog.{BASES[column.name]}", None, BASES[column.name])
        for column in table.c
    }


def planned(statement: Any, types_of: Any = types_of, depending: Iterable[str] = ()) -> Gathering:
    return plan_gathering(
        statement.compile(dialect=ShardsDialect()),
        types_of=types_of,
        depending=lambda calls: [
            Doubt(name, arity, is_missing=False) for name, arity, _ in calls if name in depending
        ],
    )


def columns_of(gathering: Gathering) -> dict[str, list[str]]:
    return {part.name: list(part.columns) for part in gathering.parts}


class TestWhatIsShipped:
    def test_the_columns_that_the_statement_uses_anywhere(self) -> None:
        statement = (
            select(func.count()).select_from(A).where(A.c.s == "x").group_by(A.c.number).distinct()
        )

        assert columns_of(planned(statement)) == {"a": ["n", "s"]}

    def test_the_key_where_only_rows_are_counted(self) -> None:
        assert columns_of(planned(select(func.count()).select_from(A, R))) == {
            "a": ["id"],
            "r": ["name"],
        }

    def test_one_statement_reads_all_parts_of_a_shard(self) -> None:
        gathering = planned(select(A.c.id, A.c.code, R.c.name).where(A.c.s == R.c.name))

        sql = " ".join(gathering.shipment((0, 1)).compiled.string.split())

        assert sql == (
            "SELECT 0 AS part, CAST(a.id AS TEXT) AS c0, textin(bpcharout(a.code)) AS c1, "
            "CAST(a.s AS TEXT) AS c2 FROM a UNION ALL "
            "SELECT 1 AS part, CAST(r.name AS TEXT) AS c0, NULL AS c1, NULL AS c2 FROM r"
        )

    def test_a_shipment_is_rendered_once(self) -> None:
        gathering = planned(select(A.c.id).distinct())

        assert gathering.shipment((0,)) is gathering.shipment((0,))


class TestTables:
    def test_a_cte_suffices(self) -> None:
        assert not planned(select(A.c.id).distinct()).needs_tables

    def test_a_cte_of_the_statement_with_the_name_of_a_table_hides_it(self) -> None:
        cte = select(R.c.name).cte("a")

        assert planned(select(cte.c.name, A.c.id)).needs_tables

    @pytest.mark.parametrize("grouped", [A, A.alias("other")], ids=["table", "alias"])
    def test_group_by_the_key_shows_other_columns(self, grouped: Any) -> None:
        gathering = planned(select(grouped.c.s, func.count()).group_by(grouped.c.id))

        assert gathering.needs_tables
        assert gathering.parts[0].key == ("id",)
        assert columns_of(gathering) == {"a": ["id", "s"]}

    @pytest.mark.parametrize(
        "by",
        [
            pytest.param("id", id="a name"),
            pytest.param(column("id"), id="a column of no table"),
            pytest.param(func.lower(A.c.s).label("id"), id="a label"),
        ],
    )
    def test_a_name_in_group_by_may_be_that_of_the_key(self, by: Any) -> None:
        hiding = func.lower(A.c.s).label("id")
        gathering = planned(select(hiding, A.c.s, func.count()).group_by(by))

        assert gathering.needs_tables
        assert gathering.parts[0].key == ("id",)

    @pytest.mark.parametrize(
        "statement",
        [
            select(A.c.s, func.count()).group_by(A.c.s),
            select(A.c.s, func.count()).group_by("s"),
            select(A.c.number.label("id"), func.count()).group_by(A.c.number),
            select(A.c.id).where(A.c.number.in_(select(AWAY.c.n).group_by(AWAY.c.n, A.c.id))),
            select(func.count()).select_from(DERIVED).group_by(DERIVED.c.id),
        ],
        ids=["column", "name", "column with a label", "column outside", "derived table"],
    )
    def test_other_groups_need_no_key(self, statement: Any) -> None:
        assert {part.key for part in planned(statement).parts} == {()}

    def test_half_a_key_from_each_of_two_occurrences_is_none(self) -> None:
        one, other = PAIRS.c, PAIRS.alias("other").c
        statement = select(func.count()).where(one.b == other.a)

        assert planned(statement.group_by(one.a, other.b)).parts[0].key == ()
        assert planned(statement.group_by(one.a, one.b)).parts[0].key == ("a", "b")

    def test_a_part_of_the_statement_that_needs_no_schema_stays_as_it_is(self) -> None:
        assert planned(select(A.c.id).distinct()).rewritten is None

    def test_tables_of_schemas_are_named_barely(self) -> None:
        gathering = planned(select(AWAY.c.n, A.c.s).join(A, AWAY.c.n == A.c.number))
        assert gathering.rewritten is not None

        assert "away" not in gathering.rewritten.compiled.string
        assert "FROM away.b" in gathering.shipment((0,)).compiled.string

    def test_the_time_becomes_a_parameter(self) -> None:
        gathering = planned(select(func.now(), A.c.id).distinct())
        assert gathering.rewritten is not None

        assert "now()" not in gathering.rewritten.compiled.string
        assert gathering.rewritten.own == ("shards_now",)


class Own(ColumnElement[int]):
    inherit_cache = False
    type = Integer()

    def __init__(self, sql: str) -> None:
        self.sql = sql


@compiles(Own, "postgresql")
def _written(element: Own, compiler: Any, **_: Any) -> str:
    return element.sql


class TestWhatOthersWrote:
    """The columns that raw text, and constructs of the application's own, may name are shipped."""

    @pytest.mark.parametrize(
        ("statement", "columns"),
        [
            (select(text("s"), A.c.id), ("id", "s")),
            (select(literal_column("lower(A.S)"), A.c.id), ("id", "s")),
            (select(literal_column("'code'"), A.c.id), ("id",)),
            (select(A.c.id).order_by(text("n DESC NULLS LAST")), ("id", "n")),
            (select(A.c.id).order_by(text("a_1.n")), ("id", "n")),
            (select(A.c.id).where(text('"n" > :least')), ("id", "n")),
            (select(A.c.id, A.c.s.op("|| code ||")("x")), ("id", "code", "s")),
            (select(A.c.id + Own("n * 2")), ("id", "n")),
            (select(text("*")).select_from(A), ("id", "n", "code", "s")),
            (select(text("a.*")).select_from(A), ("id", "n", "code", "s")),
            (select(text("row_to_json(a)")).select_from(A), ("id", "n", "code", "s")),
            (select(func.row_to_json(A.table_valued())), ("id", "n", "code", "s")),
            (select(func.count(text("*"))).select_from(A), ("id",)),
            (select(R.c.name).where(exists(text("*")).where(A.c.s == R.c.name)), ("s",)),
        ],
    )
    def test_columns(self, statement: Any, columns: tuple[str, ...]) -> None:
        (part,) = [part for part in planned(statement.distinct()).parts if part.name == "a"]

        assert part.columns == columns

    def test_a_function_in_text_is_asked_about_as_others_are(self) -> None:
        statement = select(text("app.risk(n)")).select_from(A)

        with pytest.raises(Refusal, match=r"app\.risk\(\)"):
            planned(statement, depending=["app.risk"])
        assert planned(statement).parts

    @pytest.mark.parametrize(
        "condition", [A.c.s.match("x"), A.c.s.op("@@")(A.c.code), text("a.s @@ 'x'")]
    )
    def test_a_search_makes_words_as_the_database_is_set(self, condition: Any) -> None:
        statement = select(A.c.id).where(condition).distinct()

        with pytest.raises(Refusal, match=r"to_tsvector\(\)"):
            planned(statement, depending=["to_tsvector"])

    def test_words_that_are_there_are_searched_anywhere(self) -> None:
        words = type_coerce(A.c.s, TSVECTOR)

        assert planned(
            select(A.c.id).where(words.op("@@")(A.c.code)).distinct(), depending=["to_tsvector"]
        ).parts

    def test_grouping_by_text_may_be_by_the_primary_key(self) -> None:
        statement = select(A.c.s, func.count()).group_by(text("id"))

        gathering = planned(statement)

        assert gathering.parts[0].key == ("id",)
        assert gathering.needs_tables

    def test_whole_rows_of_a_table_that_the_model_knows_in_part(self) -> None:
        def more(table: Table) -> Mapping[str, ColumnType]:
            return {**types_of(table), "extra": ColumnType("pg_catalog.text", None, "text")}

        with pytest.raises(Refusal, match="does not have the column 'extra'"):
            planned(select(text("*")).select_from(A), types_of=more)


def same_name() -> Any:
    """A second table `a`, in a schema."""
    return shard_table(
        Table(
            "a",
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            schema="away",
        )
    )


class TestRefusals:
    @pytest.mark.parametrize(
        ("statement", "reason"),
        [
            (select(A.c.id).with_for_update(), "FOR UPDATE"),
            (select(text("n::regclass"), A.c.id).distinct(), "raw SQL text"),
            (select(text("a.b.c"), A.c.id).distinct(), "raw SQL text"),
            (select(text(r"E'\x41' || s"), A.c.id).distinct(), "raw SQL text"),
            (select(literal_column("now()"), A.c.id).distinct(), "asks for the time"),
            (select(literal_column("current_date"), A.c.id).distinct(), "asks for the time"),
            (select(literal_column("'today'::date"), A.c.id).distinct(), "asks for the time"),
            (select(text("ctid"), A.c.id).distinct(), "a system column"),
            (select(A.tablesample(5).c.id).distinct(), "TABLESAMPLE"),
            (select(A.c.id, same_name().c.id), "differ in their schema only"),
            (select(A.c.id).where(Own("(SELECT 1)") == A.c.id).distinct(), "a Own"),
            (select(A.c.id).where(Own("/* 1") == A.c.id).distinct(), "a Own"),
            (select(A.c.id).where(Own("localtime") == A.c.id).distinct(), "asks for the time"),
        ],
    )
    def test_what_the_workspace_would_not_do_as_the_shards_do(
        self, statement: Any, reason: str
    ) -> None:
        with pytest.raises(Refusal, match=reason):
            planned(statement)

    def test_a_function_that_depends_on_where_it_runs(self) -> None:
        statement = select(func.risk(A.c.id)).distinct()

        with pytest.raises(Refusal, match=r"risk\(\)"):
            planned(statement, depending=["risk"])
        assert planned(statement).parts

    def test_a_column_that_the_shards_do_not_have(self) -> None:
        with pytest.raises(Refusal, match=r"no column a\.id"):
            planned(select(A.c.id).distinct(), types_of=lambda _table: {})

    @pytest.mark.parametrize("base", ["money", "oid", "xid[]"])
    def test_values_that_mean_something_else_on_another_server(self, base: str) -> None:
        def types_of(_table: Table) -> Mapping[str, ColumnType]:
            return {"id": ColumnType("pg_catalog.x", None, base)}

        with pytest.raises(Refusal, match="cannot be shipped"):
            planned(select(A.c.id).distinct(), types_of=types_of)

    def test_a_schema_translate_map(self) -> None:
        compiled = (
            select(A.c.id)
            .distinct()
            .compile(dialect=ShardsDialect(), schema_translate_map={None: "x"})
        )

        with pytest.raises(Refusal, match="schema_translate_map"):
            plan_gathering(compiled, types_of=types_of, depending=lambda _names: [])
