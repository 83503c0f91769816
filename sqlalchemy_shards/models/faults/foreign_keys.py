"""Foreign keys that a shard cannot check with the rows that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import NoReferenceError

from sqlalchemy_shards.models.distribution import Sharded
from sqlalchemy_shards.models.faults.co_location import Cause, Side, obstacle
from sqlalchemy_shards.models.faults.setting import is_per_shard, label_of, names_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column, ForeignKeyConstraint, Table

    from sqlalchemy_shards.models.distribution import Distribution
    from sqlalchemy_shards.models.faults.setting import Setting

Pairs = list[tuple["Column[Any]", "Column[Any]"]]


def foreign_key_faults(table: Table, said: Distribution, setting: Setting) -> Iterator[str]:
    """Foreign keys of ``table`` that cannot be kept, or that would change its shard key."""
    for constraint in sorted(
        table.foreign_key_constraints, key=lambda each: tuple(each.column_keys)
    ):
        pairs = pairs_of(constraint)
        if pairs is None:
            continue
        parent = pairs[0][1].table
        parent_said = said if parent is table else setting.spread(parent)
        if parent_said is None:
            continue
        yield from _unkept(constraint, pairs, Side(table, said), Side(parent, parent_said), setting)
        yield from _cascade_faults(constraint, pairs, Side(table, said), parent_said)


def pairs_of(constraint: ForeignKeyConstraint) -> Pairs | None:
    """Columns of the constraint and those they refer to; None while these are not defined."""
    try:
        return [(element.parent, element.column) for element in constraint.elements]
    except NoReferenceError:
        return None


def is_promised(constraint: ForeignKeyConstraint) -> bool:
    """Whether the foreign key is said to name rows of the same shard key only."""
    return is_per_shard(constraint, *constraint.elements)


def _unkept(
    constraint: ForeignKeyConstraint, pairs: Pairs, child: Side, parent: Side, setting: Setting
) -> Iterator[str]:
    found = obstacle(child, parent, pairs, setting)
    if found is None or (found.cause is Cause.NOT_COMPARED and is_promised(constraint)):
        return
    yield (
        f"foreign key ({names_of(one for one, _ in pairs)}) of {child.table.fullname!r} to "
        f"{parent.table.fullname!r} cannot be checked within a shard: {found.reason}; "
        f"{_MENDS[found.cause]}"
    )


def _cascade_faults(
    constraint: ForeignKeyConstraint, pairs: Pairs, child: Side, parent_said: Distribution
) -> Iterator[str]:
    """ON UPDATE CASCADE into a shard key would leave rows on the shard of the old one."""
    if not isinstance(child.said, Sharded) or (constraint.onupdate or "").upper() != "CASCADE":
        return
    for position, name in enumerate(child.said.key):
        for one, other in pairs:
            stays = isinstance(parent_said, Sharded) and parent_said.key[
                position : position + 1
            ] == (other.key,)
            if one.key == name and not stays:
                yield (
                    f"shard key {label_of(one)} follows {label_of(other)} by ON UPDATE CASCADE, "
                    "which would change it in place; leave onupdate out of the foreign key"
                )


_MENDS: Final = {
    Cause.KEYSPACES: "take it away (a relationship finds its columns by foreign() too), or spread "
    "both tables by one key in one keyspace",
    Cause.NOT_COMPARED: "let a ForeignKeyConstraint map the shard key as well, part by part; or, "
    'if it names rows of the same key only, say so with info={"per_shard": True}; or take it away',
    Cause.TYPES: "give both columns one type",
    Cause.SPREAD: "take it away, or shard both tables by one key",
    Cause.GLOBAL: "make that one a reference table, or take the foreign key away",
}
