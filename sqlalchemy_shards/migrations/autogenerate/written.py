"""What a table is, as it stands in the revision that creates it.

Autogenerate writes it as ``info={'shards': 'reference'}``, and reads it when it writes the next
revision. The revisions are read as text, not run: what they compute is not known, and of a table
that no revision says anything of, nothing is known.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from alembic.operations import ops

from sqlalchemy_shards.migrations.autogenerate.arranging import table_of
from sqlalchemy_shards.models.distribution import INFO_KEY, Global, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from alembic.script import ScriptDirectory

    from sqlalchemy_shards.migrations.autogenerate.arranging import TableName
    from sqlalchemy_shards.models.distribution import Distribution

KEY: Final = "shards"
"""The name in a table's ``info`` of a revision."""

GLOBAL: Final = "global"

_KEYSPACE: Final = "default"

_Written: TypeAlias = "dict[TableName, str]"


def described(distribution: Distribution) -> str:
    """What a table is, as a revision says it."""
    if isinstance(distribution, Global):
        return GLOBAL
    if isinstance(distribution, Reference):
        return "reference"
    if distribution.beside is not None:
        return f"sharded beside {distribution.beside.table}"
    keyspace = "" if distribution.keyspace == _KEYSPACE else f" in {distribution.keyspace}"
    return f"sharded by {', '.join(distribution.key)}{keyspace}"


def write_down(
    operation: ops.MigrateOperation,
    kind: Callable[[TableName], str | None],
    default_schema: str | None,
) -> None:
    """Have the creation of a table say what it is, forwards or backwards.

    :param kind: what a table is, where that is known.
    """
    if not isinstance(operation, ops.CreateTableOp | ops.DropTableOp):
        return
    info: dict[Any, Any] = dict(operation.info or {})
    info.pop(INFO_KEY, None)
    table = table_of(operation, default_schema)
    known = None if table is None else kind(table)
    if known is not None:
        info[KEY] = known
    operation.info = info


def written_in(script: ScriptDirectory, default_schema: str | None) -> Mapping[TableName, str]:
    """What the revisions say of the tables that they leave behind."""
    written: _Written = {}
    for revision in reversed(list(script.walk_revisions())):
        path = Path(revision.path)
        if path.suffix != ".py":
            continue
        tree = ast.parse(path.read_bytes())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("upgrade"):
                _follow(_calls(node), written, default_schema)
    return written


def _follow(calls: Iterable[ast.Call], written: _Written, default_schema: str | None) -> None:
    for call in calls:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        arguments = [_value(each) for each in call.args[:2]]
        options = {each.arg: _value(each.value) for each in call.keywords}
        if not arguments or not isinstance(arguments[0], str):
            continue
        schema = options.get("schema")
        table = (None if schema == default_schema else schema, arguments[0])
        if name == "create_table":
            info = options.get("info")
            kind = info.get(KEY) if isinstance(info, dict) else None
            written.pop(table, None)
            if isinstance(kind, str):
                written[table] = kind
        elif name == "drop_table":
            written.pop(table, None)
        elif name == "rename_table" and table in written:
            written[table[0], str(arguments[-1])] = written.pop(table)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """The calls in a function, in the order in which they stand there."""
    found = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
    yield from sorted(found, key=lambda call: (call.lineno, call.col_offset))


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
