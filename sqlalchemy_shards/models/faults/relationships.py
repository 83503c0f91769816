"""Relationships that would have the ORM write rows which nothing holds together.

Reading is never a fault: a lazy load or select-in load finds its rows wherever they are, if need be
on all shards. Nor is many-to-one: it writes a column of its own row. But

- *one-to-many* writes the rows of the other side: it sets and clears their foreign keys, also when
  its own row is deleted. One PostgreSQL keeps the two together by a foreign key. Where no shard can
  keep that key, a child that is added meanwhile would be left behind.
- *many-to-many* writes rows that name both sides, which must lie beside both.

So both need what a foreign key needs, whether there is one or not. ``viewonly=True`` lifts that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import Table
from sqlalchemy.orm import RelationshipDirection

from sqlalchemy_shards.models.distribution import Global
from sqlalchemy_shards.models.faults.co_location import Cause, Side, equal_columns, obstacle
from sqlalchemy_shards.models.faults.foreign_keys import is_promised, pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column
    from sqlalchemy.orm import Mapper, RelationshipProperty

    from sqlalchemy_shards.models.faults.co_location import Obstacle
    from sqlalchemy_shards.models.faults.setting import Setting

Pairs = list[tuple["Column[Any]", "Column[Any]"]]


def relationship_faults(mapper: Mapper[Any], setting: Setting) -> Iterator[str]:
    """Relationships of ``mapper`` itself that write what cannot be kept together.

    ``mapper`` must be configured.
    """
    for relation in sorted(mapper.relationships, key=lambda each: each.key):
        if relation.parent is not mapper or relation.viewonly:
            continue
        if relation.direction is RelationshipDirection.ONETOMANY:
            yield from _one_to_many_faults(relation, setting)
        elif relation.direction is RelationshipDirection.MANYTOMANY:
            yield from _many_to_many_faults(relation, setting)


def _one_to_many_faults(relation: RelationshipProperty[Any], setting: Setting) -> Iterator[str]:
    own, other = relation.local_remote_pairs[0]
    pairs = list(equal_columns(relation.primaryjoin))
    found = _obstacle_between(other.table, own.table, pairs, setting)
    if found is not None:
        yield (
            f"relationship {relation} would write rows of {other.table.fullname!r} that no foreign "
            f"key can hold to theirs, since {found.reason}; set viewonly=True and write the "
            f"column from the other side, or {_MENDS[found.cause]}"
        )


def _many_to_many_faults(relation: RelationshipProperty[Any], setting: Setting) -> Iterator[str]:
    between = relation.secondary
    if not isinstance(between, Table):
        return
    sides = [
        (relation.parent, list(equal_columns(relation.primaryjoin))),
        (relation.mapper, list(equal_columns(relation.secondaryjoin))),
    ]
    if setting.spread(between) is None:
        said = [setting.spread(mapper.local_table) for mapper, _ in sides]
        if None not in said and not all(isinstance(each, Global) for each in said):
            yield (
                f"table {between.fullname!r}, the secondary of relationship {relation}, does not "
                f"say how it spreads; declare it beside its sharded side with "
                f"shard_table({between.name}, key=...), or, between two reference tables, with "
                f"reference_table({between.name})"
            )
        return
    for mapper, pairs in sides:
        found = _obstacle_between(between, _named_by(between, mapper, pairs), pairs, setting)
        if found is not None:
            yield (
                f"relationship {relation} cannot keep its rows in {between.fullname!r}, since "
                f"{found.reason}; shard both sides and the secondary by one key and compare it in "
                "both joins, or make one side a reference table, or set viewonly=True"
            )


def _named_by(between: Table, mapper: Mapper[Any], pairs: Pairs) -> Table:
    """The table whose rows the secondary names; of a joined hierarchy, the one that it joins."""
    for one, other in pairs:
        for column, named in ((one, other), (other, one)):
            if between.c.contains_column(column) and isinstance(named.table, Table):
                return named.table
    return cast("Table", mapper.local_table)


def _obstacle_between(
    child: Table, parent: Table, pairs: Pairs, setting: Setting
) -> Obstacle | None:
    child_said, parent_said = setting.spread(child), setting.spread(parent)
    if child_said is None or parent_said is None:
        return None
    found = obstacle(Side(child, child_said), Side(parent, parent_said), pairs, setting)
    if found is None or found.cause is not Cause.NOT_COMPARED:
        return found
    return None if _is_promised_between(child, parent, pairs) else found


def _is_promised_between(child: Table, parent: Table, pairs: Pairs) -> bool:
    """Whether a foreign key over ``pairs`` is said to stay within a shard key."""
    compared = {frozenset((one.key, other.key)) for one, other in pairs}
    for constraint in child.foreign_key_constraints:
        named = pairs_of(constraint)
        if named is None or named[0][1].table.key != parent.key or not is_promised(constraint):
            continue
        if {frozenset((one.key, other.key)) for one, other in named} <= compared:
            return True
    return False


_MENDS: Final = {
    Cause.KEYSPACES: "spread both tables by one key in one keyspace",
    Cause.NOT_COMPARED: "compare the shard keys of both in the foreign key and the join condition",
    Cause.TYPES: "give both columns one type",
    Cause.SPREAD: "shard both tables by one key",
    Cause.GLOBAL: "make both global tables",
}
