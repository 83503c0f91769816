"""What rows are copied into: the columns of one table, and the shard of each row.

The plan is that of an INSERT of the same columns, so a row goes where that would put it, and is
refused where that would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import Uuid, bindparam, insert
from sqlalchemy.types import TypeEngine

from sqlalchemy_shards.cluster.dispatch.carried_buckets import check_ids_of_row
from sqlalchemy_shards.cluster.dispatch.copies import check_all_known
from sqlalchemy_shards.cluster.dispatch.values import ExecutionValues
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.routing.router import shard_of_row

from .defaults import ClientDefaults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Column, Connection, Table

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.routing.router import Territory

    Row = Sequence[Any]


class CopiedRows(NamedTuple):
    """Some rows, and where they go.

    :param rows: what each column holds, as the driver takes it.
    :param shards: of each row; None: all of them go to the target's ``everywhere``.
    """

    rows: Sequence[Row]
    shards: Sequence[str] | None


class CopyTarget:
    """The columns of a table that rows are copied into.

    :param connection: of the cluster's engine.
    :param given: keys of the columns that rows have values for.
    :param constants: values of other columns, by their keys.
    :param is_text: what rows give is text that the server reads, but for the shard key.
    :raises UnsupportedStatement: the table cannot be filled by COPY as by INSERT.
    """

    def __init__(
        self,
        connection: Connection,
        table: Table,
        given: Sequence[str],
        constants: Mapping[str, Any],
        *,
        is_text: bool,
    ) -> None:
        self.table = table
        self.is_text = is_text
        self._connection = connection
        self._cluster: ClusterConnection = connection.connection.driver_connection  # type: ignore[assignment]
        self._defaults = ClientDefaults(table, given, constants, are_stored=is_text)
        self.keys = (*given, *self._defaults.keys)
        self._places = {key: place for place, key in enumerate(self.keys)}
        columns = [table.c[key] for key in self.keys]
        self.names = [column.name for column in columns]
        compiled: Any = insert(table).compile(
            dialect=connection.dialect,
            column_keys=list(self.keys),
            schema_translate_map=connection.get_execution_options().get("schema_translate_map"),
        )
        self._compiled = compiled
        self._plan = self._cluster.cluster.plans.plan_of(compiled)
        self._processors = [
            (place, processor)
            for place, column in enumerate(columns)
            if (processor := _processor(column, connection)) is not None
            and (not is_text or place >= len(given))
        ]
        made = self._defaults.keys  # text that is given is in the form that is stored
        self._read_by = {
            key: processor
            for key, processor in self._plan.processors.items()
            if not is_text or key in made
        }
        self._inserted = self._plan.sources.inserted
        self.everywhere = self._everywhere(self._cluster.territory)

    @property
    def name(self) -> str:
        """The table as SQL names it, in the schema that the connection translates its own to."""
        preparer = self._connection.dialect.identifier_preparer
        schema = self._connection.schema_for_object(self.table)
        named = preparer.format_table(self.table, use_schema=False)
        return named if schema is None else f"{preparer.quote_schema(schema)}.{named}"

    @property
    def is_every_copy(self) -> bool:
        """Whether each shard is to have all rows, and the first is to have them first."""
        return len(self.everywhere) > 1

    def prepared(self, given: Sequence[Row]) -> CopiedRows:
        """The rows as the driver takes them, and the shard of each.

        :raises Exception: one of them cannot be stored.
        """
        rows = given
        if self._defaults.keys:
            rows = self._defaults.added_to(given, self._connection, self._compiled)
        shards = None if self.everywhere else self._shards_of(rows)
        if self._plan.carried_ids is not None:
            self._check_ids(rows)
        if self._processors:
            changed: list[Any] = list(zip(*rows, strict=True))
            for place, processor in self._processors:
                changed[place] = map(processor, changed[place])
            rows = list(zip(*changed, strict=True))
        return CopiedRows(rows, shards)

    def _everywhere(self, territory: Territory) -> tuple[str, ...]:
        """The shards that all rows go to; none: each row goes to one of its own."""
        sources = self._plan.sources
        if len(territory.shards) == 1:
            return territory.shards
        if sources.writes_reference:
            check_all_known(territory)
            try:
                self._plan.prepared(self._compiled, self._cluster.facts)
            except Refusal as refusal:
                raise UnsupportedStatement(
                    f"reference table {sources.target!r} would not become the same on every shard: "
                    f"{refusal.reason}",
                    refusal.advice or "give a value for each column",
                ) from None
            return territory.shards
        if sources.inserted is None:
            return (territory.global_shard,)
        return ()

    def _shards_of(self, rows: Sequence[Row]) -> Sequence[str]:
        key, shard_map = self._plan.inserted_key, self._cluster.territory.shard_map
        place = None if key is None else self._places.get(key.name)
        if key is not None and place is not None and key.plain_type is not None:
            values = [row[place] for row in rows]
            if set(map(type, values)) == {key.plain_type}:
                shards = shard_map.shards_of_values(key.keyspace, values)
                if shards is not None and None not in shards:
                    return cast("Sequence[str]", shards)
        inserted = self._inserted
        assert inserted is not None
        return [shard_of_row(inserted, shard_map, self._values(row)) for row in rows]

    def _values(self, row: Row) -> ExecutionValues:
        return ExecutionValues(dict(zip(self.keys, row, strict=True)), self._read_by)

    def _check_ids(self, rows: Sequence[Row]) -> None:
        shard_map = self._cluster.territory.shard_map
        for row in rows:
            check_ids_of_row("COPY", self._plan, shard_map, self._values(row))


def _processor(column: Column[Any], connection: Connection) -> Callable[[Any], Any] | None:
    """What the column's type does to a value before it is sent.

    :raises UnsupportedStatement: it puts the value into an expression of SQL.
    """
    dialect = connection.dialect
    implementation = column.type.dialect_impl(dialect)
    if (
        type(implementation).bind_expression is not TypeEngine.bind_expression
        and implementation.bind_expression(bindparam("value", type_=column.type)) is not None
    ):
        raise UnsupportedStatement(
            f"the type of column {str(column)!r} writes its values within an expression of SQL, "
            "and COPY takes values only",
            "insert the rows with session.execute(insert(Model), rows)",
        )
    processor = implementation.bind_processor(dialect)
    if processor is None and isinstance(implementation, Uuid) and not implementation.as_uuid:
        # It lets text through, which the binary format has no form for.
        return lambda value: UUID(value) if isinstance(value, str) else value
    return processor
