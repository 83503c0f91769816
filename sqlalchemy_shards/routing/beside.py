"""When rows of two tables whose columns are equal certainly lie on one shard.

They do where what is equal is the whole shard key of both, in one keyspace. And they do where it
names one row beside which both lie, or which is one of them: a joined child without shard-key
columns lies beside its base's row, which the base's primary key names on one shard only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy_shards.models.distribution import Sharded, anchor_of, distribution_of, identity_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Table

    from .scopes import Source


def lies_beside(one: Source, other: Source, equal: Collection[tuple[str, str]]) -> bool:
    """Whether a row of a source is on the shard of the other's rows that equal it.

    :param equal: keys of columns of the one and of the other.
    """
    return _have_one_key(one, other, equal) or _name_one_row(one, other, equal)


def _have_one_key(one: Source, other: Source, equal: Collection[tuple[str, str]]) -> bool:
    mine, its = one.sharded, other.sharded
    return (
        mine.beside is None
        and its.beside is None
        and mine.keyspace == its.keyspace
        and one.families == other.families
        and all(pair in equal for pair in zip(mine.key, its.key, strict=True))
    )


def _name_one_row(one: Source, other: Source, equal: Collection[tuple[str, str]]) -> bool:
    named = [identity_of(each.table, each.sharded) for each in (one, other)]
    if not named[0] or len(named[0]) != len(named[1]):
        return False
    if not all(pair in equal for pair in zip(*named, strict=True)):
        return False
    # By equality: the ORM annotates tables.
    return bool(anchor_of(one.table, one.sharded) == anchor_of(other.table, other.sharded))


def anchor_named(table: Table, sharded: Sharded) -> Table | None:
    """The table beside whose rows a table's rows lie, or itself where others lie beside its own."""
    if sharded.beside is not None:
        return anchor_of(table, sharded)  # type: ignore[no-any-return]
    tables = table.metadata.tables.values()
    said = [each for other in tables if isinstance(each := distribution_of(other), Sharded)]
    has_others = any(each.beside is not None and each.beside.table == table.key for each in said)
    return table if has_others else None
