"""Choices -> a statement that writes, of which PostgreSQL does not leave the outcome open.

What is set follows from the row itself, however many rows of FROM match it, and RETURNING names the
columns of the table alone. Rows that are inserted differ in their primary keys, and an INSERT does
not meet both a missing user and a row that is there already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Table, cast, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from tests.properties.entities import Entities
from tests.properties.scopes import KINDS, SHARD_KEYS, Field, Scope, Source
from tests.properties.world import (
    Country,
    Document,
    Event,
    Flag,
    Note,
    Order,
    Page,
    Sample,
    Store,
    User,
    Vehicle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.properties.choices import Choices

TARGETS = (User, Order, Event, Note, Store, Document, Page, Sample, Vehicle, Flag, Country)
EXTREMES = ("int", "text", "num", "date")
"""Kinds of which there is a greatest value."""
KEPT = frozenset({"kind"})
"""What says of a row to which class it belongs."""


@dataclass(frozen=True)
class Write:
    """A statement and the table that it changes."""

    statement: Any
    table: Table


def composed_write(choices: Choices, turn: int, collation: str) -> Write:
    """Compose a statement; the same choices give the same one, with other values per turn."""
    return Writes(choices, turn, collation).write()


class Writes(Entities):
    """Composes UPDATE, DELETE and INSERT ... SELECT."""

    def write(self) -> Write:
        ways: list[Callable[[], Write]] = [self._changed] * 2 + [self._changed_from]
        ways += [self._deleted, self._deleted_using, self._inserted]
        return self.choices.pick(ways)()

    def _target(self) -> Source:
        model = self.choices.pick(TARGETS)
        table = model.__table__
        fields = [Field(each, KINDS[each.key]) for each in table.c if each.key in KINDS]
        return Source(table, fields, list(table.primary_key.columns), model, table.c.__getitem__)

    def _changed(self) -> Write:
        target = self._target()
        return self._returning(self._set(target).where(*self._conditions(target)), target)

    def _changed_from(self) -> Write:
        target = self._target()
        conditions = [*self._conditions(target), *self._beside(target)]
        return self._returning(self._set(target).where(*conditions), target)

    def _deleted(self) -> Write:
        target = self._target()
        return self._returning(delete(target.element).where(*self._conditions(target)), target)

    def _deleted_using(self) -> Write:
        target = self._target()
        conditions = [*self._conditions(target), *self._beside(target)]
        return self._returning(delete(target.element).where(*conditions), target)

    def _conditions(self, target: Source) -> list[Any]:
        scope = Scope([target])
        depths = [1 + self.choices.below(2) for _ in range(self.choices.below(3))]
        return [self.condition(scope, depth) for depth in depths]

    def _beside(self, target: Source) -> list[Any]:
        """Conditions that bring another source into FROM or USING."""
        other = self.source(2) if self.choices.chance(60) else self.table()
        found = [self._on(target, other)]
        if self.choices.chance(50):
            found.append(self.condition(Scope([target, other]), 1))
        return found

    def _returning(self, statement: Any, target: Source) -> Write:
        table = target.element
        if self.choices.chance(50):
            statement = statement.returning(*table.c)
        return Write(statement, table)

    # -- what is set ------------------------------------------------------------------------

    def _set(self, target: Source) -> Any:
        """An UPDATE of columns in no key; a DELETE where the table has no others."""
        assert target.model is not None
        fixed = {each.key for each in target.keys or ()} | {*SHARD_KEYS.get(target.model, ())}
        free = [each for each in target.fields if each.expression.key not in fixed | KEPT]
        if not free:
            return delete(target.element)
        chosen = self.choices.some(free, 1, 2)
        values = {each.expression: self._new_value(target, each) for each in chosen}
        return update(target.element).values(values)

    def _new_value(self, target: Source, field: Field) -> Any:
        scope, kind = Scope([target]), field.kind
        if kind in EXTREMES and self.choices.chance(30):
            inner = self.inner(scope, 1)
            found = self.expression(Scope(inner.sources), (kind,), 0)
            query = self._within(select(func.max(found.expression)), inner, 1)
            return cast(query.scalar_subquery(), field.expression.type)
        found = self.expression(scope, (kind,), 1)
        value = found.expression if found.kind == kind else self.bound(kind)
        return cast(value, field.expression.type)

    # -- what is inserted -------------------------------------------------------------------

    def _inserted(self) -> Write:
        """INSERT ... SELECT of keys that are new, or that are there already here and there."""
        query = self.query(2) if self.choices.chance(70) else self.select(2)
        rows = query.statement.subquery()
        numbers = [rows.c[name] for name, kind in query.columns if kind == "int"]
        number = cast(numbers[0] if numbers else literal(3), BigInteger)
        key = func.abs(func.coalesce(number % 30, 4)).label("key")
        model = self.choices.pick((Event, Order, Note))
        table: Table = model.__table__
        beside = "year" if model is Event else "user_id"
        is_new = model is Note or self.choices.chance(50)
        if is_new and self.choices.chance(50):
            # All columns decide, so that rows which are alike have any of their numbers.
            place = func.row_number().over(order_by=[rows.c[name] for name, _ in query.columns])
            chosen = select(key, (place + 5000).label("id"))
        else:
            chosen = select(key, (key + 7000 if is_new else key % 3).label("id")).distinct()
        statement = insert(table).from_select([beside, "id"], chosen)
        statement = self._conflicting(statement, table, is_new=is_new)
        if self.choices.chance(50):
            statement = statement.returning(table.c[beside], table.c.id)
        return Write(statement, table)

    def _conflicting(self, statement: Any, table: Table, *, is_new: bool) -> Any:
        keys = list(table.primary_key.columns)
        # A missing user and a row that is there would be two errors.
        ways = ["nothing", "update"] if table.name == "orders" and not is_new else []
        way = self.choices.pick(ways or ["nothing", "", "update"])
        if way == "nothing":
            return statement.on_conflict_do_nothing()
        if way == "update":
            name = {"events": "title", "orders": "name", "notes": "body"}[table.name]
            changed = {name: self.bound("text")}
            return statement.on_conflict_do_update(index_elements=keys, set_=changed)
        return statement
