"""Which operations of a revision stand where: in what order, and on which shards.

- No operation overtakes another that stands in the same transaction: groups for the global shard
  are made of neighbours only, so that what depends on each other stays in Alembic's order.
- What cannot run in a transaction comes first, in both directions. All that is before it is
  committed by it, so a failure behind it would leave a revision half done; before the rest, a
  failure leaves nothing that running the revision again does not find and finish.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

from alembic.operations import ops

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.operations.indexes import (
    CreateIndexConcurrentlyOp,
    DropIndexConcurrentlyOp,
    without_concurrently,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

TableName: TypeAlias = "tuple[str | None, str]"
"""Schema and name; without a schema, the table is in the default one."""


class GlobalShardOps(ops.OpContainer):
    """Operations for the global shard alone."""

    def reverse(self) -> GlobalShardOps:
        """The same backwards."""
        return GlobalShardOps([each.reverse() for each in reversed(self.ops)])


class OutsideFirst(ops.OpContainer):
    """All operations of a revision of which some cannot run in a transaction; these come first."""

    def __init__(self, operations: Sequence[ops.MigrateOperation] = ()) -> None:
        super().__init__(sorted(operations, key=lambda each: not _is_outside(each)))

    def reverse(self) -> OutsideFirst:
        """The same backwards, but for what comes first."""
        return OutsideFirst([each.reverse() for each in reversed(self.ops)])


def arrange(
    operations: Iterable[ops.MigrateOperation],
    is_global: Callable[[TableName], bool],
    default_schema: str | None = None,
) -> list[ops.MigrateOperation]:
    """Arrange the operations that lead from the database to the models.

    :param is_global: whether a table is on the global shard only.
    :param default_schema: where tables are whose schema is not named; some operations name it.
    :raises ConfigurationError: an index is to be built outside of a transaction, and needs what
        the same revision does in one.
    """
    given = list(operations)
    created = {
        table_of(each, default_schema) for each in given if isinstance(each, ops.CreateTableOp)
    }
    outside: list[ops.MigrateOperation] = []
    inside: list[ops.MigrateOperation] = []
    for operation in given:
        if not isinstance(operation, ops.ModifyTableOps):
            inside.append(operation)
        elif table_of(operation, default_schema) in created:
            inside.append(_of_new_table(operation))
        else:
            concurrent, rest = _divided(operation)
            outside += concurrent
            inside += [rest] if rest.ops else []

    def belongs_to_global(operation: ops.MigrateOperation) -> bool:
        table = table_of(operation, default_schema)
        return table is not None and is_global(table)

    arranged = [*_grouped(outside, belongs_to_global), *_grouped(inside, belongs_to_global)]
    return [OutsideFirst(arranged)] if outside else arranged


def table_of(operation: ops.MigrateOperation, default_schema: str | None) -> TableName | None:
    """The table that an operation is about, if it is about one."""
    schema, name = getattr(operation, "schema", None), getattr(operation, "table_name", None)
    if isinstance(operation, ops.CreateForeignKeyOp):
        schema, name = operation.kw.get("source_schema"), operation.source_table
    return None if name is None else (None if schema == default_schema else schema, name)


def _grouped(
    operations: Iterable[ops.MigrateOperation],
    belongs_to_global: Callable[[ops.MigrateOperation], bool],
) -> Iterator[ops.MigrateOperation]:
    for on_global, group in groupby(operations, belongs_to_global):
        if on_global:
            yield GlobalShardOps(list(group))
        else:
            yield from group


def _is_outside(operation: ops.MigrateOperation) -> bool:
    if isinstance(operation, GlobalShardOps):
        return all(_is_outside(each) for each in operation.ops)
    return isinstance(operation, CreateIndexConcurrentlyOp | DropIndexConcurrentlyOp)


def _of_new_table(modified: ops.ModifyTableOps) -> ops.ModifyTableOps:
    """A new table has no rows and no readers: its indexes are built where it is created."""
    for operation in modified.ops:
        if isinstance(operation, ops.CreateIndexOp):
            operation.kw = without_concurrently(operation.kw)
    return modified


def _divided(
    modified: ops.ModifyTableOps,
) -> tuple[list[ops.MigrateOperation], ops.ModifyTableOps]:
    """What runs outside of a transaction, and the rest."""
    changed = {
        each.index_name
        for each in modified.ops
        if isinstance(each, ops.CreateIndexOp) and each.kw.get("postgresql_concurrently")
    }
    outside: list[ops.MigrateOperation] = []
    rest: list[ops.MigrateOperation] = []
    for operation in modified.ops:
        if isinstance(operation, ops.CreateIndexOp) and operation.index_name in changed:
            outside.append(CreateIndexConcurrentlyOp.of(operation))
            _check_columns(operation, modified, ops.AddColumnOp)
        elif isinstance(operation, ops.DropIndexOp) and operation.index_name in changed:
            outside.append(DropIndexConcurrentlyOp.of(operation))
            _check_columns(operation.reverse(), modified, ops.DropColumnOp)
        else:
            rest.append(operation)
    return outside, ops.ModifyTableOps(modified.table_name, rest, schema=modified.schema)


def _check_columns(
    index: ops.CreateIndexOp,
    modified: ops.ModifyTableOps,
    kind: type[ops.AddColumnOp | ops.DropColumnOp],
) -> None:
    options = " ".join(str(value) for value in index.kw.values())
    text = f"{' '.join(str(each) for each in index.columns)} {options}"
    for operation in modified.ops:
        if not isinstance(operation, kind):
            continue
        column = getattr(operation, "column_name", None) or operation.to_column().name
        if re.search(rf"\b{re.escape(column)}\b", text):
            raise ConfigurationError(
                f"the index {index.index_name!r} is built outside of a transaction, and the same"
                f" revision would add or drop its column {column!r} in one",
                "write two revisions: the column in one, the index in the other",
            )
