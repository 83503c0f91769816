"""What the analysis finds in statements, without any server."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    table,
    text,
    true,
    union,
    union_all,
    update,
)
from sqlalchemy import column as plain_column
from sqlalchemy.dialects.postgresql import insert as upsert

from sqlalchemy_shards import global_table, reference_table, shard_table
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.routing.analysis import analyse
from sqlalchemy_shards.routing.conditions import (
    ANYWHERE,
    AllOf,
    AnyOf,
    Implied,
    KeyCondition,
    PartEquals,
    PartIn,
)
from sqlalchemy_shards.routing.sources import StatementKind, StatementSources

METADATA = MetaData()


def integer(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, Integer, primary_key=key, autoincrement=False, nullable=False)


def sharded(name: str, *keys: str, keyspace: str = "default") -> Table:
    columns = [integer(each, key=True) for each in (*keys, "id") if each not in keys[1:]]
    columns += [integer(each, key=True) for each in keys[1:]]
    made = Table(name, METADATA, *columns, Column("value", Integer))
    return shard_table(made, key=keys if len(keys) > 1 else keys[0], keyspace=keyspace)


A = sharded("a", "k")
B = sharded("b", "k")
C = sharded("c", "k")
OTHER = sharded("other", "k", keyspace="other")
PAIR = sharded("pair", "k", "m")
MATE = sharded("mate", "k", "m")
TIMES = shard_table(
    Table(
        "times",
        METADATA,
        Column("at", DateTime, primary_key=True),
        Column("n", Integer),
    ),
    key="at",
)
NUMBERS = shard_table(
    Table(
        "numbers",
        METADATA,
        Column("k", Numeric, primary_key=True, autoincrement=False),
        Column("n", Text),
    ),
    key="k",
)
REFERENCE = reference_table(
    Table("reference", METADATA, integer("id", key=True), Column("name", Text))
)
GLOBAL = global_table(Table("world", METADATA, integer("id", key=True), Column("name", Text)))
HIGHEST = select(func.max(B.c.value)).scalar_subquery()
READING = shard_table(
    Table(
        "reading",
        METADATA,
        integer("k", key=True),
        Column("first", Integer, default=HIGHEST),
        Column("last", Integer, onupdate=func.abs(HIGHEST)),
        Column("seen", Integer),
    ),
    key="k",
)
UNDECLARED = Table("undeclared", METADATA, integer("id", key=True))


def sources_of(statement: Any) -> StatementSources:
    dialect = ShardsDialect()
    compiled = statement.compile(dialect=dialect)
    return analyse(compiled, dialect, undeclared_is_global=False, rendered=compiled.rendered_tables)


def spoken(condition: KeyCondition) -> Any:
    """A condition without the names of its parameters."""
    match condition:
        case PartEquals(part, _):
            return f"{part}="
        case PartIn(part, _):
            return f"{part} in"
        case AllOf(conditions):
            return {"and": sorted(map(str, map(spoken, conditions)))}
        case AnyOf(conditions):
            return {"or": sorted(map(str, map(spoken, conditions)))}
        case Implied(condition):
            return spoken(condition)
        case _:
            return "anywhere"


def roots_of(statement: Any) -> list[tuple[str, Any]]:
    return [(root.name, spoken(root.condition)) for root in sources_of(statement).roots]


COUNTED = select(B.c.k, func.count().label("n")).group_by(B.c.k)
ON, VALUE = A.c.k == B.c.k, A.c.value == B.c.value
PAIRS = and_(PAIR.c.k == MATE.c.k, PAIR.c.m == MATE.c.m)
ALIAS = A.alias("again")


class TestConditions:
    @pytest.mark.parametrize(
        ("clause", "expected"),
        [
            (A.c.k == 5, "0="),
            (literal(5) == A.c.k, "0="),
            (A.c.k.in_([1, 2]), "0 in"),
            (and_(A.c.k == 5, A.c.value == 1), "0="),
            (or_(A.c.k == 5, A.c.k == 6), {"or": ["0=", "0="]}),
            (or_(A.c.k == 5, A.c.value == 6), "anywhere"),
            (and_(or_(A.c.k == 5, A.c.k.in_([1])), true()), {"or": ["0 in", "0="]}),
            (~(A.c.k == 5), "anywhere"),
            (~or_(A.c.k == 5, A.c.k == 6), "anywhere"),
            (A.c.k.not_in([1]), "anywhere"),
            (A.c.k > 5, "anywhere"),
            (A.c.k + 0 == 5, "anywhere"),
            (func.abs(A.c.k) == 5, "anywhere"),
            (A.c.k == A.c.value, "anywhere"),
            (A.c.k == bindparam("x", type_=Text), "anywhere"),
            (A.c.k.is_not_distinct_from(5), "0="),
            ((A.c.k == 5).is_not(True), "anywhere"),
            (A.c.k.in_(select(REFERENCE.c.id)), "anywhere"),
            (exists().where(REFERENCE.c.id == A.c.value, A.c.k == 5), "0="),
        ],
        ids=str,
    )
    def test_what_a_where_clause_says_of_the_key(self, clause: Any, expected: Any) -> None:
        assert roots_of(select(A.c.id).where(clause)) == [("a", expected)]

    def test_a_time_with_a_zone_says_nothing_of_one_without(self) -> None:
        clause = TIMES.c.at == bindparam("x", type_=DateTime(timezone=True))

        assert roots_of(select(TIMES).where(clause)) == [("times", "anywhere")]

    def test_both_parts_of_a_key(self) -> None:
        statement = select(PAIR).where(PAIR.c.k == 1, PAIR.c.m.in_([2]))

        assert roots_of(statement) == [("pair", {"and": ["0=", "1 in"]})]

    def test_a_condition_goes_through_an_alias(self) -> None:
        assert roots_of(select(ALIAS.c.id).where(ALIAS.c.k == 1)) == [("a AS again", "0=")]

    def test_a_condition_on_another_occurrence_is_not_its_own(self) -> None:
        statement = select(A.c.id, ALIAS.c.id).where(ALIAS.c.k == 1)

        assert roots_of(statement) == [("a", "anywhere"), ("a AS again", "0=")]


class TestJoins:
    @pytest.mark.parametrize(
        "statement",
        [
            select(A, B).join(B, ON),
            select(A, B).where(ON),
            select(A, B).select_from(A.outerjoin(B, ON)),
            select(A, B).select_from(A.outerjoin(B, and_(ON, B.c.k == 5))),
            select(A, ALIAS).where(A.c.k == ALIAS.c.k),
            select(A, B, C).join(B, ON).join(C, B.c.k == C.c.k),
            select(A, B, C).select_from(A.outerjoin(B.join(C, B.c.k == C.c.k), ON)),
            select(A, REFERENCE),
            select(A).select_from(A.outerjoin(REFERENCE, A.c.value == REFERENCE.c.id)),
            select(PAIR, MATE).join(MATE, PAIRS),
            select(PAIR, MATE).join(MATE, PAIR.c.k == MATE.c.k).where(PAIR.c.m == MATE.c.m),
        ],
        ids=range(11),
    )
    def test_rows_that_lie_beside_each_other_add_up(self, statement: Any) -> None:
        sources = sources_of(statement)

        assert sources.obstacle is None
        assert len(sources.roots) == 1

    @pytest.mark.parametrize(
        "statement",
        [
            select(A, B),
            select(A, B).where(VALUE),
            select(A, B).where(or_(ON, VALUE)),
            select(A, B).where(A.c.k == B.c.id),
            select(A, B).select_from(A.outerjoin(B, VALUE)),
            select(A, B).select_from(A.outerjoin(B, B.c.k == 5)),
            select(A, B).select_from(A.join(B, ON, full=True)),
            select(A, B, C).select_from(A.outerjoin(B, ON).outerjoin(C, C.c.value == B.c.value)),
            select(A, OTHER).where(A.c.k == OTHER.c.k),
            select(PAIR, MATE).join(MATE, PAIR.c.k == MATE.c.k),
            select(PAIR, MATE).where(PAIR.c.k == MATE.c.m, PAIR.c.m == MATE.c.k),
            select(PAIR, MATE).where(or_(PAIR.c.k == MATE.c.k, PAIR.c.m == MATE.c.m)),
            select(A).select_from(REFERENCE.outerjoin(A, A.c.value == REFERENCE.c.id)),
            select(A).select_from(A.join(REFERENCE, A.c.value == REFERENCE.c.id, full=True)),
            select(A, GLOBAL).where(A.c.k == GLOBAL.c.id),
            select(A).join(REFERENCE, func.random() > 0.5),
        ],
        ids=range(16),
    )
    def test_rows_of_several_shards_that_meet_do_not(self, statement: Any) -> None:
        assert sources_of(statement).obstacle is not None

    def test_a_condition_reaches_the_other_side_of_an_inner_join(self) -> None:
        assert roots_of(select(A, B).where(ON, B.c.k == 5)) == [("a", "0=")]

    def test_a_condition_that_no_filled_row_meets_makes_an_outer_join_an_inner_one(self) -> None:
        joined = select(A, B).select_from(A.outerjoin(B, ON))

        assert roots_of(joined.where(B.c.k == 5)) == [("a", "0=")]
        assert roots_of(joined.where(or_(B.c.k == 5, B.c.k.is_(None)))) == [("a", "anywhere")]
        assert roots_of(joined.where(or_(B.c.k == 5, A.c.value == 1))) == [("a", "anywhere")]

    def test_a_condition_in_on_does_not_restrict_the_outer_side(self) -> None:
        statement = select(A, B).select_from(A.outerjoin(B, and_(ON, A.c.k == 5)))

        assert roots_of(statement) == [("a", "anywhere")]

    def test_a_condition_on_the_outer_side_restricts_both(self) -> None:
        statement = select(A, B).select_from(A.outerjoin(B, ON)).where(A.c.k == 5)

        assert roots_of(statement) == [("a", "0=")]


def of(query: Any) -> Any:
    return select(query.subquery())


class TestSubqueries:
    @pytest.mark.parametrize(
        "statement",
        [
            select(A).where(exists().where(ON)),
            select(A).where(~exists().where(ON)),
            select(A).where(exists().where(ON, B.c.k == 5)),
            select(A, select(func.count(B.c.id)).where(ON).scalar_subquery()),
            select(A, func.coalesce(select(B.c.id).where(ON).limit(1).scalar_subquery(), 0)),
            select(A).where(A.c.value.in_(select(REFERENCE.c.id))),
            select(A, select(func.max(REFERENCE.c.id)).scalar_subquery()),
            of(select(A).where(A.c.value > 1)),
            of(select(A, B.c.value.label("v")).join(B, ON)),
            (lambda t: select(t, B).join(B, t.c.k == B.c.k))(select(A).subquery()),
            select(A).where(A.c.k.in_(select(B.c.k))),
            select(A).where(A.c.k.not_in(select(B.c.k).where(B.c.value == 1))),
            select(select(A).cte()),
            select(A, select(B.c.id).where(ON).limit(1).lateral()),
            (lambda t: select(A, t.c.n).join(t, t.c.k == A.c.k))(COUNTED.subquery()),
            of(COUNTED),
            of(select(A.c.k, A.c.value).distinct()),
        ],
        ids=range(17),
    )
    def test_what_stays_on_the_shard_of_its_row_adds_up(self, statement: Any) -> None:
        assert sources_of(statement).obstacle is None

    @pytest.mark.parametrize(
        "statement",
        [
            select(A).where(exists().where(VALUE)),
            select(A).where(exists(select(B.c.id))),
            select(A).where(A.c.k.in_(select(B.c.k).limit(1))),
            select(A).where(A.c.value.in_(select(B.c.k))),
            select(A, select(func.count(B.c.id)).scalar_subquery()),
            select(REFERENCE).where(exists().where(A.c.value == REFERENCE.c.id)),
            select(exists().where(A.c.value == 1)),
            of(select(A).limit(3)),
            of(select(A).offset(3)),
            of(select(A.c.value).distinct()),
            of(select(A.c.value, func.count()).group_by(A.c.value)),
            of(select(func.count(A.c.id))),
            of(select(A.c.id, func.row_number().over().label("n"))),
            of(union(select(A.c.id), select(B.c.id))),
            (lambda t: select(t, t.alias()))(select(A).cte()),
            select(A, select(B.c.id).where(VALUE).limit(1).lateral()),
            select(A, select(REFERENCE.c.id).limit(1).scalar_subquery()),
            select(A, select(func.array_agg(REFERENCE.c.id)).scalar_subquery()),
            select(A, select(func.now()).scalar_subquery()),
            select(A, select(func.now().label("n")).subquery()),
            select(A).where(text("value = 1")),
            select(A, func.generate_series(1, 2).table_valued("g")),
            select(A.tablesample(10)),
        ],
        ids=range(23),
    )
    def test_what_needs_rows_of_all_shards_does_not(self, statement: Any) -> None:
        assert sources_of(statement).obstacle is not None

    def test_an_outer_key_reaches_a_correlated_subquery(self) -> None:
        statement = select(A).where(A.c.k == 5, exists().where(ON))

        assert roots_of(statement) == [("a", "0=")]

    def test_an_inner_key_does_not_restrict_the_outer_query(self) -> None:
        statement = select(A).where(~exists().where(ON, B.c.k == 5))

        assert roots_of(statement) == [("a", "anywhere")]

    def test_an_outer_key_inside_a_subquery_restricts_nothing(self) -> None:
        statement = select(A).where(~exists().where(ON, A.c.k == 5))

        assert roots_of(statement) == [("a", "anywhere")]

    def test_a_condition_outside_reaches_a_filtered_subquery(self) -> None:
        inner = select(A).where(A.c.value > 1).subquery()

        assert roots_of(select(inner).where(inner.c.k == 5)) == [("a", "0=")]

    def test_a_condition_outside_does_not_reach_through_a_limit(self) -> None:
        inner = select(A).limit(3).subquery()

        assert roots_of(select(inner).where(inner.c.k == 5)) == [("a", "anywhere")]

    def test_a_condition_outside_does_not_reach_through_a_computed_column(self) -> None:
        inner = select((A.c.k + 1).label("k")).subquery()

        assert roots_of(select(inner).where(inner.c.k == 5)) == [("a", "anywhere")]

    def test_a_condition_reaches_the_table_behind_a_swapped_column(self) -> None:
        inner = select(A.c.value.label("k"), A.c.k.label("value")).subquery()

        assert roots_of(select(inner).where(inner.c.k == 5)) == [("a", "anywhere")]
        assert roots_of(select(inner).where(inner.c.value == 5)) == [("a", "0=")]

    def test_every_part_of_a_union_counts(self) -> None:
        statement = union_all(
            select(A.c.id).where(A.c.k == 5), select(B.c.id).where(B.c.k.in_([5, 6]))
        )

        assert roots_of(statement) == [("a", "0="), ("b", "0 in")]


class TestUnreadable:
    @pytest.mark.parametrize(
        "statement",
        [
            select(A).where(A.c.k == 5, text("EXISTS (SELECT 1 FROM b)")),
            select(A, text("(SELECT 1)")).where(A.c.k == 5),
            select(plain_column("id")).select_from(text("a")),
            select(table("a", plain_column("id"))),
            select(A).where(
                A.c.k == 5, exists(select(B.c.id).where(B.c.k == 5).suffix_with("UNION SELECT 1"))
            ),
            select(insert(A).values(k=1, id=1).returning(A.c.id).cte()),
            text("SELECT 1").columns(A.c.id).subquery().select(),
        ],
        ids=range(7),
    )
    def test_raw_sql_that_may_read_is_not_guessed_at(self, statement: Any) -> None:
        assert sources_of(statement).unreadable is not None

    def test_a_default_that_reads_is_named(self) -> None:
        told = [
            sources_of(statement).unreadable
            for statement in (insert(READING).values(k=5), update(READING).values(seen=None))
        ]

        assert told == [
            "the default= of column reading.first is a subquery",
            "the onupdate= of column reading.last is a subquery",
        ]

    def test_an_undeclared_table_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="undeclared"):
            sources_of(select(UNDECLARED))


class TestWrites:
    def test_an_update_by_key(self) -> None:
        sources = sources_of(update(A).values(value=1).where(A.c.k == 5))

        assert sources.kind is StatementKind.UPDATE
        assert [spoken(root.condition) for root in sources.roots] == ["0="]

    @pytest.mark.parametrize(
        "statement",
        [
            update(A).values(value=B.c.value).where(ON),
            update(A).values(value=REFERENCE.c.id).where(A.c.value == REFERENCE.c.id),
            delete(A).where(ON),
            delete(A).where(exists().where(ON)),
            update(A).values(value=select(func.max(B.c.id)).where(ON).scalar_subquery()),
        ],
        ids=range(5),
    )
    def test_changes_by_rows_beside_it_add_up(self, statement: Any) -> None:
        assert sources_of(statement).obstacle is None

    @pytest.mark.parametrize(
        "statement",
        [
            update(A).values(value=B.c.value).where(VALUE),
            delete(A).where(VALUE),
            delete(A).where(A.c.value.in_(select(B.c.k))),
            update(A).values(value=select(func.max(B.c.id)).scalar_subquery()),
            update(A).values(value=GLOBAL.c.id),
            update(A).values(value=text("1 + 1")),
            update(REFERENCE).values(name=REFERENCE.alias("r").c.name),
        ],
        ids=range(7),
    )
    def test_changes_by_rows_of_other_shards_do_not(self, statement: Any) -> None:
        assert sources_of(statement).obstacle is not None

    @pytest.mark.parametrize(
        "statement",
        [
            update(A).values(k=1),
            update(A).values({A.c.k: A.c.k + 1}),
            update(A).ordered_values((A.c.k, 1)),
            update(PAIR).values(m=1),
            upsert(A).values(k=1, id=1).on_conflict_do_update(index_elements=["id"], set_={"k": 2}),
        ],
        ids=range(5),
    )
    def test_a_changed_key_is_seen(self, statement: Any) -> None:
        assert sources_of(statement).changed_key != ()

    def test_a_numeric_key_and_an_integer_parameter(self) -> None:
        statement = select(NUMBERS).where(NUMBERS.c.k == bindparam("x", type_=Integer))

        assert roots_of(statement) == [("numbers", "0=")]

    def test_an_empty_conjunction_says_nothing(self) -> None:
        (root,) = sources_of(delete(A)).roots

        assert root.condition is ANYWHERE


class TestPlainReads:
    @pytest.mark.parametrize(
        "statement",
        [
            select(A).where(A.c.k == 5).order_by(A.c.value),
            select(A, B).join(B, ON).where(exists().where(A.c.k == C.c.k)),
            select(func.count(), func.max(A.c.value)).select_from(A),
            of(select(A.c.value, func.count()).group_by(A.c.value)),
            select(select(A).cte()),
            union_all(select(A.c.id), select(B.c.id)),
        ],
        ids=range(6),
    )
    def test_what_certainly_writes_nothing(self, statement: Any) -> None:
        assert sources_of(statement).is_plain

    @pytest.mark.parametrize(
        "statement",
        [
            select(A, func.write_something()),
            select(A).where(func.write_something() == 1),
            select(A).order_by(func.write_something()),
            select(A).limit(func.write_something()),
            select(func.count()).select_from(A).having(func.write_something() == 1),
            select(A).select_from(A.join(B, func.write_something() == 1).join(C, A.c.k == C.c.k)),
            of(select(A, func.write_something())),
            select(select(func.write_something()).cte()),
            select(A).where(exists(select(select(func.write_something()).subquery()))),
            select(func.write_something().table_valued("id")),
            union_all(select(A.c.id), select(func.write_something())),
            select(A).with_for_update(),
            of(select(A).with_for_update()),
            select(A).where(text("write_something()")),
            select(A, text("write_something()")),
            select(A).prefix_with("ALL"),
            update(A).values(value=1),
        ],
        ids=range(17),
    )
    def test_what_may_write(self, statement: Any) -> None:
        assert not sources_of(statement).is_plain
