"""SELECTs of every kind, composed freely: groups, windows, DISTINCT, set operations, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Date,
    Integer,
    cast,
    except_,
    except_all,
    func,
    intersect,
    intersect_all,
    literal,
    select,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.sql.expression import ScalarSelect
from sqlalchemy.sql.visitors import iterate

from tests.properties.aggregates import Aggregates
from tests.properties.scopes import (
    COMPARED,
    KINDS,
    ORDERED,
    TYPES,
    Field,
    Query,
    Scope,
    Source,
    of_kind,
)

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = (union_all, union, except_, intersect, except_all, intersect_all)


class Selects(Aggregates):
    """Composes SELECTs."""

    def query(self, depth: int, outer: Scope | None = None) -> Query:
        found = self.select(depth, outer)
        return self._cut(found) if self.choices.chance(15) else found

    def select(self, depth: int, outer: Scope | None = None) -> Query:
        """A SELECT that is neither ordered nor cut yet."""
        ways: list[Callable[[int, Scope | None], Query]] = [
            self.plain,
            self.plain,
            self.grouped,
            self.grouped,
            self.distinct,
            self.windowed,
        ]
        if outer is None and depth > 0:
            ways += [self.operation]
        return self.choices.pick(ways)(depth, outer)

    # -- plain ------------------------------------------------------------------------------

    def plain(self, depth: int, outer: Scope | None = None) -> Query:
        """Columns and expressions of one source or of several."""
        scope, query = self._begun(depth, outer)
        columns = [self.expression(scope, None, 1) for _ in range(1 + self.choices.below(3))]
        query = query.add_columns(*_labelled(columns))
        return Query(query, _named(columns), _ordered(scope.fields), scope.tiebreak(), is_open=True)

    def _begun(self, depth: int, outer: Scope | None) -> tuple[Scope, Any]:
        scope, froms, where = self.relation(depth, outer)
        if self.choices.chance(45):
            where = [*where, self.condition(scope, min(depth, 2))]
        query = select().select_from(*froms).where(*where)
        around = scope.around()
        return scope, query.correlate(*around) if around else query

    def distinct(self, depth: int, outer: Scope | None = None) -> Query:
        """DISTINCT, or DISTINCT ON with an order that decides."""
        scope, query = self._begun(depth, outer)
        columns = [self.expression(scope, COMPARED, 1) for _ in range(1 + self.choices.below(2))]
        if scope.shard_keys() and self.choices.chance(25):
            key = self.choices.pick(scope.shard_keys())
            columns = [*(Field(each, KINDS[each.key]) for each in key), columns[0]]
        for each in columns:
            self.choosing(each.kind)
        labelled = _labelled(columns)
        if self.choices.chance(30):
            keys = [each.expression for each in self.choices.some(_ordered(scope.fields), 1, 2)]
            query = query.add_columns(*labelled).distinct(*keys)
            query = query.order_by(*keys, *map(self.directed, scope.tiebreak()))
            inner = query.subquery()
            fields = [Field(inner.c[name], kind) for name, kind in _named(columns)]
            outside = select(*_labelled(fields))
            return Query(outside, _named(columns), _ordered(fields), list(inner.c))
        query = query.add_columns(*labelled).distinct()
        fields = [
            Field(label, f.kind, n)
            for n, (label, f) in enumerate(zip(labelled, columns, strict=True))
        ]
        names = [name for name, _ in _named(columns)]
        return Query(query, _named(columns), _ordered(fields), labelled, keys=names)

    # -- groups -----------------------------------------------------------------------------

    def grouped(self, depth: int, outer: Scope | None = None) -> Query:
        """GROUP BY in many ways, HAVING, or one row of aggregates."""
        scope, query = self._begun(depth, outer)
        how = self.choices.pick(
            ("plain", "plain", "plain", "whole", "key", "rollup", "cube", "sets")
        )
        if how == "whole":
            figures = [self.figure(scope) for _ in range(1 + self.choices.below(3))]
            query = query.add_columns(*_labelled(figures))
            return Query(self._having(query, scope), _named(figures), [], [])
        keyed = [s for s in scope.sources if s.model is not None and s.get is not None]
        if how == "key" and keyed:
            return self._by_key(scope, query, self.choices.pick(keyed))
        keys = self._keys(scope)
        if any(_holds_subquery(key.expression) for key in keys):
            # PostgreSQL 15 takes one for constant in ORDER BY, also where a subtotal has no value.
            how = "plain"
        figures = [self.figure(scope) for _ in range(self.choices.below(3))]
        labelled = _labelled([*keys, *figures])
        query = self._by(query.add_columns(*labelled), [k.expression for k in keys], how)
        tiebreak = [each.expression for each in keys]
        if how in ("rollup", "cube", "sets"):
            # Rows of subtotals can be alike: which grouping it is tells them apart.
            place = func.grouping(*(key.expression for key in keys))
            figures.append(Field(place, "int"))
            query = query.add_columns(place.label(f"c{len(keys) + len(figures) - 1}"))
            tiebreak.append(place)
        fields = [*keys, *figures]
        candidates = _ordered([Field(f.expression, f.kind, n) for n, f in enumerate(fields)])
        names = [name for name, _ in _named(keys)] if how in ("plain", "key") else None
        return Query(self._having(query, scope), _named(fields), candidates, tiebreak, keys=names)

    def _keys(self, scope: Scope) -> list[Field]:
        own = Scope(scope.sources)
        if own.shard_keys() and self.choices.chance(30):
            # Groups that lie on one shard each.
            key = self.choices.pick(own.shard_keys())
            keys = [Field(each, KINDS[each.key]) for each in key]
            keys += [self.expression(own, COMPARED, 1)] if self.choices.chance(40) else []
        else:
            depth = 1 if self.choices.chance(40) else 0
            keys = [self.expression(own, COMPARED, depth) for _ in range(1 + self.choices.below(2))]
        for each in keys:
            self.choosing(each.kind)
        return keys

    def _by(self, query: Any, keys: list[Any], how: str) -> Any:
        if how == "rollup":
            return query.group_by(func.rollup(*keys))
        if how == "cube":
            return query.group_by(func.cube(*keys))
        if how == "sets":
            return query.group_by(func.grouping_sets(*(tuple_(key) for key in keys)))
        return query.group_by(*keys)

    def _by_key(self, scope: Scope, query: Any, source: Source) -> Query:
        """By the whole primary key, on which all columns of the table depend."""
        assert source.keys is not None
        columns = [*self.choices.some(source.fields, 1, 2), self.figure(scope)]
        query = query.add_columns(*_labelled(columns)).group_by(*source.keys)
        query = self._having(query, scope)
        return Query(query, _named(columns), _ordered(source.fields), list(source.keys))

    def _having(self, query: Any, scope: Scope) -> Any:
        if not self.choices.chance(25):
            return query
        figure = self.plain_figure(scope)
        if figure.kind == "int":
            return query.having(figure.expression >= self.value("int"))
        return query.having(func.count() > self.choices.pick((0, 1, 2)))

    def failing(self) -> Any:
        """A SELECT that fails for some rows: a number too large, a division by zero, a text."""
        scope, query = self._begun(1, None)
        number = self.expression(scope, ("int",), 0).expression
        large = self.expression(scope, ("big",), 0)
        word = self.expression(scope, ("text",), 0).expression
        ways: list[Callable[[], Any]] = [
            lambda: func.sum(1 / number),
            lambda: cast(func.sum(large.expression) * 4, BigInteger),
            lambda: func.max(large.expression * 4) if large.kind == "big" else func.max(number),
            lambda: func.min(cast(word, Integer)),
            lambda: func.count(cast(word, Date).distinct()),
            lambda: func.sum(number) / func.nullif(func.count() - func.count(), 1),
        ]
        query = query.add_columns(self.choices.pick(ways)())
        if self.choices.chance(50):
            key = self.expression(scope, COMPARED, 0).expression
            query = query.add_columns(key).group_by(key)
        return query

    # -- windows ----------------------------------------------------------------------------

    def windowed(self, depth: int, outer: Scope | None = None) -> Query:
        """Window functions; over rows in a total order, or that see peers alike."""
        scope, query = self._begun(depth, outer)
        columns = [self.expression(scope, None, 0), self.window(scope)]
        if self.choices.chance(40):
            columns.append(self.window(scope))
        query = query.add_columns(*_labelled(columns))
        candidates = _ordered(scope.fields)
        return Query(query, _named(columns), candidates, scope.tiebreak(), is_open=True)

    # -- set operations ---------------------------------------------------------------------

    def operation(self, depth: int, outer: Scope | None = None) -> Query:
        """UNION and its kin, nested, members with an order and a limit of their own."""
        width = 1 + self.choices.below(2)
        kinds = [self.choices.pick(("int", "int", "text", "num", "date")) for _ in range(width)]
        for kind in kinds:
            self.choosing(kind)
        statement = self._combined(depth, kinds)
        columns = [(f"c{n}", kind) for n, kind in enumerate(kinds)]
        inner = [
            Field(statement.selected_columns[name], kind, n)
            for n, (name, kind) in enumerate(columns)
        ]
        return Query(statement, columns, _ordered(inner), [f.expression for f in inner])

    def _combined(self, depth: int, kinds: list[str]) -> Any:
        members = [self._member_of(depth - 1, kinds) for _ in range(2 + self.choices.below(2))]
        return self.choices.pick(OPERATIONS)(*members)

    def _member_of(self, depth: int, kinds: list[str]) -> Any:
        if depth > 0 and self.choices.chance(20):
            return self._combined(depth, kinds)
        scope, query = self._begun(max(0, depth), None)
        columns = []
        for kind in kinds:
            found = self.expression(scope, (kind,), 0)
            columns.append(found.expression)
        shown = [_typed(c, kind) for c, kind in zip(columns, kinds, strict=True)]
        query = query.add_columns(*(each.label(f"c{n}") for n, each in enumerate(shown)))
        how = self.choices.pick(("", "", "distinct", "grouped"))
        for kind in kinds if how else ():
            self.choosing(kind)
        query = query.distinct() if how == "distinct" else query
        query = query.group_by(*shown) if how == "grouped" else query
        if self.choices.chance(20):
            query = query.order_by(*query.selected_columns).limit(self.rows())
        return query

    # -- order and limit --------------------------------------------------------------------

    def directed(self, expression: Any) -> Any:
        way = self.choices.pick(("", "", "desc", "asc", "nulls_first", "desc nulls_last"))
        for name in way.split():
            expression = getattr(expression, name)()
        return expression

    def rows(self) -> Any:
        """How many; NULL is no limit."""
        counts = (5, 3, 1, 20, 0, 2, 50)
        both = (self.choices.pick(counts), self.choices.pick(counts))
        if self.choices.chance(8):
            return literal((both[0], None)[self.turn], Integer())
        return both[self.turn]

    def _cut(self, query: Query) -> Query:
        """The first rows of a total order, so that it is determined which ones."""
        for _, kind in query.columns:
            self.choosing(kind)
        order = [self.directed(each) for each in query.tiebreak]
        query.statement = query.statement.order_by(*order).limit(self.rows())
        if self.choices.chance(30):
            query.statement = query.statement.offset(self.rows())
        query.is_open = False
        return query


def _labelled(fields: list[Field]) -> list[Any]:
    return [each.expression.label(f"c{n}") for n, each in enumerate(fields)]


def _named(fields: list[Field]) -> list[tuple[str, str]]:
    return [(f"c{n}", each.kind) for n, each in enumerate(fields)]


def _ordered(fields: list[Field]) -> list[Field]:
    return of_kind(fields, ORDERED)


def _typed(expression: Any, kind: str) -> Any:
    return cast(expression, TYPES[kind])


def _holds_subquery(expression: Any) -> bool:
    return any(isinstance(each, ScalarSelect) for each in iterate(expression))
