"""In what a shard differs from the models, by the comparison of Alembic's autogenerate.

Shards that are alike are compared once, with those of the models' tables that belong there.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, cast

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import SAWarning

from sqlalchemy_shards.migrations.env.comparing import options_on
from sqlalchemy_shards.migrations.turns.place import PLACE_KEY, Place

from .report import Difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import MetaData, Table

    from sqlalchemy_shards.cluster.cluster import Cluster

_THERE: Final = "there"


def unlike_models(
    cluster: Cluster,
    shards: Sequence[str],
    metadata: MetaData | Sequence[MetaData],
    options: Mapping[str, Any],
    seconds: float,
) -> list[Difference]:
    """Compare shards that are alike with the models, looking at the first of them.

    :param options: arguments of Alembic's ``context.configure()``.
    :param seconds: how long one statement may take.
    """
    shard = shards[0]
    settings = {
        "compare_type": True,
        **options_on(cluster, shard, options),
        PLACE_KEY: Place(cluster, shard),
    }
    with cluster.shards[shard].engine.connect() as connection:
        # A migration that runs holds locks on what is looked at.
        milliseconds = max(1, int(seconds * 1000))
        connection.execute(text(f"SET LOCAL statement_timeout = {milliseconds}"))
        context = MigrationContext.configure(connection, opts=settings)
        with warnings.catch_warnings():
            # Of what SQLAlchemy cannot read, as of constraints that are NOT VALID.
            warnings.simplefilter("ignore", SAWarning)
            found = list(_told(compare_metadata(context, cast("MetaData", metadata))))
        connection.rollback()
    return [Difference(tuple(shards), "models", *each) for each in found]


def _told(
    directives: Sequence[Any],
) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    """Subject, aspect, what is found and what is expected of Alembic's directives."""
    for each in directives:
        if isinstance(each, list):  # of one column
            for change in each:
                yield _changed(change)
            continue
        what, rest = each[0], each[1:]
        if what.startswith(("add_", "remove_")) and not what.endswith("_comment"):
            is_missing = what.startswith("add_")
            subject = _subject(what.partition("_")[2], rest)
            yield subject, None, None if is_missing else _THERE, _THERE if is_missing else None
        elif what.endswith("_table_comment"):
            table, other = rest[0], rest[1] if len(rest) > 1 else None
            found, expected = other, table.comment
            if what.startswith("remove"):
                found, expected = table.comment, None
            yield f"table {table.fullname}", "comment", found, expected
        else:
            # Of a plug-in of Alembic's.
            yield " ".join(str(part) for part in each if part is not None), None, None, _THERE


def _subject(kind: str, rest: Sequence[Any]) -> str:
    thing = rest[-1]
    if kind == "column":
        return f"column {_full(rest[0], rest[1])}.{thing.name}"
    if kind == "table":
        return f"table {thing.fullname}"
    table: Table | None = getattr(thing, "table", None)
    if table is None:
        return f"{kind} {getattr(thing, 'name', thing)}"
    columns = ", ".join(column.name for column in getattr(thing, "columns", ()))
    kind = {"fk": "foreign key"}.get(kind, kind)
    name = getattr(thing, "name", None)
    return f"{kind} {table.fullname}{f'.{name}' if name else ''} ({columns})"


def _changed(change: Sequence[Any]) -> tuple[str, str | None, str | None, str | None]:
    what, schema, table, column, _, found, expected = change
    aspect = what.partition("_")[2]
    return f"column {_full(schema, table)}.{column}", aspect, _value(found), _value(expected)


def _full(schema: str | None, table: str) -> str:
    return table if schema is None else f"{schema}.{table}"


def _value(value: Any) -> str | None:
    """A type, a default, or whether there may be NULL."""
    if value is None or value is False:
        return "no" if value is False else None
    if value is True:
        return "yes"
    argument = getattr(value, "arg", getattr(value, "sqltext", value))
    return str(getattr(argument, "text", argument))
