"""What was seen of the shards, and what a cluster needs of them: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy_shards.catalog.identity import Identity


@dataclass(frozen=True, slots=True)
class ServerSeen:
    """A running server, as a connection of the application sees it.

    :param version: as ``server_version_num``.
    :param started_at: in microseconds since 1970, which tells running servers apart.
    :param connections_max: connections that a role without privileges may have in the database.
    :param settings: those on which answers depend, by name.
    :param seconds_ahead: of the clock of this machine; negative: behind.
    :param seconds_unsure: by how much that may be wrong, as the answer took its time.
    """

    version: int
    started_at: int
    is_standby: bool = False
    is_read_only: bool = False
    prepared_transactions_max: int = 0
    wal_level: str = "logical"
    connections_max: int = 100
    settings: Mapping[str, str] = field(default_factory=dict)
    seconds_ahead: float = 0.0
    seconds_unsure: float = 0.0


@dataclass(frozen=True, slots=True)
class DatabaseSeen:
    """A database, and how it keeps and orders text.

    :param text: what must be alike on all shards, by name: encoding, provider, locales.
    :param collation_version: of the library that ordered the indexes; None: it has none.
    :param library_version: of the library that orders now.
    """

    oid: int
    text: Mapping[str, str] = field(default_factory=dict)
    collation_version: str | None = None
    library_version: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared transaction in a shard's database.

    :param is_ours: this cluster prepared it.
    :param may_finish: the application's role may; else it is named in ``owner``.
    """

    is_ours: bool
    age_seconds: float
    may_finish: bool = True
    owner: str = ""


@dataclass(frozen=True, slots=True)
class ColumnSeen:
    """A column, its type with length or digits as PostgreSQL writes it."""

    type: str
    is_nullable: bool
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class TableSeen:
    """A table that is there.

    :param columns: by name, in the order that the table has.
    :param rules: definitions of its constraints and indexes, without their names.
    :param lacking: privileges that the application's role does not have.
    """

    columns: Mapping[str, ColumnSeen]
    rules: frozenset[str] = frozenset()
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TablesSeen:
    """The tables of a shard.

    :param known: each that the models place here, None: it is not there.
    :param types: SQL of a column's type in the models -> as this server writes it.
    :param others: tables that the models do not place here.
    :param own_types: enums, domains, composite types and ranges, by name, as they are defined.
    """

    known: Mapping[str, TableSeen | None]
    types: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    own_types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What was seen of a shard that answered.

    :param may_use_schema: whether the role may use what the commit protocol uses.
    :param tables: None: nobody asked for them.
    """

    server: ServerSeen
    database: DatabaseSeen
    identity: Identity | None = None
    may_use_schema: bool = False
    prepared: tuple[Prepared, ...] = ()
    tables: TablesSeen | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Which database of which running server it is."""
        return (self.server.started_at, self.database.oid)


@dataclass(frozen=True, slots=True)
class ColumnExpected:
    """A column of the models; its type as SQL."""

    type: str
    is_nullable: bool


@dataclass(frozen=True, slots=True)
class TableExpected:
    """A table of the models.

    :param schema: None: the first of the search path that has it.
    :param columns: by name.
    """

    schema: str | None
    relation: str
    columns: Mapping[str, ColumnExpected]

    @property
    def name(self) -> str:
        """As people write it."""
        return self.relation if self.schema is None else f"{self.schema}.{self.relation}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a cluster needs of its shards.

    :param commits_atomically: whether one transaction may write on several of them.
    :param pools: shard -> connections that its pool may open; None: without a bound.
    :param tables: of the models, by name; None: nobody asked for them.
    :param undeclared: names of tables that do not say how they spread.
    """

    cluster: str
    commits_atomically: bool
    pools: Mapping[str, int | None] = field(default_factory=dict)
    tables: Mapping[str, TableExpected] | None = None
    undeclared: tuple[str, ...] = ()
