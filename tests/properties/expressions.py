"""Expressions and conditions, composed freely over the fields of a scope."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Float,
    Integer,
    Interval,
    Numeric,
    Text,
    Uuid,
    all_,
    and_,
    any_,
    case,
    cast,
    collate,
    exists,
    extract,
    func,
    literal,
    not_,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tests.properties.scopes import (
    COMPARED,
    KINDS,
    NUMBERS,
    ORDERED,
    UNSTABLE,
    Field,
    Scope,
    of_kind,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.properties.choices import Choices

VALUES: dict[str, tuple[Any, ...]] = {
    "int": (0, 1, 2, -1, 3, 5, 7, 1950, 2000),
    "big": (0, 2**62, -(2**62), 1),
    "num": (Decimal("1"), Decimal("1.0"), Decimal("1.5"), Decimal("-2.50"), Decimal("10.00")),
    "text": ("a", "b", "B", "ä", "", "a ", "north", "in", "car", "_", "%"),
    "float": (0.5, 0.0, 0.25, float("nan")),
    "date": (date(2000, 1, 1), date(2000, 1, 2), date(1999, 12, 31)),
    "time": (datetime(2020, 2, 29, 12), datetime(2020, 2, 29, 12, 0, 0, 1)),
    "moment": tuple(datetime(2021, 3, 28, hour, 30, tzinfo=timezone.utc) for hour in range(3)),
    "uuid": (UUID(int=0), UUID(int=1 << 120), UUID(int=2 << 120)),
    "bool": (True, False),
    "json": ({"a": 1}, {}, []),
    "array": (["a"], [], ["b", None]),
    "interval": (timedelta(days=1), timedelta(0), timedelta(seconds=-1)),
}
TYPES_OF_VALUES: dict[str, Any] = {
    "int": Integer(),
    "num": Numeric(),
    "date": Date(),
    "time": DateTime(),
    "uuid": Uuid(),
    "bool": Boolean(),
    "text": Text(),
    "float": Float(53),
    "json": JSONB(),
    "array": ARRAY(Text),
    "interval": Interval(),
    "moment": DateTime(timezone=True),
    "big": BigInteger(),
}
KEY_VALUES: dict[str, tuple[Any, ...]] = {
    "int": (1, 2, 3, 5, 7, 1900, 2000, 9),
    "text": ("north", "a", "south", "ä", "West"),
    "num": (Decimal("1"), Decimal("1.5"), Decimal("-2.5")),
}
TYPED = {"json", "array", "interval", "float", "moment"}
COLLATIONS = ("C", "POSIX", "ucs_basic", "C.utf8")


class Expressions(ABC):
    """Composes expressions.

    :param turn: 0 or 1: the same statement with its first or its second values.
    :param collation: one of ICU, as the server calls it.
    """

    def __init__(self, choices: Choices, turn: int, collation: str) -> None:
        self.choices = choices
        self.turn = turn
        self.collation = collation
        self.is_simple = False
        """Whether tables stand alone, or beside what is co-located with them."""
        self.is_loose = False
        """Whether it is left to PostgreSQL which of equal values stands for all of them."""

    # -- values -----------------------------------------------------------------------------

    def value(self, kind: str) -> Any:
        """A value of this kind, another one in the other turn."""
        values = VALUES[kind]
        return (self.choices.pick(values), self.choices.pick(values))[self.turn]

    def bound(self, kind: str) -> Any:
        """A value, now and then NULL, as a parameter of its own type."""
        value = self.value(kind)
        if self.choices.chance(6):
            value = (value, None)[self.turn]
        return literal(value, TYPES_OF_VALUES[kind])

    def listed(self, kind: str) -> list[Any]:
        """Some values, or none."""
        values = (*VALUES[kind], None) if self.choices.chance(10) else VALUES[kind]
        both = [[self.choices.pick(values) for _ in range(self.choices.below(4))] for _ in range(2)]
        return both[self.turn]

    # -- expressions ------------------------------------------------------------------------

    def field(self, scope: Scope, kinds: Any = None) -> Field | None:
        """A field in scope, now and then one of a SELECT around."""
        wanted = kinds or tuple(COMPARED)
        inner = of_kind(scope.fields, wanted)
        around = scope.outer
        while around is not None and self.choices.chance(30):
            outer = of_kind(around.fields, wanted)
            if outer:
                return self.choices.pick(outer)
            around = around.outer
        return self.choices.pick(inner) if inner else None

    def any_field(self, scope: Scope) -> Field:
        """A field of this SELECT, of whatever kind."""
        return self.choices.pick(scope.fields)

    def expression(self, scope: Scope, kinds: Any = None, depth: int = 1) -> Field:
        """An expression of one of some kinds."""
        found = self.field(scope, kinds)
        if found is None:
            kind = self.choices.pick(list(kinds or ("int",)))
            return Field(self.bound(kind), kind)
        if depth == 0 or not self.choices.chance(20 if self.is_simple else 35):
            return found
        return self._composed(scope, found, depth)

    def _composed(self, scope: Scope, found: Field, depth: int) -> Field:
        kind, x = found.kind, found.expression
        if self.choices.chance(15):
            other = self.expression(scope, (kind,), 0).expression
            whether = self.condition(scope, depth - 1)
            return Field(case((whether, x), else_=other), kind)
        if self.choices.chance(20):
            return Field(func.coalesce(x, self.bound(kind)), kind)
        if kind == "int":
            return Field(self._integer(scope, x, depth), "int")
        if kind == "num":
            ways = (x * self.value("int"), func.round(x, 1), -x, x + self.bound("num"))
            return Field(self.choices.pick(ways), "num")
        if kind == "text":
            return self._text(x)
        if kind == "date":
            return Field(cast(extract("day", x), Numeric), "num")
        if kind == "bool":
            return Field(not_(x), "bool")
        return found

    def _integer(self, scope: Scope, x: Any, depth: int) -> Any:
        other = self.expression(scope, ("int",), 0).expression
        ways: list[Callable[[], Any]] = [
            lambda: x + other,
            lambda: x - self.value("int"),
            lambda: x * self.choices.pick((2, -1, 3)),
            lambda: x % self.choices.pick((2, 3)),
            lambda: func.abs(x),
            lambda: func.nullif(x, self.value("int")),
            lambda: func.greatest(x, other),
            lambda: -x,
            lambda: self.scalar(scope, depth - 1) if depth > 0 else x,
        ]
        return self.choices.pick(ways)()

    def _text(self, x: Any) -> Field:
        ways: list[Callable[[], Field]] = [
            lambda: Field(func.lower(x), "text"),
            lambda: Field(x + self.bound("text"), "text"),
            lambda: Field(func.substr(x, 1, self.choices.pick((1, 2))), "text"),
            lambda: Field(func.length(x), "int"),
            lambda: Field(collate(x, self.choices.pick((*COLLATIONS, self.collation))), "text"),
            lambda: Field(func.concat(x, "-", self.bound("text")), "text"),
        ]
        return self.choices.pick(ways)()

    def scalar(self, scope: Scope, depth: int) -> Any:
        """A scalar subquery that gives one row, correlated or not."""
        inner = self.inner(scope, depth)
        value = self.expression(Scope(inner.sources), ("int",), 0).expression
        ways = (func.count(), func.max(value), func.count(value.distinct()), func.min(value))
        query = select(self.choices.pick(ways))
        return self._within(query, inner, depth).scalar_subquery()

    # -- conditions -------------------------------------------------------------------------

    def condition(self, scope: Scope, depth: int = 1) -> Any:
        """A condition of any shape."""
        if depth > 0 and self.choices.chance(30):
            parts = [self.condition(scope, depth - 1) for _ in range(2 + self.choices.below(2))]
            return self.choices.pick((and_, or_))(*parts)
        if depth > 0 and self.choices.chance(10):
            return not_(self.condition(scope, depth - 1))
        if depth > 0 and self.choices.chance(30):
            return self.subquery(scope, depth - 1)
        if scope.shard_keys() and self.choices.chance(15):
            return self.key_condition(scope)
        return self.comparison(scope, depth)

    def key_condition(self, scope: Scope) -> Any:
        """A shard key that is known: one value, or several."""
        key = self.choices.pick(scope.shard_keys())
        is_one = self.choices.chance(50)
        conditions = []
        for column in key:
            values = KEY_VALUES[KINDS[column.key]]
            both = [[self.choices.pick(values) for _ in range(3)] for _ in range(2)]
            listed = both[self.turn]
            conditions.append(column == listed[0] if is_one else column.in_(listed))
        return and_(*conditions)

    def comparison(self, scope: Scope, depth: int) -> Any:
        """One expression against a value or against another expression."""
        left = self.expression(scope, None, depth - 1 if depth > 0 else 0)
        x, kind = left.expression, left.kind
        ways: list[Callable[[], Any]] = [
            lambda: x.is_not(None),
            lambda: x == self._other(scope, kind),
            lambda: x != self._other(scope, kind),
            lambda: x != self.bound(kind),
            lambda: x.is_distinct_from(self._other(scope, kind)),
            lambda: self._member(x, kind),
            lambda: x.is_(None),
        ]
        if kind in ORDERED and kind != "bool":
            ways += [
                lambda: x < self._other(scope, kind),
                lambda: x >= self._other(scope, kind),
                lambda: x.between(self.bound(kind), self.bound(kind)),
            ]
        if kind == "text":
            ways += [
                lambda: x.like(func.concat(self.bound("text"), "%")),
                lambda: x.contains(self.value("text"), autoescape=True),
            ]
        if kind in ("date", "time"):
            ways += [lambda: x < func.now(), lambda: x >= func.current_date()]
        return self.choices.pick(ways)()

    def _member(self, x: Any, kind: str) -> Any:
        if kind in TYPED:
            return x == self.bound(kind)
        listed = self.listed(kind)
        return x.not_in(listed) if self.choices.chance(30) else x.in_(listed)

    def _other(self, scope: Scope, kind: str) -> Any:
        if self.choices.chance(30):
            kinds = NUMBERS if kind in NUMBERS else (kind,)
            found = self.field(scope, kinds)
            if found is not None:
                return found.expression
        return self.bound(kind)

    def subquery(self, scope: Scope, depth: int) -> Any:
        """EXISTS, IN, ANY, ALL or a scalar comparison, correlated or not, negated or not."""
        inner = self.inner(scope, depth)
        wanted = self.field(inner, ("int",)) or self.field(Scope(inner.sources))
        outer = self.expression(scope, (wanted.kind,) if wanted else None, 0)
        if wanted is None or wanted.kind != outer.kind:
            query = self._within(select(literal(1)), inner, depth)
            return exists(query)
        ways: list[Callable[[], Any]] = [
            lambda: exists(self._within(select(literal(1)), inner, depth)),
            lambda: outer.expression.in_(self._within(select(wanted.expression), inner, depth)),
            lambda: ~exists(self._within(select(literal(1)), inner, depth)),
            lambda: outer.expression.not_in(self._within(select(wanted.expression), inner, depth)),
            lambda: outer.expression.in_(self._frequent(inner, wanted, depth)),
            lambda: exists(self._frequent(inner, wanted, depth)),
            lambda: self._row_in(scope, inner, wanted, outer, depth),
            lambda: self._quantified(inner, wanted, outer, depth),
            lambda: self._compared(inner, outer, depth),
        ]
        return self.choices.pick(ways)()

    def _frequent(self, inner: Scope, wanted: Field, depth: int) -> Any:
        """Values that come more often than once or twice."""
        self.choosing(wanted.kind)
        query = self._within(select(wanted.expression), inner, depth).group_by(wanted.expression)
        return query.having(func.count() > self.choices.pick((1, 2)))

    def _row_in(self, scope: Scope, inner: Scope, wanted: Field, outer: Field, depth: int) -> Any:
        more = self.choices.pick(Scope(inner.sources).fields)
        other = self.field(scope, (more.kind,))
        if other is None or more.kind in TYPED:
            return outer.expression.in_(self._within(select(wanted.expression), inner, depth))
        query = self._within(select(wanted.expression, more.expression), inner, depth)
        return tuple_(outer.expression, other.expression).in_(query)

    def _quantified(self, inner: Scope, wanted: Field, outer: Field, depth: int) -> Any:
        query = self._within(select(wanted.expression), inner, depth).scalar_subquery()
        quantifier = self.choices.pick((any_, all_))
        return outer.expression == quantifier(query)

    def _compared(self, inner: Scope, outer: Field, depth: int) -> Any:
        if outer.kind not in ("int", "num", "text", "date"):
            return exists(self._within(select(literal(1)), inner, depth))
        found = self.expression(Scope(inner.sources), (outer.kind,), 0).expression
        figure = self.choices.pick((func.max, func.min))(found)
        query = self._within(select(figure), inner, depth).scalar_subquery()
        return self.choices.pick((outer.expression >= query, outer.expression == query))

    def _within(self, query: Any, inner: Scope, depth: int) -> Any:
        """A subquery with its FROM list and perhaps a WHERE clause, tied to what is around."""
        query = query.select_from(*(source.element for source in inner.sources))
        conditions = [self.condition(inner, depth)] if self.choices.chance(70) else []
        outer, own = inner.outer, of_kind(Scope(inner.sources).fields, ("int", "text"))
        if outer is not None and own and self.choices.chance(50):
            mine = self.choices.pick(own)
            theirs = of_kind(outer.fields, (mine.kind,))
            if theirs:
                conditions.append(mine.expression == self.choices.pick(theirs).expression)
        return query.where(*conditions).correlate(*inner.around())

    @abstractmethod
    def inner(self, scope: Scope, depth: int) -> Scope:
        """The scope of a subquery within ``scope``."""

    def choosing(self, kind: str) -> None:
        """Note that one of several equal values will stand for all of them."""
        if kind in UNSTABLE:
            self.is_loose = True
