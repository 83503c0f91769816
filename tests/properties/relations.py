"""Sources of rows, composed freely: tables, joins, derived tables, CTEs, LATERAL, recursion."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, Text, and_, cast, column, func, literal, select, true
from sqlalchemy import values as values_list
from sqlalchemy.orm import aliased, join

from tests.properties.expressions import Expressions
from tests.properties.scopes import (
    KINDS,
    MODELS,
    TIES,
    Field,
    Query,
    Scope,
    Source,
    of_kind,
)

if TYPE_CHECKING:
    from tests.properties.choices import Choices


SMALL = frozenset("id user_id owner_id score small amount size rank number wheels c0 c1 v0".split())


class Relations(Expressions):
    """Composes FROM lists."""

    def __init__(self, choices: Choices, turn: int, collation: str) -> None:
        super().__init__(choices, turn, collation)
        self.ctes: list[Source] = []
        self.names = 0

    def inner(self, scope: Scope, depth: int) -> Scope:
        sources = [self.source(max(0, depth))]
        inner = Scope(sources, scope)
        if self.choices.chance(20):
            other = self.table()
            on = self._on(sources[0], other)
            element = join(sources[0].element, other.element, on)
            inner = Scope([*sources, other], scope)
            # The join stands in the FROM list, its sides stay what can be named.
            inner.sources[0] = Source(element, sources[0].fields, None)
            inner.sources[1] = Source(element, other.fields, None)
        return inner

    # -- one source -------------------------------------------------------------------------

    def table(self, model: type[Any] | None = None) -> Source:
        """A table, as an entity of the ORM or of Core."""
        model = model or self.choices.pick(MODELS)
        is_entity = self.choices.chance(50)
        element: Any = aliased(model, flat=True) if is_entity else model.__table__.alias()

        def get(name: str) -> Any:
            return getattr(element, name) if is_entity else element.c[name]

        names = [each.key for each in model.__table__.c if each.key in KINDS]
        fields = [Field(get(name), KINDS[name]) for name in names]
        keys = [get(each.key) for each in model.__table__.primary_key.columns]
        return Source(element, fields, keys, model, get)

    def source(self, depth: int) -> Source:
        """A table, or something that is composed."""
        if depth <= 0 or self.choices.chance(60):
            return self.table()
        ways = [self.derived, self.cte, self.derived, self.cte, self.recursive, self.values]
        ways += [self.series]
        return self.choices.pick(ways)(depth - 1)

    def derived(self, depth: int) -> Source:
        """A SELECT in the FROM list."""
        query = self.query(depth)
        return self._named(query, query.statement.subquery())

    def cte(self, depth: int) -> Source:
        """A CTE; perhaps one that is there already, once more."""
        if self.ctes and self.choices.chance(40):
            known = self.choices.pick(self.ctes)
            again = known.element.alias()
            fields = [Field(again.c[f.expression.key], f.kind) for f in known.fields]
            keys = known.keys and [again.c[key.key] for key in known.keys]
            return Source(again, fields, keys)
        query = self.query(depth)
        found = self._named(query, query.statement.cte(**self._cte_options()))
        self.ctes.append(found)
        return found

    def _cte_options(self) -> dict[str, Any]:
        if not self.ctes and self.choices.chance(3):
            # It hides the table of this name.
            return {"name": self.choices.pick(("orders", "users", "countries"))}
        return {}

    def recursive(self, depth: int) -> Source:
        """A recursive CTE that walks over a table, a few steps deep."""
        first, table = self.source(depth), self.table()
        start = self.choices.pick(of_kind(first.fields, ("int",)) or [Field(literal(1), "int")])
        conditions = [self.condition(Scope([first]), 0)]
        # A column as it is can be seen through; its type may be another than the next step's.
        is_cast = self.choices.chance(50)

        def number(expression: Any) -> Any:
            return cast(expression, BigInteger) if is_cast else expression

        base = select(number(start.expression).label("c0"), literal(0, Integer).label("c1"))
        base = base.select_from(first.element).where(*conditions).distinct()
        walk = base.cte(recursive=True)
        numbers = of_kind(table.fields, ("int",)) or [Field(literal(1), "int")]
        tied, given = self.choices.pick(numbers), self.choices.pick(numbers)
        step = select(number(given.expression), walk.c.c1 + 1)
        on = tied.expression == walk.c.c0
        step = step.join_from(table.element, walk, on).where(walk.c.c1 < 2)
        is_all = self.choices.chance(30)
        walk = walk.union_all(step) if is_all else walk.union(step)
        fields = [Field(walk.c.c0, "int"), Field(walk.c.c1, "int")]
        return Source(walk, fields, None)

    def values(self, depth: int) -> Source:
        """A VALUES list."""
        self.names += 1
        listed = values_list(
            column("v0", Integer), column("v1", Text), name=f"listed_{self.names}"
        ).data(
            [
                (self.value("int"), self.value("text"))
                for _ in range(1 + self.choices.pick((0, 1, 2)))
            ]
        )
        fields = [Field(listed.c.v0, "int"), Field(listed.c.v1, "text")]
        return Source(listed, fields, None)

    def series(self, depth: int) -> Source:
        """The rows of a function."""
        upto = self.choices.pick((3, 5))
        found = func.generate_series(1, upto).table_valued("v0").render_derived()
        return Source(found, [Field(cast(found.c.v0, Integer), "int")], None)

    def _named(self, query: Query, element: Any) -> Source:
        fields = [Field(element.c[name], kind) for name, kind in query.columns]
        keys = query.keys and [element.c[name] for name in query.keys]
        return Source(element, fields, keys)

    @abstractmethod
    def query(self, depth: int, outer: Scope | None = None) -> Query:
        """A SELECT that can stand in a FROM list."""

    # -- several ----------------------------------------------------------------------------

    def relation(self, depth: int, outer: Scope | None = None) -> tuple[Scope, list[Any], Any]:
        """One to three sources: the scope, the FROM list, and conditions of WHERE."""
        if self.is_simple:
            return self._simple()
        first = self.source(depth)
        scope = Scope([first], outer)
        froms, where = [first.element], []
        begun = 0  # the sources of the last element of the FROM list begin here
        for _ in range(self.choices.pick((0, 0, 1, 1, 1, 2))):
            if self.choices.chance(12):
                froms[-1] = self._lateral(scope, froms[-1], depth)
                continue
            other = self._partner(scope, depth)
            left = self.choices.pick(scope.sources[begun:])
            on = self._on(left, other)
            if self.choices.chance(12):
                begun = len(scope.sources)
                froms.append(other.element)
                where.append(on)
            else:
                froms[-1] = self._joined(scope, froms, other, on)
            scope.sources.append(other)
        return scope, froms, where

    def _simple(self) -> tuple[Scope, list[Any], list[Any]]:
        """One table, or two that lie beside each other."""
        first = self.table()
        if first.model not in TIES or self.choices.chance(60):
            return Scope([first]), [first.element], []
        (space, mine), get = TIES[first.model], first.get
        assert get is not None
        model = self.choices.pick([each for each, tie in TIES.items() if tie[0] == space])
        other = self.table(model)
        assert other.get is not None
        pairs = zip(mine, TIES[model][1], strict=True)
        on = and_(*(get(a) == other.get(b) for a, b in pairs))
        joined = join(first.element, other.element, on, isouter=self.choices.chance(40))
        return Scope([first, other]), [joined], []

    def _partner(self, scope: Scope, depth: int) -> Source:
        """Another source; now and then a co-located table."""
        ties = [TIES[s.model] for s in scope.sources if s.model in TIES]
        if ties and self.choices.chance(40):
            beside = [model for model, tie in TIES.items() if tie[0] == ties[0][0]]
            return self.table(self.choices.pick(beside))
        return self.source(depth - 1)

    def _joined(self, scope: Scope, froms: list[Any], other: Source, on: Any) -> Any:
        left, right = froms[-1], other.element
        how = self.choices.pick(("inner", "inner", "left", "left", "right", "full"))
        if how == "full" and self._is_mergeable(on):
            return join(left, right, on, full=True)
        if self.choices.chance(15):
            sides = Scope([*scope.sources, other])
            if len(froms) == 1:
                on = and_(on, self.condition(sides, 1))
        if how == "right":
            return join(right, left, on, isouter=True)
        return join(left, right, on, isouter=how == "left")

    @staticmethod
    def _is_mergeable(on: Any) -> bool:
        return getattr(getattr(on, "operator", None), "__name__", "") == "eq"

    def _on(self, left: Source, right: Source) -> Any:
        """A condition of a join: the shard key, an equality, or something else."""
        if left.model in TIES and right.model in TIES and left.get and right.get:
            (space, mine), (other, theirs) = TIES[left.model], TIES[right.model]
            if space == other and self.choices.chance(60):
                pairs = list(zip(mine, theirs, strict=True))
                pairs = pairs[:1] if self.choices.chance(15) else pairs
                return and_(*(left.get(a) == right.get(b) for a, b in pairs))
        common = [
            (a.expression, b.expression)
            for a in left.fields
            for b in right.fields
            if a.kind == b.kind and a.kind in ("int", "text", "num", "date", "uuid")
        ]
        if not common:
            return true()
        numbers = [(a, b) for a, b in common if _is_small(a) and _is_small(b)]
        if numbers and self.choices.chance(75):
            common = numbers
        one, two = self.choices.pick(common)
        return self.choices.pick((*(one == two,) * 6, one < two, one >= two))

    def _lateral(self, scope: Scope, left: Any, depth: int) -> Any:
        """A SELECT that sees the sources to its left."""
        is_outer = self.choices.chance(40)
        query = self.query(max(0, depth - 1), Scope(scope.sources, scope.outer))
        side = query.statement.lateral()
        source = self._named(query, side)
        joined = join(left, side, true(), isouter=is_outer)
        scope.sources.append(source)
        return joined


def _is_small(column: Any) -> bool:
    """Whether a column holds small numbers, of which other tables have the same."""
    return getattr(column, "key", "") in SMALL
