"""Each private name of SQLAlchemy that is read still means what it did when it was chosen."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from greenlet import greenlet
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    event,
    exists,
    func,
    insert,
    lambda_stmt,
    literal,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.dialects.postgresql import dialect as postgresql
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.dialects.postgresql.base import PGCompiler
from sqlalchemy.exc import IntegrityError, MissingGreenlet
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    mapped_column,
    relationship,
    with_loader_criteria,
)
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import replacement_traverse

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.dialect import ShardsDialect

if TYPE_CHECKING:
    from collections.abc import Iterator

metadata = MetaData()
users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String),
    Column("points", Integer),
)
orders = Table(
    "orders",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("user_id", Integer),
)
counted = Table(
    "counted",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("name", String),
)


class Base(DeclarativeBase):
    metadata = metadata


class User(Base):
    __table__ = users


class Animal(Base):
    __tablename__ = "animals"
    id = mapped_column(BigInteger, primary_key=True)
    kind = mapped_column(String)
    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "animal"}


class Cat(Animal):
    __mapper_args__ = {"polymorphic_identity": "cat"}


class Dog(Animal):
    __tablename__ = "dogs"
    id = mapped_column(ForeignKey("animals.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "dog"}


def compiled(statement: Any, **keywords: Any) -> Any:
    return statement.compile(dialect=postgresql(), **keywords)


@pytest.fixture
def engine(one_database_url: str) -> Iterator[Any]:
    engine = create_engine(one_database_url)
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def executions(engine: Any) -> Iterator[list[tuple[Any, Any, str]]]:
    """Context, driver parameters and SQL of each call of the driver."""
    seen: list[tuple[Any, Any, str]] = []

    def note(
        connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, is_many: Any
    ) -> None:
        seen.append((context, parameters, sql))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_every_function_is_tested_here() -> None:
    here = Path(__file__).parent
    source = "".join(each.read_text(encoding="utf-8") for each in here.glob("test_compat*.py"))
    functions = [
        name
        for name, each in inspect.getmembers(_compat, inspect.isfunction)
        if each.__module__.startswith(_compat.__name__) and not name.startswith("_")
    ]

    assert [name for name in functions if f"_compat.{name}(" not in source] == []


class TestStatements:
    def test_the_core_statement_of_core(self) -> None:
        statement = select(users.c.id)

        assert _compat.core_statement(compiled(statement)) is statement

    def test_the_core_statement_of_the_orm_holds_what_the_orm_added(self) -> None:
        criteria = with_loader_criteria(User, User.points > 3)
        found: Any = _compat.core_statement(compiled(select(User).options(criteria)))

        assert "users.points >" in str(found.whereclause)
        assert [column.key for column in found.selected_columns] == ["id", "name", "points"]

    def test_joins_that_load_are_told(self) -> None:
        class Base(DeclarativeBase):
            pass

        class Parent(Base):
            __tablename__ = "parents"
            id: Mapped[int] = mapped_column(primary_key=True)

        class Child(Base):
            __tablename__ = "children"
            id: Mapped[int] = mapped_column(primary_key=True)
            parent: Mapped[int] = mapped_column(ForeignKey("parents.id"))

        Parent.children = relationship(Child)
        joined = select(Parent).options(joinedload(Parent.children))

        assert _compat.loads_by_joins(compiled(joined))
        assert _compat.loads_by_joins(compiled(joined.limit(3)))
        assert not _compat.loads_by_joins(compiled(select(Parent).join(Child)))
        assert not _compat.loads_by_joins(compiled(select(users)))

    def test_the_core_statement_of_others(self) -> None:
        union = union_all(select(users.c.id), select(orders.c.id))
        raw = text("SELECT 1")
        change = update(User).where(User.id == 1).values(name="x")

        assert isinstance(_compat.core_statement(compiled(union)), sqlalchemy.CompoundSelect)
        assert _compat.core_statement(compiled(raw)) is raw
        assert isinstance(_compat.core_statement(compiled(change)), sqlalchemy.Update)

    def test_the_core_statement_of_a_lambda(self, engine: Any) -> None:
        with executions(engine) as seen, Session(engine) as session:
            session.execute(lambda_stmt(lambda: select(User.id).where(User.id == 5)))

        assert isinstance(_compat.core_statement(seen[0][0].compiled), sqlalchemy.Select)

    def test_a_correlated_table_is_not_in_the_final_from_list(self) -> None:
        inner = select(orders.c.id).where(orders.c.user_id == users.c.id)
        enclosing = frozenset([users])
        correlated = _compat.final_select(
            inner, is_from=False, enclosing=enclosing, directly_enclosing=enclosing
        )
        as_from = _compat.final_select(
            inner, is_from=True, enclosing=enclosing, directly_enclosing=enclosing
        )

        assert list(correlated.froms) == [orders]
        assert set(as_from.froms) == {users, orders}

    def test_the_final_select_is_the_orms(self) -> None:
        inner = select(Cat.id)
        final = _compat.final_select(
            inner, is_from=False, enclosing=frozenset(), directly_enclosing=frozenset()
        )

        assert "kind IN" in str(final.select.whereclause)

    @pytest.mark.parametrize(
        "query",
        [
            select(users.c.id),
            select(users.c.id, orders.c.id),
            select(users.c.id).join_from(users, orders, users.c.id == orders.c.user_id),
            select(User.id).join(Cat, Cat.id == User.id),
            select(sqlalchemy.func.count()).select_from(users.alias()),
        ],
    )
    def test_the_from_list_is_that_of_get_final_froms(self, query: Any) -> None:
        found, expected = _compat.from_list(query), query.get_final_froms()

        assert [str(each) for each in found] == [str(each) for each in expected]

    def test_only_selected_labels_are_written_as_labels(self) -> None:
        label, other = (users.c.id + 1).label("more"), (users.c.id + 2).label("other")
        query = select(label).order_by(label.desc(), other, users.c.id)
        labels = _compat.final_select(
            query, is_from=False, enclosing=frozenset(), directly_enclosing=frozenset()
        ).labels
        order_by = _compat.select_shape(query).order_by

        assert [_compat.is_written_as_label(each, labels) for each in order_by] == [
            True,
            False,
            False,
        ]

    def test_names_stand_for_labels_and_for_columns_of_the_from_list(self) -> None:
        label = (users.c.id + 1).label("more")
        names = _compat.final_select(
            select(label, users.c.id),
            is_from=False,
            enclosing=frozenset(),
            directly_enclosing=frozenset(),
        ).names

        assert names["more"] is label
        assert names["name"] is users.c.name

    def test_the_shape_of_a_bare_select(self) -> None:
        shape = _compat.select_shape(select(users.c.id))

        assert not any(shape)

    def test_each_clause_is_in_the_shape(self) -> None:
        query = select(users.c.id)
        cte = select(orders.c.id).cte("more")

        assert len(_compat.select_shape(query.order_by(users.c.id, users.c.name)).order_by) == 2
        assert _compat.select_shape(query.limit(3)).limit.value == 3  # type: ignore[union-attr]
        assert _compat.select_shape(query.offset(4)).offset.value == 4  # type: ignore[union-attr]
        assert _compat.select_shape(query.fetch(5)).fetch.value == 5  # type: ignore[union-attr]
        assert not _compat.select_shape(query.fetch(5)).fetches_otherwise
        assert _compat.select_shape(query.fetch(5, with_ties=True)).fetches_otherwise
        assert _compat.select_shape(query.fetch(5, percent=True)).fetches_otherwise
        assert _compat.select_shape(query.group_by(users.c.id)).group_by == (users.c.id,)
        assert len(_compat.select_shape(query.having(func.count() > 1)).having) == 1
        assert _compat.select_shape(query.distinct()).distinct
        assert not _compat.select_shape(query.distinct()).distinct_on
        assert _compat.select_shape(query.with_for_update()).for_update
        assert not _compat.select_shape(query.with_for_update()).skips_locked
        assert _compat.select_shape(query.with_for_update(skip_locked=True)).skips_locked
        assert _compat.select_shape(query.add_cte(cte)).independent_ctes == (cte,)
        assert _compat.select_shape(query.prefix_with("X")).embellished
        assert _compat.select_shape(query.suffix_with("X")).embellished
        assert _compat.select_shape(query.with_statement_hint("X")).embellished

    def test_the_shape_of_a_set_operation(self) -> None:
        union = union_all(select(users.c.id), select(orders.c.id)).order_by("id").limit(2)
        shape = _compat.select_shape(union)

        assert len(shape.order_by) == 1
        assert shape.limit.value == 2  # type: ignore[union-attr]

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_distinct_on_is_told_however_it_is_said(self) -> None:
        shapes = [_compat.select_shape(select(users.c.id).distinct(users.c.name))]
        if hasattr(select(users), "ext"):
            from sqlalchemy.dialects.postgresql import distinct_on

            query = select(users.c.id).ext(distinct_on(users.c.name))
            shapes.append(_compat.select_shape(query))

        assert all(shape.distinct_on == (users.c.name,) for shape in shapes)
        assert not any(shape.extended for shape in shapes)

    def test_extensions_are_noticed(self) -> None:
        conflict = upsert(users).on_conflict_do_nothing()

        assert not _compat.has_extensions(select(users))
        assert not _compat.has_extensions(conflict)
        if hasattr(select(users), "ext"):
            from sqlalchemy.sql import SyntaxExtension

            class Behind(SyntaxExtension, ClauseElement):  # type: ignore[misc]
                def apply_to_select(self, select_stmt: Any) -> None:
                    select_stmt.apply_syntax_extension_point(lambda _: [self], "post_body")

            assert _compat.has_extensions(select(users).ext(Behind()))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_select_is_given_distinct_on(self) -> None:
        picked = _compat.with_distinct_on(select(users.c.id), [users.c.name])

        assert str(compiled(picked)).startswith("SELECT DISTINCT ON (users.name) users.id")

    def test_selects_are_noted_where_they_are_written(self) -> None:
        noted: list[Any] = []

        class Noting(_compat.NotesSelects, PGCompiler):
            def note_select(self, final: Any, froms: Any, names: Any) -> None:
                noted.append((final, list(froms), dict(names)))

        inner = select(orders.c.id).where(orders.c.user_id == users.c.id)
        outer = select(users.c.id.label("n")).where(inner.exists())
        dialect: Any = postgresql()
        dialect.statement_compiler = Noting
        outer.compile(dialect=dialect)

        assert [froms for _, froms, _ in noted] == [[users], [orders]]
        assert noted[0][0] is outer
        assert noted[0][2]["n"] is outer.selected_columns[0]

    def test_the_outermost_select_is_kept_behind_from_statement(self) -> None:
        class Keeping(_compat.KeepsOutermost, PGCompiler):
            pass

        dialect: Any = postgresql()
        dialect.statement_compiler = Keeping
        chosen = select(Cat).where(Cat.id.in_(select(Cat.id).limit(1))).order_by("id").limit(2)
        kept = select(Cat).from_statement(chosen).compile(dialect=dialect)

        assert _compat.core_statement(kept).get_final_froms() == [Cat.__table__]
        assert _compat.select_shape(_compat.core_statement(kept)).limit.value == 2
        assert _compat.label_meanings(kept)["id"].name == "id"
        assert not _compat.loads_by_joins(kept)

    def test_labels_are_resolved(self) -> None:
        labelled = (users.c.points + 1).label("more")
        meanings = _compat.label_meanings(compiled(select(users.c.id, labelled).order_by("more")))

        assert meanings["more"] is labelled
        assert meanings["id"] is users.c.id

    def test_columns_are_added_without_the_orms_work_being_done_twice(self) -> None:
        query = select(Cat.id).order_by(Cat.id)
        statement: Any = _compat.core_statement(compiled(query))
        more = _compat.with_more_columns(statement, [Cat.id.label("again")])

        assert str(compiled(more)).count("kind IN") == 1
        assert [column.key for column in more.selected_columns] == ["id", "again"]

    def test_a_select_of_mapped_columns_that_the_orm_leaves_alone(self) -> None:
        plain = _compat.without_orm(select(Cat.id))

        assert "kind IN" in str(compiled(select(Cat.id)))
        assert "kind IN" not in str(compiled(plain))

    def test_what_any_asks_for_can_be_replaced(self) -> None:
        kept = (users.c.id == 1)._annotate({"no_replacement_traverse": True})
        alias = users.alias()

        def replace(node: Any, **_: Any) -> Any:
            return alias.c.id if node is users.c.id else None

        assert replacement_traverse(kept, {}, replace) is kept
        replaced: Any = replacement_traverse(_compat.replaceable(kept), {}, replace)
        assert replaced.left is alias.c.id
        assert _compat.replaceable(users.c.id) is users.c.id

    def test_a_fetch_clause_with_its_options(self) -> None:
        fetched = select(users.c.id).order_by(users.c.id).fetch(3, with_ties=True)
        other = _compat.with_window_of(select(users.c.name), fetched)

        assert _compat.select_shape(other).fetch is _compat.select_shape(fetched).fetch
        assert "WITH TIES" in str(compiled(other))

    @pytest.mark.parametrize(
        ("value", "is_cast"), [(1, True), ("x", True), (Decimal(1), False), (1.5, False)]
    )
    def test_parameters_that_are_written_with_their_types(self, value: Any, is_cast: bool) -> None:
        bind = literal(value)

        assert _compat.is_cast(bind, ShardsDialect()) is is_cast
        assert ("::" in str(bind.compile(dialect=ShardsDialect()))) is is_cast

    def test_columns_in_the_place_of_others(self) -> None:
        statement: Any = _compat.core_statement(compiled(select(Cat.id)))
        changed = _compat.with_columns(statement.select_from(users), [users.c.name, Cat.id])

        assert [column.key for column in _compat.column_list(changed)] == ["name", "id"]
        assert str(compiled(changed)).count("kind IN") == 1

    def test_the_columns_of_a_table_among_the_columns(self) -> None:
        columns = _compat.column_list(select(users.c.id, users, func.count()))

        assert columns[:-1] == [users.c.id, *users.c]


class TestModification:
    def test_values_of_an_update(self) -> None:
        change = update(users).values(name="x", points=users.c.points + 1)
        values = _compat.dml_values(compiled(change))

        assert values is not None
        assert set(values) == {"name", "points"}
        assert values["points"].left is users.c.points

    def test_values_of_the_orms_update(self) -> None:
        values = _compat.dml_values(compiled(update(User).values({User.name: "x"})))

        assert values is not None
        assert set(values) == {"name"}

    def test_no_values(self) -> None:
        assert _compat.dml_values(compiled(insert(users))) is None

    def test_expressions_of_every_row(self) -> None:
        one, other = users.c.id + 1, literal(5)
        rows = [{"id": 1, "points": one}, {"id": other, "points": 2}]
        found = _compat.dml_expressions(compiled(insert(users).values(rows)))
        single = _compat.dml_expressions(compiled(update(users).values(points=one)))

        assert any(each is one for each in found)
        assert any(each is other for each in found)
        assert single == [one]

    @pytest.mark.parametrize("returned", [False, True])
    def test_what_a_column_is_given_by_its_own_onupdate(self, returned: bool) -> None:
        now = func.now()
        changed = Column("changed", DateTime, onupdate=now)
        documents = Table("documents", MetaData(), Column("title", Text), changed)
        statement = update(documents).values(title="x")
        if returned:
            statement = statement.return_defaults()

        def functions(statement: Any) -> int:
            found = _compat.dml_expressions(compiled(statement))
            return sum(isinstance(each, type(now)) for each in found)

        assert functions(statement) == 1
        assert functions(statement.values(changed=None)) == 0
        assert functions(insert(documents).values(title="x")) == 0

    def test_rows_of_a_values_list(self) -> None:
        rows = [{"id": 1}, {"id": 2}]

        assert [len(each) for each in _compat.multi_values(insert(users).values(rows))] == [2]
        assert not _compat.multi_values(insert(users).values(id=1))

    def test_the_clause_after_values(self) -> None:
        plain, conflict = upsert(users), upsert(users).on_conflict_do_nothing()

        assert _compat.post_values_clause(plain) is None
        assert _compat.post_values_clause(conflict) is not None

    def test_the_parts_of_on_conflict(self) -> None:
        statement = upsert(users)
        statement = statement.on_conflict_do_update(
            index_elements=[users.c.id],
            index_where=users.c.points > 1,
            set_={"name": "x", users.c.points: statement.excluded.points + 1},
            where=users.c.points < 9,
        )
        clause = _compat.post_values_clause(statement)
        assert clause is not None
        keys = list(_compat.conflict_assignments(clause))
        expressions = _compat.conflict_expressions(clause)

        texts = {str(each) for each in expressions}
        assert set(keys) == {"name", "points"}
        assert {"excluded.points + :points_1", "users.points < :points_1"} <= texts
        assert "users.points > :points_1" in texts

    def test_what_is_returned(self) -> None:
        assert _compat.returning(insert(users)) == ()
        assert _compat.returning(update(users).returning(users.c.id)) == (users.c.id,)

    def test_the_from_list_of_an_update(self) -> None:
        other = users.alias()
        statement = update(users).values(name="x").where(users.c.name == other.c.name)

        assert _compat.extra_froms(compiled(statement)) == (other,)
        assert _compat.extra_froms(compiled(insert(users))) == ()

    def test_an_update_that_the_orm_leaves_alone(self) -> None:
        statement = update(Cat).values(kind="x")
        plain = _compat.plain_write(statement)

        assert "WHERE" in str(compiled(statement))
        assert "WHERE" not in str(compiled(plain))

    def test_ctes_that_were_added(self) -> None:
        cte = select(orders.c.id).cte("more")

        assert _compat.dml_ctes(update(users).values(name="x").add_cte(cte)) == (cte,)
        assert _compat.dml_ctes(insert(users)) == ()


class TestExecutions:
    def test_plain_parameters(self, engine: Any) -> None:
        with executions(engine) as seen, engine.connect() as connection:
            connection.execute(select(users).where(users.c.id == 5, users.c.name == "x"))

        assert dict(_compat.raw_parameters(seen[0][0])) == {"id_1": 5, "name_1": "x"}

    def test_lists_stand_under_their_own_names(self, engine: Any) -> None:
        pair = tuple_(users.c.id, users.c.name)
        query = select(users).where(
            users.c.id.in_([1, 2]),
            pair.in_([(1, "a"), (2, "b")]),
            users.c.points.in_(bindparam("chosen", expanding=True)),
            users.c.name.in_([]),
            users.c.points > 7,
        )
        with executions(engine) as seen, engine.connect() as connection:
            connection.execute(query, {"chosen": [3]})
        found = _compat.raw_parameters(seen[0][0])

        assert found["id_1"] == [1, 2]
        assert found["param_1"] == [(1, "a"), (2, "b")]
        assert found["chosen"] == [3]
        assert found["name_1"] == []
        assert found["points_1"] == 7

    def test_lists_of_a_second_execution_of_one_compiled_statement(self, engine: Any) -> None:
        with executions(engine) as seen, engine.connect() as connection:
            for keys in ([1, 2], [3], []):
                connection.execute(select(users).where(users.c.id.in_(keys)))
        found = [_compat.raw_parameters(context)["id_1"] for context, _, _ in seen]

        assert found == [[1, 2], [3], []]

    def test_callables_are_called(self, engine: Any) -> None:
        value = bindparam("value", callable_=lambda: 9, type_=Integer)
        with executions(engine) as seen, engine.connect() as connection:
            connection.execute(select(users).where(users.c.id == value))

        assert _compat.raw_parameters(seen[0][0])["value"] == 9

    def test_literal_execute_parameters_are_kept_before_they_are_rendered(self) -> None:
        number = bindparam("number", 5, literal_execute=True, type_=Integer)
        listed = bindparam("some", [1], literal_execute=True, expanding=True, type_=Integer)
        query = select(users).where(users.c.id == number, users.c.points.in_(listed))
        statement: Any = query.compile(dialect=ShardsDialect())
        values = statement.construct_params({"number": 6})
        state = statement.construct_expanded_state({"number": 6})

        assert "users.id = 6" in state.statement
        assert not state.parameters
        assert values.rendered == {"number": 6, "some": [1]}

    def test_literal_execute_parameters_are_missing_or_right(self, engine: Any) -> None:
        number = bindparam("number", 5, literal_execute=True, type_=Integer)
        query = select(users).where(users.c.id == number, users.c.points == 3)
        with executions(engine) as seen, engine.connect() as connection:
            connection.execute(query)
            connection.execute(query, {"number": 6})
        found = [_compat.raw_parameters(context) for context, _, _ in seen]

        assert [each.get("number", right) for each, right in zip(found, (5, 6), strict=True)] == [
            5,
            6,
        ]
        assert [each["points_1"] for each in found] == [3, 3]

    def test_expanding_parameters_are_told_from_others(self) -> None:
        assert _compat.is_expanding(bindparam("x", expanding=True))
        assert not _compat.is_expanding(bindparam("x"))

    def test_a_default_that_runs_on_its_own_is_told(self, engine: Any) -> None:
        table = Table(
            "defaulted",
            MetaData(),
            Column("id", Integer, default=select(func.max(5)).scalar_subquery(), primary_key=True),
            implicit_returning=False,
        )
        found: list[bool] = []

        def note(
            connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, is_many: Any
        ) -> None:
            found.append(_compat.is_pre_executed_default(context))

        with engine.begin() as connection:
            table.create(connection)
            event.listen(engine, "before_cursor_execute", note)
            connection.execute(table.insert())

        assert found == [True, False]

    def test_batches_of_insertmanyvalues_are_counted(self, engine: Any) -> None:
        statement = insert(users).returning(users.c.id, sort_by_parameter_order=True)
        rows = [{"id": n} for n in range(5)]
        batches: list[Any] = []

        def note(
            connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, is_many: Any
        ) -> None:
            done = sum(batch.rows for batch in batches)
            batches.append(_compat.insertmanyvalues_batch(context, parameters, done, 2))

        event.listen(engine, "before_cursor_execute", note)
        with engine.begin() as connection:
            paged = connection.execution_options(insertmanyvalues_page_size=2)
            paged.execute(statement, rows)

        assert [(batch.first, batch.rows) for batch in batches] == [(0, 2), (2, 2), (4, 1)]
        assert not any(batch.row_at_a_time for batch in batches)

    def test_rows_that_go_one_at_a_time_are_counted(self, engine: Any) -> None:
        table = Table(
            "keyed",
            MetaData(),
            Column("id", String, server_default=text("gen_random_uuid()::text"), primary_key=True),
            Column("number", Integer),
        )
        statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
        batches: list[Any] = []

        def note(
            connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, is_many: Any
        ) -> None:
            batches.append(_compat.insertmanyvalues_batch(context, parameters, len(batches), 1000))

        with engine.begin() as connection:
            table.create(connection)
            event.listen(engine, "before_cursor_execute", note)
            connection.execute(statement, [{"number": n} for n in range(3)])

        assert [(batch.first, batch.rows, batch.row_at_a_time) for batch in batches] == [
            (0, 1, True),
            (1, 1, True),
            (2, 1, True),
        ]

    def test_keys_that_the_server_makes_are_told(self) -> None:
        by_server = insert(counted).returning(counted.c.id, sort_by_parameter_order=True)
        by_client = insert(users).returning(users.c.id, sort_by_parameter_order=True)
        server: Any = compiled(by_server, for_executemany=True, column_keys=["name"])
        client: Any = compiled(by_client, for_executemany=True, column_keys=["id", "name"])

        assert _compat.insertmanyvalues_sorts_by_server_key(server)
        assert not _compat.insertmanyvalues_sorts_by_server_key(client)
        assert not _compat.insertmanyvalues_sorts_by_server_key(compiled(insert(users)))

    def test_a_batch_is_rendered_for_some_of_its_rows(self, engine: Any) -> None:
        statement = insert(users).returning(users.c.id, sort_by_parameter_order=True)
        rows = [{"id": n, "name": f"name {n}"} for n in range(5)]
        with executions(engine) as seen, engine.begin() as connection:
            connection.execute(statement, rows)
        sql, parameters = _compat.render_insertmanyvalues(seen[0][0], [3, 1])
        with engine.connect() as connection, engine.raw_connection().cursor() as cursor:
            connection.execute(users.delete())
            connection.commit()
            found = cursor.execute(sql, parameters).fetchall()

        assert {row[0] for row in found} == {1, 3}
        assert {value for value in parameters.values() if isinstance(value, str)} == {
            "name 1",
            "name 3",
        }

    def test_a_batch_is_rendered_for_the_translated_schema(self, engine: Any) -> None:
        table = Table(
            "made",
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            schema="logical",
        )
        options = {"schema_translate_map": {"logical": "physical"}}
        with executions(engine) as seen, engine.connect() as connection:
            connection.execute(text("CREATE SCHEMA physical"))
            connection.execute(text("CREATE TABLE physical.made (id int PRIMARY KEY)"))
            translated = connection.execution_options(**options)
            translated.execute(
                insert(table).returning(table.c.id, sort_by_parameter_order=True),
                [{"id": 1}, {"id": 2}],
            )
        sql, _ = _compat.render_insertmanyvalues(seen[-1][0], [1])

        assert "INTO physical.made" in sql

    def test_derived_statements_get_the_executions_schema(self, engine: Any) -> None:
        table = Table("pg_class", MetaData(), Column("relname", String), schema="logical")
        options = {"schema_translate_map": {"logical": "pg_catalog"}}
        with executions(engine) as seen, engine.connect() as connection:
            connection.execution_options(**options).execute(select(table).limit(1))
        derived: Any = compiled(select(table), schema_translate_map={"logical": "anything"})
        plain: Any = compiled(select(users.c.id))

        context = seen[0][0]
        assert "FROM pg_catalog.pg_class" in _compat.translated_statement(
            context, derived, str(derived.string)
        )
        assert _compat.translated_statement(context, plain, plain.string) == plain.string


class TestPools:
    def test_older_connections_of_a_distrusted_pool_are_replaced(self, engine: Any) -> None:
        one, other = engine.raw_connection(), engine.raw_connection()
        older = {one.driver_connection, other.driver_connection}
        other.close()
        _compat.distrust_pool(engine.pool, one, RuntimeError("lost"))
        again = engine.raw_connection()
        newer = again.driver_connection
        again.close()
        one.close()

        assert newer not in older


def test_correlation_reads_through_aliases_and_exists() -> None:
    other = aliased(User)
    query = select(User.id).where(exists().where(other.points == User.points))
    final: Any = _compat.core_statement(compiled(query))

    assert str(final.whereclause).startswith("EXISTS")


def test_a_construct_with_a_compiler_of_the_applications_own_is_seen() -> None:
    class Own(FunctionElement[int]):
        inherit_cache = True

    class Child(Own):
        inherit_cache = True

    compiles(Own)(lambda element, compiler, **_: "1")

    assert _compat.compiles_itself(Own())
    assert _compat.compiles_itself(Child())
    assert not _compat.compiles_itself(func.lower("x"))


def test_a_from_list_is_found_whatever_is_written_for_postgresql_alone() -> None:
    class Own(FunctionElement[int]):
        inherit_cache = True

    compiles(Own, "postgresql")(lambda element, compiler, **_: "1")
    table = User.__table__

    assert list(_compat.from_list(select(table.c.id).where(Own() == 1))) == [table]


def test_raw_text_around_a_statement_is_seen() -> None:
    query = select(users.c.id)

    assert not _compat.is_embellished(query)
    assert _compat.is_embellished(query.prefix_with("ALL"))
    assert _compat.is_embellished(query.suffix_with("-- end"))
    assert _compat.is_embellished(query.with_statement_hint("hint"))
    assert _compat.is_embellished(query.with_hint(users, "ONLY", "postgresql"))
    assert _compat.is_embellished(query.prefix_with("/* a */ ALL /* b */"))
    assert not _compat.is_embellished(query.prefix_with("/*+ SeqScan(users) */", "/* b */"))
    assert _compat.is_embellished(users.delete().prefix_with("ONLY"))


def test_what_for_update_names_is_read() -> None:
    query = select(users.c.id)

    assert _compat.locked_elements(query) == ()
    assert _compat.locked_elements(query.with_for_update()) == ()
    assert [str(each) for each in _compat.locked_elements(query.with_for_update(of=users))] == [
        "users"
    ]


@contextmanager
def closing_engine() -> Iterator[sqlalchemy.Engine]:
    engine = create_engine("sqlite://")
    try:
        yield engine
    finally:
        engine.dispose()


class TestDefaultsOfRows:
    """A default reads the row that it is asked for."""

    @staticmethod
    def rows_seen(given: Any) -> list[tuple[str, dict[str, Any]]]:
        seen: list[tuple[str, dict[str, Any]]] = []

        def note(context: Any) -> int:
            row = dict(_compat.row_of_default(context))
            row.pop("number", None)
            seen.append((_compat.column_of_default(context).name, row))
            return len(seen)

        table = Table(
            "t", MetaData(), Column("key", Integer), Column("number", Integer, default=note)
        )
        with closing_engine() as engine, engine.begin() as connection:
            table.metadata.create_all(connection)
            if isinstance(given, list):
                connection.execute(insert(table), given)
            else:
                connection.execute(given(table))
        return seen

    def test_of_each_parameter_set(self) -> None:
        seen = self.rows_seen([{"key": 5}, {"key": 6}])

        assert seen == [("number", {"key": 5}), ("number", {"key": 6})]

    def test_of_each_row_of_a_values_list(self) -> None:
        seen = self.rows_seen(lambda table: insert(table).values([{"key": 5}, {"key": 6}]))

        assert seen == [("number", {"key": 5}), ("number", {"key": 6})]

    def test_of_each_row_of_a_values_list_that_the_orm_compiled(self) -> None:
        class Base(DeclarativeBase):
            pass

        def note(context: Any) -> int:
            seen.append(_compat.row_of_default(context)["key"])
            return len(seen)

        class Row(Base):
            __tablename__ = "t"
            number = mapped_column(Integer, primary_key=True, default=note)
            key = mapped_column(Integer)

        seen: list[Any] = []
        with closing_engine() as engine, Session(engine) as session:
            Base.metadata.create_all(session.connection())
            session.execute(insert(Row).values([{"key": 5}, {"key": 6}]))

        assert seen == [5, 6]

    def test_of_values_in_the_statement(self) -> None:
        seen = self.rows_seen(lambda table: insert(table).values(key=5))

        assert seen == [("number", {"key": 5})]


class TestOutsideOfStatements:
    def test_defaults_of_rows_that_no_statement_inserts(self) -> None:
        def doubled(context: Any) -> int:
            return 2 * int(context.get_current_parameters()["key"])

        table = Table(
            "t", MetaData(), Column("key", Integer), Column("number", Integer, default=doubled)
        )
        with closing_engine() as engine, engine.connect() as connection:
            compiled = insert(table).compile(engine, column_keys=["key", "number"])
            context = _compat.context_of_defaults(connection, compiled)
            context.current_parameters = {"key": 4}
            context.current_column = table.c.number

            assert table.c.number.default.arg(context) == 8
            assert context.isinsert
            assert context.dialect is engine.dialect

    def test_an_error_of_the_driver_is_wrapped_and_listeners_are_told(self) -> None:
        told = []
        with closing_engine() as engine, engine.connect() as connection:
            event.listen(engine, "handle_error", lambda context: told.append(context.statement))
            error = engine.dialect.dbapi.IntegrityError("no")  # type: ignore[union-attr]
            with pytest.raises(IntegrityError) as raised:
                _compat.raise_as_sqlalchemy(connection, "COPY t FROM STDIN", error)

        assert raised.value.orig is error
        assert told == ["COPY t FROM STDIN"]


def test_what_an_exclusion_constraint_compares_is_read() -> None:
    room: Column[int] = Column("room", Integer)
    constraint = ExcludeConstraint((func.abs(room), "="), ("stay", "&&"))
    table = Table("bookings", MetaData(), room, Column("stay", String), constraint)

    (computed, equals), (stay, overlaps) = _compat.exclusion_elements(constraint)
    assert (str(computed), equals) == ("abs(bookings.room)", "=")
    assert (stay, overlaps) == (table.c.stay, "&&")


def test_how_often_a_list_is_written_is_counted() -> None:
    numbers = bindparam("a %list", expanding=True)
    once = compiled(select(users).where(users.c.id.in_(numbers), orders.c.id.in_([1])))
    twice = compiled(select(users).where(users.c.id.in_(numbers), users.c.points.in_(numbers)))

    assert _compat.times_expanded(once, "a %list") == 1
    assert _compat.times_expanded(once, "id_1") == 1
    assert _compat.times_expanded(twice, "a %list") == 2
    assert _compat.times_expanded(twice, "id") == 0


def test_the_columns_of_a_result_are_read() -> None:
    one = compiled(select(users.c.id, func.count(users.c.name), literal("x")))
    returning = compiled(update(users).values(name="x").returning(users.c.name))

    found = _compat.result_columns(one)
    assert [each.name for each in found] == ["id", "count_1", "anon_1"]
    assert isinstance(found[0].type, Integer)
    assert [each.name for each in _compat.result_columns(returning)] == ["name"]
    assert _compat.result_columns(compiled(update(users).values(name="x"))) == []


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        ({}, 15),
        ({"pool_size": 3, "max_overflow": 4}, 7),
        ({"max_overflow": -1}, None),
        ({"pool_size": 0}, None),
        ({"poolclass": sqlalchemy.NullPool}, None),
    ],
)
def test_pool_bound(arguments: dict[str, Any], bound: int | None) -> None:
    engine = create_engine("postgresql+psycopg://app@db/app", **arguments)

    assert _compat.pool_bound(engine.pool) == bound


def test_what_a_conflict_is_looked_for_in_is_read() -> None:
    def target(**arguments: Any) -> Any:
        statement = upsert(users).values(id=1).on_conflict_do_nothing(**arguments)
        clause: Any = _compat.post_values_clause(statement)
        return _compat.conflict_target(clause)

    assert target() is None
    assert target(constraint="users_pkey") == "users_pkey"
    assert list(target(index_elements=["id", users.c.name])) == ["id", users.c.name]
    assert list(target(constraint=users.primary_key)) == [users.c.id]


def test_the_columns_that_a_select_fills_are_read() -> None:
    filled = insert(users).from_select([users.c.name, "id"], select(orders.c.id, orders.c.id))

    assert _compat.selected_names(filled) == ["name", "id"]
    assert _compat.selected_names(insert(users)) == []


class TestValuesLists:
    def statement(self) -> Any:
        table = Table(
            "t",
            MetaData(),
            Column("id", Integer, primary_key=True),
            Column("a %", String),
            Column("made", Integer, default=5),
        )
        rows = [{"id": 1, "a %": "x"}, {"id": 2, "a %": bindparam("given")}]
        return insert(table).values(rows)

    def test_rows_and_the_names_of_their_values_are_read(self) -> None:
        found = compiled(self.statement())
        rows = _compat.values_rows(found)

        assert [list(row) for row in rows] == [["id", "a %"]] * 2
        assert _compat.client_side_defaults(found) == ["made"]
        assert _compat.bind_name(found, rows[1]["a %"]) == "given"
        names = {
            _compat.name_in_row("id", 0, is_default=False),
            _compat.name_in_row("a %", 0, is_default=False),
            _compat.name_in_row("made", 0, is_default=True),
            _compat.name_in_row("id", 1, is_default=False),
            _compat.name_in_row("made", 1, is_default=True),
        }
        assert {*names, "given"} == set(found.bind_names.values())
        assert _compat.values_rows(compiled(insert(users).values(id=1))) == []

    def test_the_orm_compiles_the_same_rows(self) -> None:
        found = compiled(insert(User).values([{"id": 1, "name": "x"}, {User.id: 2, "name": "y"}]))

        assert _compat.values_rows(found) == [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]

    def test_other_rows_are_put_in_their_place(self) -> None:
        first = {"id": 3, "a %": "z", "made": 6}

        found = compiled(_compat.with_rows(self.statement(), [first, {**first, "id": 4}]))
        assert [row["id"] for row in _compat.values_rows(found)] == [3, 4]
        assert _compat.client_side_defaults(found) == []

    def test_rows_of_another_select_are_put_in_their_place(self) -> None:
        first = insert(users).from_select(["id"], select(users.c.id))
        first = first.add_cte(select(orders.c.id).cte("more"))
        second = select(users.c.id + 1)

        found = _compat.with_select(first, second)
        assert _compat.dml_ctes(found) == ()
        assert "WITH" not in str(found)
        assert found.select is second
        assert _compat.selected_names(found) == ["id"]
        assert first.select is not second

    def test_options_of_the_orm_are_seen(self) -> None:
        statement = insert(users)
        option = with_loader_criteria(User, User.id > 1)

        assert not _compat.has_options(statement)
        assert _compat.has_options(statement.options(option))

    def test_it_is_never_cached(self) -> None:
        assert self.statement()._generate_cache_key() is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [((1, "x"), False), ((1, func.now()), True), ((select(users.c.id), 1), True)],
)
def test_values_that_are_expressions_are_seen(row: tuple[Any, Any], expected: bool) -> None:
    rows = sqlalchemy.values(Column("a", Integer), Column("b", String), name="v")

    assert _compat.has_expressions(rows.data([(2, "y")]).data([row])) is expected


class InItsOwnForm(_compat.ExpandsLists, PGCompiler):
    """Writes each list of two values and more as one parameter."""

    long_list = 2

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._variants = {}
        super().__init__(*arguments, **keywords)

    def list_form(self, name: str) -> _compat.ListForm:
        return _compat.ListForm((name, f"{name}_more"), f"= ANY (:{name})", f"<> ALL (:{name})")

    def list_values(self, parameters: Any, *, least: int) -> Any:
        return {
            name: ("text", "more")
            for name, value in parameters.items()
            if isinstance(value, list) and len(value) >= least
        }


class OwnForms(postgresql):  # type: ignore[misc]
    statement_compiler = InItsOwnForm
    supports_statement_cache = False


class TestListsInTheirOwnForms:
    def statement(self) -> Any:
        short = literal(1).in_(bindparam("short", expanding=True))
        long = literal(1).not_in(bindparam("a %long", expanding=True))
        return select(short, long, literal(1).in_(bindparam("a %long", expanding=True)))

    def test_a_long_list_is_written_anew(self) -> None:
        compiled = self.statement().compile(dialect=OwnForms())
        values = {"short": [5], "a %long": [6, 7]}
        state = compiled.construct_expanded_state(values, escape_names=False)

        assert "IN (%(short_1)s" in state.statement
        assert "<> ALL (:a %long)" in state.statement
        assert "= ANY (:a %long)" in state.statement
        assert "POSTCOMPILE" not in state.statement
        assert state.parameters["a %long"] == [6, 7]
        assert state.processors["a %long"]([6, 7]) == "text"
        assert state.parameters["a %long_more"] == "more"
        assert state.parameter_expansion == {"short": ["short_1"]}

    def test_all_are_if_that_is_asked_for(self) -> None:
        compiled = self.statement().compile(dialect=OwnForms())
        state = compiled.expanded({"short": [5], "a %long": [6, 7]})

        assert "= ANY (:short)" in state.statement
        assert state.processors["short"]([5]) == "text"
        assert not state.parameter_expansion
        assert compiled.string.count(_compat.list_marker(compiled, "a %long")) == 2
        assert compiled.string.count(_compat.list_marker(compiled, "short")) == 1

    def test_the_type_that_values_are_cast_to(self) -> None:
        compiled: Any = select(literal(1)).compile(dialect=ShardsDialect())

        assert _compat.cast_of(BigInteger(), compiled) == "BIGINT"
        assert _compat.cast_of(String(5), compiled) == "VARCHAR"
        assert _compat.cast_of(Numeric(), compiled) is None


def test_versions_are_held_against_those_of_loaded_rows() -> None:
    (load_options,) = _compat.checking_versions().values()

    assert load_options._version_check
    assert list(_compat.checking_versions()) == ["_sa_orm_load_options"]


def test_a_greenlet_that_may_await_gives_its_parent_what_it_awaits() -> None:
    given: list[Any] = []

    def branch() -> None:
        given.append(_compat.in_greenlet())
        given.append(_compat.await_only("an awaitable"))  # type: ignore[arg-type]

    awaiting = greenlet(branch)
    _compat.let_await(awaiting)
    given.append(awaiting.switch())
    awaiting.switch("its value")

    assert given == [True, "an awaitable", "its value"]
    assert not _compat.in_greenlet()


def test_who_may_await_is_told_before_anything_is_awaited() -> None:
    branch = greenlet(lambda: None)
    with pytest.raises(MissingGreenlet):
        _compat.check_may_await(branch)

    _compat.let_await(branch)

    _compat.check_may_await(branch)


def test_the_driver_connection_of_an_execution_is_found(engine: Any) -> None:
    found = []
    with engine.connect() as connection:
        event.listen(
            connection,
            "before_cursor_execute",
            lambda *given: found.append(_compat.driver_connection(given[4])),
        )
        connection.execute(select(1))
        own = connection.connection.dbapi_connection

    assert found == [own]
