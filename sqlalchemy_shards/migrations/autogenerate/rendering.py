"""The Python text of our operations in a revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.autogenerate.render import renderers
from alembic.operations import ops

from sqlalchemy_shards.migrations.autogenerate.arranging import GlobalShardOps, OutsideFirst
from sqlalchemy_shards.migrations.operations.indexes import (
    CreateIndexConcurrentlyOp,
    DropIndexConcurrentlyOp,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from alembic.autogenerate.api import AutogenContext

_INDENT = " " * 4


@renderers.dispatch_for(GlobalShardOps)
def render_global_shard(context: AutogenContext, container: GlobalShardOps) -> list[str]:
    """A block that runs on the global shard; nothing where nothing would stand in it."""
    body = list(_indented(_lines(context, container)))
    if not body:
        return []
    # One text of several lines: the printer that Alembic gives it to indents first lines only.
    return ["\n".join([f"if {_prefix(context)}is_global_shard():", *body])]


@renderers.dispatch_for(OutsideFirst)
def render_all(context: AutogenContext, container: OutsideFirst) -> list[str]:
    """What stands in it, one after the other."""
    return _lines(context, container)


@renderers.dispatch_for(CreateIndexConcurrentlyOp)
def render_create_index(context: AutogenContext, operation: CreateIndexConcurrentlyOp) -> str:
    """As Alembic writes an index, under another name."""
    return _renamed(context, operation, ops.CreateIndexOp, "create_index")


@renderers.dispatch_for(DropIndexConcurrentlyOp)
def render_drop_index(context: AutogenContext, operation: DropIndexConcurrentlyOp) -> str:
    """The index by its name and its table's."""
    schema = f", schema={operation.schema!r}" if operation.schema else ""
    return (
        f"{_prefix(context)}drop_index_concurrently({str(operation.index_name)!r},"
        f" {operation.table_name!r}{schema})"
    )


def _renamed(
    context: AutogenContext,
    operation: ops.MigrateOperation,
    kind: type[ops.MigrateOperation],
    name: str,
) -> str:
    text: str = renderers.dispatch(kind)(context, operation)
    prefix = _prefix(context)
    return text.replace(f"{prefix}{name}(", f"{prefix}{name}_concurrently(", 1)


def _lines(context: AutogenContext, container: ops.OpContainer) -> list[str]:
    lines: list[str] = []
    for operation in container.ops:
        rendered = renderers.dispatch(operation)(context, operation)
        lines += [rendered] if isinstance(rendered, str) else rendered
    return lines


def _indented(lines: Iterable[str]) -> Iterator[str]:
    """Lines in the form that Alembic's printer takes: it indents after a colon, until a blank."""
    depth = 1
    for line in lines:
        if not line:
            depth -= 1
            continue
        yield from (_INDENT * depth + part for part in line.split("\n"))
        depth += line.endswith(":")


def _prefix(context: AutogenContext) -> str:
    return context.opts.get("alembic_module_prefix") or ""
