"""SQLAlchemy's compiler, which also counts the tables whose names it writes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg

if TYPE_CHECKING:
    from sqlalchemy.sql.selectable import FromClause

    from .plans import StatementPlan


class ShardsCompiler(PGCompiler_psycopg):
    """Counts tables in FROM lists and as targets, so that an analysis can be held against it."""

    plan: StatementPlan | None = None
    """What `plans` found out about the statement."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.rendered_tables: Counter[FromClause] = Counter()
        super().__init__(*arguments, **keywords)

    def visit_table(self, table: Any, asfrom: Any = False, *arguments: Any, **keywords: Any) -> Any:
        """Write a table's name."""
        if asfrom:
            self.rendered_tables[table] += 1
        return super().visit_table(table, asfrom, *arguments, **keywords)

    def visit_insert(self, insert_stmt: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write an INSERT, whose target is written without `visit_table`."""
        is_outermost = not self.stack
        written = super().visit_insert(insert_stmt, *arguments, **keywords)
        state: Any = self.dml_compile_state
        # The ORM's bulk INSERT into several tables is one statement with another table each time.
        target = state.statement.table if is_outermost else insert_stmt.table
        self.rendered_tables[target] += 1
        return written
