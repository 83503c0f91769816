"""Whether a row that names another row lies beside it, on every shard where it is.

Only then can PostgreSQL keep a foreign key between the two, and only then does a write to both
concern one shard. Nothing is guessed: what the compared columns do not prove is an obstacle.

====================  ==============================  =========  =======
a row of a            names a row of a sharded table  reference  global
====================  ==============================  =========  =======
sharded table         same keyspace, keys compared    yes        no
reference table       no                              yes        no
global table          no                              yes        yes
====================  ==============================  =========  =======
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from sqlalchemy import BinaryExpression, BooleanClauseList, Column
from sqlalchemy.sql import operators

from sqlalchemy_shards.models.distribution import Global, Reference, Sharded
from sqlalchemy_shards.models.generated_id import carries_bucket
from sqlalchemy_shards.models.key_types import KeyFamily, family_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.engine import Dialect

    from sqlalchemy_shards.models.distribution import Distribution
    from sqlalchemy_shards.models.faults.setting import Setting


class Cause(Enum):
    """Why the row that is named may lie elsewhere."""

    KEYSPACES = auto()
    NOT_COMPARED = auto()
    TYPES = auto()
    SPREAD = auto()
    GLOBAL = auto()


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A cause, and the sentence that tells it."""

    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class Side:
    """A table, and how it spreads."""

    table: Table
    said: Distribution

    @property
    def key(self) -> tuple[Column[Any], ...]:
        """The columns of its shard key; of its own, if it has them."""
        return (
            tuple(self.table.c[name] for name in self.said.key)
            if isinstance(self.said, Sharded) and self.said.beside is None
            else ()
        )

    def anchored(self, column: Column[Any]) -> tuple[str, str] | None:
        """The anchor, and the column of its primary key, that ``column`` equals, if any."""
        if not isinstance(self.said, Sharded) or not self.table.c.contains_column(column):
            return None
        if self.said.beside is None:
            return (self.table.key, column.key) if column.primary_key else None
        anchors = [anchors for anchors, own in self.said.beside.columns if own == column.key]
        return (self.said.beside.table, anchors[0]) if anchors else None


def obstacle(
    child: Side, parent: Side, equal: Iterable[tuple[Column[Any], Column[Any]]], setting: Setting
) -> Obstacle | None:
    """Why a row of ``child`` may name a row of ``parent`` that lies elsewhere, or None.

    :param equal: columns that are equal in both rows, in either order.
    """
    if isinstance(parent.said, Reference):
        return None
    if isinstance(parent.said, Global):
        if isinstance(child.said, Global):
            return None
        what = f"{parent.table.fullname!r} is a global table, whose rows are on one shard only"
        return Obstacle(Cause.GLOBAL, what)
    if not isinstance(child.said, Sharded):
        kind = "reference" if isinstance(child.said, Reference) else "global"
        what = (
            f"{parent.table.fullname!r} is sharded, so that no shard has all of its rows, and "
            f"{child.table.fullname!r} is a {kind} table"
        )
        return Obstacle(Cause.SPREAD, what)
    return _of_two_sharded(child, parent, list(equal), setting)


def _of_two_sharded(
    child: Side, parent: Side, equal: list[tuple[Column[Any], Column[Any]]], setting: Setting
) -> Obstacle | None:
    assert isinstance(child.said, Sharded)
    assert isinstance(parent.said, Sharded)
    if child.said.keyspace != parent.said.keyspace:
        what = (
            f"{child.table.fullname!r} is in keyspace {child.said.keyspace!r} and "
            f"{parent.table.fullname!r} in {parent.said.keyspace!r}"
        )
        return Obstacle(Cause.KEYSPACES, what)
    if any(carries_bucket(one.type) and carries_bucket(other.type) for one, other in equal):
        return None  # equal ids have one bucket, whose rows are moved together
    if _name_one_anchor(child, parent, equal):
        return None
    sides = (child, parent)
    parts = {pair: _part_of(pair[0], sides, setting) for pair in equal}
    compared = [
        (one, other)
        for (one, other), part in parts.items()
        if part is not None and part == _part_of(other, sides, setting)
    ]
    if len(child.said.key) != len(parent.said.key) or (
        len({parts[pair] for pair in compared}) < len(parent.said.key)
    ):
        what = (
            f"the shard key ({', '.join(child.said.key)}) of {child.table.fullname!r} is not "
            f"compared with that ({', '.join(parent.said.key)}) of {parent.table.fullname!r}"
        )
        return Obstacle(Cause.NOT_COMPARED, what)
    for one, other in compared:
        if _kind_of(one, setting.dialect) is not _kind_of(other, setting.dialect):
            what = (
                f"the shard keys {one} ({one.type!r}) and {other} ({other.type!r}) have types that "
                "are hashed differently"
            )
            return Obstacle(Cause.TYPES, what)
    return None


def _name_one_anchor(
    child: Side, parent: Side, equal: list[tuple[Column[Any], Column[Any]]]
) -> bool:
    """Whether both rows lie beside one row, or one of them beside the other."""
    if all(isinstance(each.said, Sharded) and each.said.beside is None for each in (child, parent)):
        return False
    found = set()
    for pair in equal:
        for one, other in (pair, pair[::-1]):
            anchored = child.anchored(one)
            if anchored is not None and anchored == parent.anchored(other):
                found.add(anchored)
    for side in (child, parent):
        if isinstance(side.said, Sharded) and side.said.beside is not None:
            beside = side.said.beside
            if found >= {(beside.table, anchors) for anchors, _ in beside.columns}:
                return True
    return False


def _part_of(column: Column[Any], sides: tuple[Side, Side], setting: Setting) -> int | None:
    """Which part of its table's shard key ``column`` is.

    Of its own table: the tables of a joined hierarchy agree in the parts of the key.
    """
    said = setting.spread(column.table)
    for side in sides:
        if side.table.c.contains_column(column):
            said = side.said  # which may not be noted yet
    if not isinstance(said, Sharded) or said.beside is not None or column.key not in said.key:
        return None
    return said.key.index(column.key)


def _kind_of(column: Column[Any], dialect: Dialect) -> KeyFamily | None:
    """The family, as far as hashing tells them apart: one number has one form."""
    family = family_of(column.type, dialect)
    return KeyFamily.INTEGER if family is KeyFamily.NUMERIC else family


def equal_columns(
    condition: ColumnElement[Any] | None,
) -> Iterator[tuple[Column[Any], Column[Any]]]:
    """The pairs of columns that ``condition`` always makes equal."""
    if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for clause in condition.clauses:
            yield from equal_columns(clause)
    elif (
        isinstance(condition, BinaryExpression)
        and condition.operator is operators.eq
        and isinstance(condition.left, Column)
        and isinstance(condition.right, Column)
    ):
        yield condition.left, condition.right
