"""The three ways in which a table spreads over shards, and where a table notes its own.

A distribution stands in ``table.info`` under the name of this package. It is a plain value: it
names columns, and holds no table, shard or partitioner. A table's distribution is never replaced
by a different one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Table

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Column, FromClause

INFO_KEY: Final = "sqlalchemy_shards"
"""The name in ``Table.info`` under which a table's distribution stands."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Each row lies beside one row of another table, which has the shard key.

    :param table: key in ``MetaData.tables`` of the other table, its *anchor*.
    :param columns: for each column of the anchor's primary key, its key and that of the column here
        that equals it.
    """

    table: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sharded:
    """Each row lives on the one shard that its shard key decides.

    :param key: keys in ``table.c`` of the shard-key columns, in the order of the key's parts; of a
        table without such columns, in its anchor's.
    :param keyspace: name of the keyspace that places the keys.
    :param globally_unique: promise that a primary key without the shard key is unique over shards.
    :param beside: for a table without columns of the key: where its rows are. None: it has them.
    """

    key: tuple[str, ...]
    keyspace: str = "default"
    globally_unique: bool = False
    beside: Beside | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """Every shard holds a full copy."""


@dataclass(frozen=True, slots=True)
class Global:
    """The table is not sharded and lives on the cluster's global shard."""


Distribution: TypeAlias = Sharded | Reference | Global


def distribution_of(table: FromClause) -> Distribution | None:
    """How ``table`` spreads, or None where nothing was said; joins and aliases say nothing."""
    if not isinstance(table, Table):
        return None
    noted = table.info.get(INFO_KEY)
    if noted is None:
        # The ORM's annotated copies of a table keep the info of the moment they were made.
        original = table.metadata.tables.get(table.key)
        noted = None if original is None else original.info.get(INFO_KEY)
    return noted


def key_columns(table: FromClause, sharded: Sharded) -> tuple[Column[Any], ...]:
    """The columns of a table's shard key, which may be those of its anchor."""
    holder = anchor_of(table, sharded)
    return tuple(holder.c[name] for name in sharded.key)


def anchor_of(table: FromClause, sharded: Sharded) -> Any:
    """The table that holds the shard key of a table's rows: itself, or the one they lie beside."""
    if sharded.beside is None:
        return table
    assert isinstance(table, Table)
    return table.metadata.tables[sharded.beside.table]


def identity_of(table: FromClause, sharded: Sharded) -> tuple[str, ...]:
    """The columns that name a row of the anchor, in the order of the anchor's primary key."""
    if sharded.beside is not None:
        return tuple(own for _, own in sharded.beside.columns)
    return tuple(column.key for column in getattr(table, "primary_key", ()))


def note_distribution(table: Table, distribution: Distribution) -> None:
    """Note that ``table`` spreads like ``distribution``.

    :raises ConfigurationError: the table was declared before, and differently.
    """
    noted = distribution_of(table)
    if noted is not None and noted != distribution:
        raise ConfigurationError(
            f"table {table.fullname!r} is declared twice: as {noted} and as {distribution}",
            "declare it once, in its model or with one function",
        )
    table.info[INFO_KEY] = distribution
