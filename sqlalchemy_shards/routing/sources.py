"""What the analysis of a statement finds, as data: no values, no connections."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .conditions import ANYWHERE, Constant, KeyCondition, Parameter

if TYPE_CHECKING:
    from sqlalchemy import Table

    from sqlalchemy_shards.models.key_types import KeyType

    from .scopes import Occurrence


class StatementKind(enum.Enum):
    """What a statement does."""

    SELECT = "select"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    OTHER = "other"

    @property
    def is_write(self) -> bool:
        """Whether it changes rows."""
        return self in (StatementKind.INSERT, StatementKind.UPDATE, StatementKind.DELETE)


@dataclass(frozen=True, slots=True)
class ShardedSource:
    """One occurrence of a sharded table.

    :param name: the table, or "table AS alias", for messages.
    :param keyspace: the keyspace that spreads the table.
    :param width: number of parts of its key.
    :param condition: what is known about the keys of the rows that matter, with what joins carry
        over from other tables.
    :param table: the table, for the session's locator.
    :param primary_key: the parameters that a whole primary key is compared with, in the order of
        its columns; None: it is not.
    :param stands_for_rows: each row of the answer holds one of its rows.
    """

    name: str
    keyspace: str
    width: int
    condition: KeyCondition = ANYWHERE
    table: Table | None = field(default=None, repr=False, compare=False)
    primary_key: tuple[Parameter, ...] | None = None
    stands_for_rows: bool = False


@dataclass(frozen=True, slots=True)
class InsertedKey:
    """Where the shard key of an inserted row comes from.

    :param columns: names of the key's columns, for messages.
    :param parameters: one per part of the key; None: the value is no parameter.
    :param rows: the same for each row of a VALUES list; none: there is no such list.
    :param lies_beside: the table has no columns of the key, and its rows lie beside the anchor's.
    :param anchor: the table that holds the key, if rows of others lie beside its own.
    :param identity: names of the parameters that name the anchor's row; None: they are none.
    :param is_selected: the rows come from a SELECT.
    :param key_types: of such rows, the kinds of the parts of the key.
    :param is_colocated: of such rows, each has the key of the sharded row that it is made of.
    :param unseen_conflict: why its ON CONFLICT would overlook a row of another shard, if it would.
    """

    table: str
    keyspace: str
    columns: tuple[str, ...]
    parameters: tuple[Parameter | None, ...]
    rows: tuple[tuple[Parameter | None, ...], ...] = ()
    lies_beside: bool = False
    anchor: Table | None = field(default=None, repr=False, compare=False)
    identity: tuple[str, ...] | None = None
    unseen_conflict: str | None = None
    is_selected: bool = False
    is_colocated: bool = False
    key_types: tuple[KeyType, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class SetPart:
    """A part of the target's shard key that a statement sets, in rows that are there already.

    :param column: key of its column.
    :param part: which part it is.
    :param value: what it is set to; None: only SQL knows it.
    """

    column: str
    part: int
    value: Parameter | Constant | None = None


@dataclass(frozen=True, slots=True)
class WrittenSource:
    """What an UPDATE or DELETE writes, also where it reads rows of other shards.

    :param root: the source that it writes; None: a global table.
    :param stay: tables of which it reads no rows but those that lie beside the written ones, or
        that every shard has; of the target itself, only those that it writes.
    """

    root: ShardedSource | None
    stay: frozenset[Table]


@dataclass(frozen=True, slots=True)
class StatementSources:
    """The tables of a statement and how its shards follow from them.

    :param roots: the sharded sources that decide the route: all others are joined to one of them
        by the whole shard key, so that their rows lie beside it.
    :param tables: display names of all sharded tables, for messages.
    :param reads_global: it names a global table.
    :param reads_reference: it names a reference table.
    :param obstacle: why the same statement on several shards, each with its own rows, would not
        add up to the answer; None: it does, as far as the tables go.
    :param unreadable: why it cannot be told which tables the statement reads; None: it can.
    :param locks_copies: it locks rows of a reference table, as FOR UPDATE does.
    :param is_plain: it is a SELECT that certainly writes nothing.
    :param is_key_by_key: it is a SELECT whose groups, distinct rows and windows, as far as it has
        any, are each made of rows with one and the same shard key.
    :param inserted: the key of inserted rows, for an INSERT into a sharded table.
    :param target: name of the table that is written.
    :param writes_reference: the target is a reference table.
    :param writes_global: the target is a global table.
    :param changed_key: parts of the shard key that an UPDATE, or DO UPDATE, sets.
    :param occurrences: the places of tables, for planning, of a SELECT that has an obstacle; none:
        they are to be found again.
    :param written: of an UPDATE or DELETE, unless it is of a reference table.
    """

    kind: StatementKind
    roots: tuple[ShardedSource, ...] = ()
    tables: tuple[str, ...] = ()
    reads_global: bool = False
    reads_reference: bool = False
    obstacle: str | None = None
    unreadable: str | None = None
    locks_copies: bool = False
    is_plain: bool = False
    is_key_by_key: bool = False
    inserted: InsertedKey | None = None
    target: str | None = None
    writes_reference: bool = False
    writes_global: bool = False
    changed_key: tuple[SetPart, ...] = ()
    occurrences: tuple[Occurrence, ...] = field(default=(), repr=False, compare=False)
    written: WrittenSource | None = None
