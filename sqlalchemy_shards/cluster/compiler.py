"""SQLAlchemy's compiler, which also takes note of what it writes: tables, columns, functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg

from sqlalchemy_shards import _compat
from sqlalchemy_shards.routing.calls import Call, OwnCall, call_of
from sqlalchemy_shards.routing.raw_names import SEARCHES
from sqlalchemy_shards.routing.raw_text import SIMPLE_OPERATOR, is_constant
from sqlalchemy_shards.routing.scopes import table_below

from .dispatch.listed import form_of, is_list_membership, noted_list, texts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import BindParameter, Table
    from sqlalchemy.sql.selectable import FromClause

    from .dispatch.listed import NotedList
    from .plans import StatementPlan


class ShardsCompiler(_compat.ExpandsLists, _compat.KeepsOutermost, PGCompiler_psycopg):
    """Takes note of what it writes, so that an analysis can be held against it.

    Parameters are those of the statement; a type's `bind_expression()` may make more of them anew
    each time that it is compiled, of which the values are constants.

    Tables are counted in FROM lists and as targets. Columns are those of tables, also through
    aliases; a whole row of a table, as a value, is noted apart, and so are names without a table,
    which PostgreSQL looks up among all columns at hand.
    """

    plan: StatementPlan | None = None
    """What `plans` found out about the statement."""

    long_list = 17
    """Shorter lists stand in the SQL as SQLAlchemy writes them, where one shard answers alone."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.rendered_tables: Counter[FromClause] = Counter()
        self.rendered_columns: defaultdict[Table, set[str]] = defaultdict(set)
        self.rendered_calls: set[Call] = set()
        self.bare_names: set[str] = set()
        self.whole_rows: list[str] = []
        self.wrapped_binds: set[BindParameter[Any]] = set()
        self.raw_texts: list[str] = []
        self._memberships: list[tuple[BindParameter[Any], NotedList | None]] = []
        self._forms: dict[str, tuple[NotedList, _compat.ListForm]] | None = None
        self._variants = {}
        super().__init__(*arguments, **keywords)
        if self.literal_execute_params:  # an override would cost the statements without any
            self.construct_params = self._with_rendered  # type: ignore[method-assign]

    def _with_rendered(self, *arguments: Any, **keywords: Any) -> Any:
        """The values of the parameters, with those that are to be rendered into the SQL."""
        values = super().construct_params(*arguments, **keywords)
        names = [self.bind_names[bind] for bind in self.literal_execute_params]
        return _compat.WithRendered(values, names)

    @property
    def rendered_functions(self) -> set[str]:
        """The names of the functions that are called."""
        return {call.name for call in self.rendered_calls}

    def visit_binary(self, binary: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write an operator between two operands."""
        if is_list_membership(binary):
            self._memberships.append((binary.right, noted_list(binary, self)))
        return super().visit_binary(binary, *arguments, **keywords)

    def list_form(self, name: str) -> _compat.ListForm:
        """How a list is sent as arrays."""
        return self.list_forms[name][1]

    def list_values(
        self, parameters: Mapping[str, Any], *, least: int
    ) -> Mapping[str, tuple[Any, ...]]:
        """The lists that are sent as arrays, and these."""
        found: dict[str, tuple[Any, ...]] = {}
        for name, (noted, _) in self.list_forms.items():
            listed = parameters.get(name)
            if isinstance(listed, (list, tuple)) and len(listed) >= least:
                texts = texts_of(noted, listed, self.dialect)
                if texts is not None:
                    found[name] = texts
        return found

    @property
    def list_forms(self) -> Mapping[str, tuple[NotedList, _compat.ListForm]]:
        """Name -> the lists that can be sent as arrays."""
        if self._forms is None:
            noted: dict[str | None, set[NotedList | None]] = {}
            for bind, each in self._memberships:
                noted.setdefault(self.bind_names.get(bind), set()).add(each)
            self._forms = {
                name: (one, form)
                for name, (one, *others) in noted.items()
                if name and one and not others and (form := form_of(one, name, self)) is not None
            }
        return self._forms

    def visit_bindparam(self, bindparam: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write a parameter."""
        if keywords.get("skip_bind_expression"):  # within what a type's bind_expression() gave
            self.wrapped_binds.add(bindparam)
        return super().visit_bindparam(bindparam, *arguments, **keywords)

    def visit_table(self, table: Any, asfrom: Any = False, *arguments: Any, **keywords: Any) -> Any:
        """Write a table's name."""
        if asfrom:
            self.rendered_tables[table] += 1
        return super().visit_table(table, asfrom, *arguments, **keywords)

    def visit_column(self, column: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write a column's name."""
        table = table_below(column.table)
        if table is not None:
            self.rendered_columns[table].add(column.key)
        elif column.is_literal:
            self._note_text(column.name)
        elif column.table is None:
            self.bare_names.add(str(column.name))
        return super().visit_column(column, *arguments, **keywords)

    def visit_label(self, label: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write an expression with its label, or the label alone, as in GROUP BY."""
        is_name_alone = keywords.get("render_label_as_label") is label
        if is_name_alone:
            self.bare_names.add(str(label.name))
        return super().visit_label(label, *arguments, **keywords)

    def visit_textclause(self, textclause: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write raw SQL text."""
        self._note_text(textclause.text)
        return super().visit_textclause(textclause, *arguments, **keywords)

    def _note_text(self, text: str) -> None:
        if not is_constant(text):
            self.raw_texts.append(text)

    def visit_custom_op_binary(self, element: Any, operator: Any, **keywords: Any) -> Any:
        """Write an operator of ``op()``, which may be more than an operator."""
        self._note_operator(operator)
        if operator.opstring in SEARCHES:
            self._note_search(element)
        return super().visit_custom_op_binary(element, operator, **keywords)

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **keywords: Any) -> Any:
        """Write one that stands before its operand."""
        self._note_operator(operator)
        return super().visit_custom_op_unary_operator(element, operator, **keywords)

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, **keywords: Any) -> Any:
        """Write one that stands behind its operand."""
        self._note_operator(operator)
        return super().visit_custom_op_unary_modifier(element, operator, **keywords)

    def _note_operator(self, operator: Any) -> None:
        if not SIMPLE_OPERATOR.fullmatch(operator.opstring):
            self.raw_texts.append(operator.opstring)

    def visit_table_valued_column(self, element: Any, **keywords: Any) -> Any:
        """Write a FROM element's name where a value stands: its whole row."""
        table = table_below(element.scalar_alias)
        if table is not None:
            self.whole_rows.append(table.fullname)
        return super().visit_table_valued_column(element, **keywords)

    def visit_function(self, func: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write a call of a function."""
        if not isinstance(func, OwnCall):
            self.rendered_calls.add(call_of(func))
        return super().visit_function(func, *arguments, **keywords)

    def visit_match_op_binary(self, binary: Any, operator: Any, **keywords: Any) -> Any:
        """Write ``match()``, which calls functions of PostgreSQL's text search."""
        self._note_search(binary)
        has_configuration = "postgresql_regconfig" in binary.modifiers
        arity = 2 if has_configuration else 1
        self.rendered_calls.add(Call("plainto_tsquery", arity, has_configuration))
        return super().visit_match_op_binary(binary, operator, **keywords)

    def _note_search(self, binary: Any) -> None:
        # Of plain text PostgreSQL makes words by the configuration of the database.
        if not isinstance(binary.left.type, TSVECTOR):
            self.rendered_calls.add(Call("to_tsvector", 1))

    def visit_insert(self, insert_stmt: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write an INSERT, whose target is written without `visit_table`."""
        is_outermost = not self.stack
        written = super().visit_insert(insert_stmt, *arguments, **keywords)
        state: Any = self.dml_compile_state
        # The ORM's bulk INSERT into several tables is one statement with another table each time.
        target = state.statement.table if is_outermost else insert_stmt.table
        self.rendered_tables[target] += 1
        return written
