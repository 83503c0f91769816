"""What tables are: by the models, by the revisions that created them, and by who has them.

- No revision is written that changes what a table is: its rows would have to move.
- What other shards have is asked of one that is at the same revisions; another says nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.autogenerate.written import GLOBAL, described, written_in
from sqlalchemy_shards.migrations.turns.version_table import revisions_in
from sqlalchemy_shards.models.distribution import distribution_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection, Table

    from sqlalchemy_shards.migrations.autogenerate.arranging import TableName
    from sqlalchemy_shards.migrations.turns.place import Place

log = logging.getLogger("alembic.shards")

TableNames: TypeAlias = "frozenset[TableName]"

_TABLES: Final = text(
    """
    SELECT nullif(n.nspname, current_schema()), c.relname
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    """
)


@dataclass(frozen=True, slots=True)
class Kinds:
    """What is known of the tables of one cluster.

    :param modelled: what each table of the models is; None: it does not say.
    :param silent: tables of the models that say nothing, and are global for that.
    :param written: what the revisions say of the tables that they created.
    :param here: the tables on the shard that is compared.
    :param elsewhere: those on another shard at the same revisions, where the global one is
        compared; None: there is none to ask.
    :param place: the shard that is compared; None: it is not known, nor are others.
    """

    modelled: Mapping[TableName, str | None]
    silent: TableNames
    written: Mapping[TableName, str]
    here: TableNames
    elsewhere: TableNames | None
    place: Place | None

    def is_global(self, table: TableName) -> bool:
        """Whether a table is on the global shard only."""
        kind = self.kind(table)
        if kind is not None or table in self.modelled:
            return kind == GLOBAL
        return self._is_alone_here(table)

    def kind(self, table: TableName) -> str | None:
        """What a table is, where models or revisions tell."""
        return self.modelled[table] if table in self.modelled else self.written.get(table)

    @property
    def is_on_global_shard(self) -> bool:
        """Whether the global shard is compared."""
        return self.place is not None and self.place.is_global

    @property
    def is_alone(self) -> bool:
        """Whether the cluster has one shard, which does not tell what its tables are."""
        return self.place is None or len(self.place.cluster.shards) == 1

    def check(self) -> None:
        """Check that the tables that are there are what the models say.

        :raises ConfigurationError: one was created as something else.
        """
        there = [table for table in sorted(self.modelled, key=str) if table in self.here]
        faults = [fault for table in there for fault in self._faults(table)]
        if faults:
            raise ConfigurationError(
                "the models say of tables that they are what they are not:",
                "let the models say it as before, or create a new table and move the rows there; if"
                " it is the same in other words, write them into the revision that created it; of"
                " empty copies, drop them where they are",
                faults=faults,
            )

    def _faults(self, table: TableName) -> Iterator[str]:
        name = ".".join(part for part in table if part)
        declared, created = self.modelled[table], self.written.get(table)
        if declared is not None and created is not None and declared != created:
            yield f"table {name!r} is declared as {declared}, and was created as {created}"
        elif created is not None or table in self.silent:
            return
        elif declared == GLOBAL and self._is_spread(table):
            yield f"table {name!r} is declared global, and other shards than the global one have it"
        elif declared != GLOBAL and self._is_alone_here(table):
            yield f"table {name!r} is not declared global, and the global shard alone has it"

    def _is_spread(self, table: TableName) -> bool:
        if self.is_on_global_shard:
            return self.elsewhere is not None and table in self.elsewhere
        return self.place is not None

    def _is_alone_here(self, table: TableName) -> bool:
        return self.elsewhere is not None and table not in self.elsewhere


def kinds_of(tables: Iterable[Table], context: MigrationContext, place: Place | None) -> Kinds:
    """Look at the shard that is compared, and at another."""
    assert context.connection is not None
    default_schema = context.connection.dialect.default_schema_name
    modelled: dict[TableName, str | None] = {}
    silent = set()
    for table in tables:
        name = (None if table.schema == default_schema else table.schema, table.name)
        modelled[name] = _kind(table, place)
        if distribution_of(table) is None:
            silent.add(name)
    written = {} if context.script is None else written_in(context.script, default_schema)
    here = tables_of(context.connection)
    # Of a shard that is not the global one, others tell nothing that is asked.
    elsewhere = _elsewhere(context, place) if place is not None and place.is_global else None
    return Kinds(modelled, frozenset(silent), written, here, elsewhere, place)


def tables_of(connection: Connection) -> TableNames:
    """The tables of a database; those of the default schema without it."""
    return frozenset((schema, name) for schema, name in connection.execute(_TABLES))


def _elsewhere(context: MigrationContext, place: Place) -> TableNames | None:
    revisions = set(context.get_current_heads())
    for name, shard in place.cluster.shards.items():
        if name == place.shard:
            continue
        try:
            with shard.engine.connect() as connection:
                driver: Any = connection.connection.driver_connection
                if set(revisions_in(driver, context.opts)) == revisions:
                    return tables_of(connection)
        except (psycopg.Error, SQLAlchemyError) as error:
            log.warning("shard %s could not be asked which tables it has: %s", name, error)
    return None


def _kind(table: Table, place: Place | None) -> str | None:
    distribution = distribution_of(table)
    if distribution is not None:
        return described(distribution)
    # With one shard, it is as with stock Alembic.
    return GLOBAL if place is not None and len(place.cluster.shards) > 1 else None
