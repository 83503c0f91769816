"""The walk of INSERT, UPDATE and DELETE."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.distribution import Reference, Sharded

from .conflicts import keys_set_on_conflict, why_conflict_unseen
from .inserts import inserted_key
from .scopes import Scope, Standing
from .selected_rows import selected_key, walk_selected
from .set_parts import parts_set
from .sources import StatementKind, StatementSources
from .targets import plain_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import FromClause

    from .sources import SetPart
    from .walk import Walk


def walk_modification(
    walk: Walk, statement: UpdateBase, compiled: SQLCompiler, rendered: Mapping[FromClause, int]
) -> StatementSources:
    """Walk an INSERT, UPDATE or DELETE."""
    target: Any = statement.table
    scope = Scope()
    if isinstance(statement, Insert):
        return _insert(walk, statement, target, compiled, rendered)
    assert isinstance(statement, (Update, Delete))
    kind = StatementKind.UPDATE if isinstance(statement, Update) else StatementKind.DELETE
    where = [statement.whereclause] if statement.whereclause is not None else []
    walk.from_element(target, scope, Standing(is_kept=True))
    values = _compat.dml_values(compiled) or {}
    others = _compat.extra_froms(compiled)
    for table in others:
        walk.from_element(table, scope, Standing(certain=tuple(where)))
    where += scope.certain
    scope.directly_enclosing = scope.enclosing = frozenset(scope.names)
    if _compat.is_embellished(statement):
        walk.unreadable = "it holds raw SQL text as prefix, suffix or hint"
    for expression in (*where, *values.values(), *_compat.returning(statement)):
        if hasattr(expression, "get_children"):
            walk.look_into(expression, scope)
    walk.restrict(where, scope, scope.own)
    for cte in _compat.dml_ctes(statement):
        walk.cte(cte)
    table = plain_table(target)
    distribution = walk.distribution(table)
    if others and isinstance(distribution, Reference) and isinstance(statement, Update):
        walk.hinder("UPDATE ... FROM picks one of several rows that match, each copy its own")
    changed: tuple[SetPart, ...] = ()
    if isinstance(distribution, Sharded) and isinstance(statement, Update):
        changed = parts_set(compiled, distribution, walk.key_types(table, distribution))
    return walk.result(kind, rendered, target=table, changed_key=changed)


def _insert(
    walk: Walk,
    statement: Insert,
    table: Table,
    compiled: SQLCompiler,
    rendered: Mapping[FromClause, int],
) -> StatementSources:
    distribution = walk.distribution(table)
    scope = Scope(names={table: None})
    selected = None
    if statement.select is not None and isinstance(distribution, Sharded):
        selected = walk_selected(walk, statement, compiled)
    elif statement.select is not None:
        walk.query(statement.select, None, is_from=True, depth=1)
        if walk.sources or walk.globals:
            walk.hinder("INSERT ... SELECT would have to move rows between shards")
    clause = _compat.post_values_clause(statement)
    changed: tuple[SetPart, ...] = ()
    unseen: str | None = None
    if clause is not None:
        if isinstance(distribution, Sharded):
            key_types = walk.key_types(table, distribution)
            changed = keys_set_on_conflict(clause, table, distribution, key_types, compiled)
            unseen = why_conflict_unseen(clause, table, distribution, walk.dialect)
        for expression in _compat.conflict_expressions(clause):
            walk.look_into(expression, scope)
    for expression in (*_compat.dml_expressions(compiled), *_compat.returning(statement)):
        walk.look_into(expression, scope)
    for cte in _compat.dml_ctes(statement):
        walk.cte(cte)
    walk.seen[table] += 1
    if isinstance(distribution, Sharded):
        key_types = walk.key_types(table, distribution)
        key = inserted_key(statement, compiled, table, distribution, key_types)
        if selected is not None:
            key = selected_key(key, selected, statement, compiled, key_types, walk)
        return walk.result(
            StatementKind.INSERT,
            rendered,
            target=table,
            inserted=replace(key, unseen_conflict=unseen),
            changed_key=changed,
        )
    return walk.result(StatementKind.INSERT, rendered, target=table)
