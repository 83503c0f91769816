"""Hypothesis strategies of statements over the tables of `world`, each with two sets of values.

A strategy here gives a *pair*: a function that builds the same statement with its first or its
second values, so that the second execution runs from the plan that the first one left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import strategies as st
from sqlalchemy import (
    Text,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
    update,
)
from sqlalchemy.orm import aliased

from tests.properties.others import rows_of_others
from tests.properties.world import (
    REGIONS,
    TENANTS,
    USER_IDS,
    WEIGHTS,
    YEARS,
    Country,
    Document,
    Event,
    Flag,
    Note,
    Order,
    Page,
    Store,
    User,
)

if TYPE_CHECKING:
    from typing import TypeAlias

Pair: TypeAlias = Callable[[int], Any]
"""0 or 1 -> the same expression or statement, with the first or the second values."""


@dataclass(frozen=True)
class Question:
    """A statement, twice, and how far its order is determined.

    :param ordered_by: the first so many columns decide the order; None: there is no order.
    :param is_partial: LIMIT picks any rows, since no total order is asked for.
    """

    build: Pair
    ordered_by: int | None = None
    is_partial: bool = False

    def __repr__(self) -> str:
        return "\n".join(
            str(self.build(i).compile(compile_kwargs={"literal_binds": False})) for i in (0, 1)
        )


INTEGERS = (0, 1, -1, 2, 5, 7, 10**6, 2**40, True, Decimal(5), Decimal("1.5"), 1.0)
TEXTS = ("a", "A", "a ", "B", "ä", "é", "", "_", "zz")
VALUES: dict[str, tuple[Any, ...]] = {
    "id": (*USER_IDS, *INTEGERS),
    "user_id": (*USER_IDS, *INTEGERS),
    "year": (*YEARS, 1949, 2050, True, Decimal(2000)),
    "region": (*REGIONS, "West ", "north ", "nowhere", "much longer than the column"),
    "tenant": (*TENANTS, "a  "),
    "weight": (*WEIGHTS, 1, 0, Decimal("1.50"), 1.5, Decimal("1E+0"), Decimal("NaN")),
    "name": TEXTS,
    "code": ("in", "de", *TEXTS),
    "title": TEXTS,
    "body": ("n",),
    "country_code": ("in", "de", "fr", "xx", "zz"),
    "born": (date(2000, 1, 1), date(2000, 1, 2), datetime(2000, 1, 2)),
    "seen": (datetime(2020, 2, 29, 12), datetime(2020, 2, 29, 12, 0, 0, 1), date(2020, 2, 29)),
    "token": (UUID(int=0), UUID(int=1 << 120)),
    "active": (True, False),
    "price": (Decimal("1.5"), Decimal("1.50"), 1, 0),
}

KEYS = {
    User: ("id",),
    Order: ("user_id",),
    Note: ("user_id",),
    Event: ("year",),
    Store: ("region",),
    Document: ("tenant", "weight"),
    Page: ("tenant", "weight"),
}


def values_of(name: str) -> tuple[Any, ...]:
    """Values worth comparing a column of this name with."""
    return VALUES.get(name, INTEGERS)


def names_of(model: type[Any]) -> list[str]:
    """Attributes of a model that are columns; shard keys stand in it more often."""
    names = [column.key for column in model.__table__.c]
    return [*names, *KEYS.get(model, ()) * 3]


@st.composite
def comparisons(draw: Any, entity: Any, model: type[Any]) -> Pair:
    """One column compared in one of many ways."""
    name = draw(st.sampled_from(names_of(model)))
    column = getattr(entity, name)
    value = st.sampled_from(values_of(name))
    first, second = draw(value), draw(value)
    if type(first) is not type(second):
        # A statement with a value of another type is another statement.
        second = first
    one = (first, second)
    shape = draw(st.sampled_from(_SHAPES))
    if isinstance(first, bool) and shape in ("<", ">=", "between", "distinct"):
        shape = "=="  # SQLAlchemy has no others for True and False
    if shape == "in":
        many = st.lists(st.sampled_from([v for v in values_of(name) if type(v) is type(first)]))
        lists = (draw(many), draw(many))
        return lambda i: column.in_(lists[i])
    if shape == "not in":
        return lambda i: column.not_in([one[i]])
    if shape == "is null":
        return lambda i: column.is_(None)
    if shape == "text":
        return lambda i: cast(column, Text) == str(one[i])
    if shape == "function":
        return lambda i: func.coalesce(column, one[i]) == one[i]
    if shape == "case":
        return lambda i: case((column == one[i], True), else_=False)
    if shape == "is not true":
        return lambda i: (column == one[i]).is_not(True)
    return lambda i: _COMPARISONS[shape](column, one[i])


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda column, value: column == value,
    "swapped": lambda column, value: literal(value, column.type) == column,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    ">=": lambda column, value: column >= value,
    "between": lambda column, value: column.between(value, value),
    "distinct": lambda column, value: column.is_not_distinct_from(value),
    "typed": lambda column, value: column == literal(value),
}
_SHAPES = (
    *("==",) * 5,
    *("in",) * 4,
    *("swapped", "typed", "!=", "<", ">=", "between", "distinct"),
    *("not in", "is null", "text", "function", "case", "is not true"),
)


@st.composite
def key_comparisons(draw: Any, entity: Any, model: type[Any]) -> Pair:
    """What routing understands: a part of the key, equal to a value or one of several."""
    name = draw(st.sampled_from(KEYS[model]))
    column = getattr(entity, name)
    value = st.sampled_from([v for v in values_of(name) if type(v) is type(values_of(name)[0])])
    lists = [draw(st.lists(value, min_size=1, max_size=3)) for _ in range(2)]
    if draw(st.booleans()):
        return lambda i: column.in_(lists[i])
    return lambda i: column == lists[i][0]


@st.composite
def tuple_comparisons(draw: Any, entity: Any, model: type[Any]) -> Pair:
    """Both parts of a key at once."""
    value = st.tuples(*(st.sampled_from(values_of(name)[:5]) for name in KEYS[model]))
    lists = [draw(st.lists(value, min_size=1, max_size=3)) for _ in range(2)]
    columns = [getattr(entity, name) for name in KEYS[model]]
    if draw(st.booleans()):
        return lambda i: tuple_(*columns).in_(lists[i])
    return lambda i: and_(*(c == v for c, v in zip(columns, lists[i][0], strict=True)))


CHILDREN = {User: Order, Document: Page, Order: Note}


@st.composite
def subquery_conditions(draw: Any, entity: Any, model: type[Any]) -> Pair:
    """EXISTS and IN over a child of the entity, tied to it by the key or not."""
    child = aliased(CHILDREN[model])
    inner = draw(conditions(child, CHILDREN[model], depth=1))
    tie = draw(st.sampled_from(("key", "key", "key", "none", "other", "in", "in correlated")))
    pairs = list(zip(KEYS[CHILDREN[model]], KEYS[model], strict=True))
    ties = {
        "key": [getattr(child, c) == getattr(entity, p) for c, p in pairs],
        "none": [],
        "other": [getattr(child, names_of(CHILDREN[model])[1]) == entity.id],
    }
    first, parent = getattr(child, pairs[0][0]), getattr(entity, pairs[0][1])
    negated = draw(st.booleans())

    def build(i: int) -> Any:
        if tie.startswith("in"):
            query = select(first).where(inner(i))
            if tie == "in correlated":
                query = query.where(*ties["key"])
            found = parent.in_(query)
        else:
            found = exists(select(literal(1)).where(*ties[tie], inner(i)).correlate(entity))
        return not_(found) if negated else found

    return build


@st.composite
def conditions(draw: Any, entity: Any, model: type[Any], *, depth: int = 0) -> Pair:
    """A WHERE clause on one entity."""
    leaf = comparisons(entity, model)
    if model in KEYS:
        leaf |= key_comparisons(entity, model) | tuple_comparisons(entity, model)
    if model in CHILDREN and depth == 0:
        leaf |= subquery_conditions(entity, model)

    def combined(parts: Any) -> Any:
        return st.builds(
            _combination,
            st.sampled_from((and_, and_, or_)),
            st.lists(parts, min_size=2, max_size=3),
        ) | st.builds(_negation, parts)

    return draw(st.recursive(leaf, combined, max_leaves=4))


def _combination(operator: Any, parts: list[Pair]) -> Pair:
    return lambda i: operator(*(part(i) for part in parts))


def _negation(part: Pair) -> Pair:
    return lambda i: not_(part(i))


MODELS = (User, User, Order, Note, Event, Store, Document, Document, Page)


@st.composite
def key_questions(draw: Any) -> tuple[type[Any], Pair]:
    """A plain SELECT of one sharded table's primary key, for the soundness of routes."""
    model = draw(st.sampled_from(MODELS))
    where = draw(conditions(model, model, depth=1))
    primary_key = tuple(model.__table__.primary_key.columns)
    return model, lambda i: select(*primary_key).where(where(i))


def filters(entity: Any, model: type[Any], *, depth: int = 0) -> Any:
    """A WHERE clause, or none: many rows show more than few."""
    return st.just(lambda i: true()) | conditions(entity, model, depth=depth)


@st.composite
def questions(draw: Any) -> Question:
    """A SELECT of any kind."""
    kind = draw(st.sampled_from(_KINDS))
    return draw(kind())  # type: ignore[no-any-return]


@st.composite
def plain_selects(draw: Any) -> Question:
    """Columns or objects of one table, perhaps in order, perhaps only some."""
    model = draw(st.sampled_from((*MODELS, Country)))
    entity = aliased(model) if draw(st.booleans()) else model
    where = draw(filters(entity, model))
    names = [column.key for column in model.__table__.c]
    primary_key = [getattr(entity, c.key) for c in model.__table__.primary_key.columns]
    keys = draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    keys = [name for name in keys if name not in ("price", "weight", "name") or model is Order]
    order_by = [_direction(draw, getattr(entity, name)) for name in keys]
    is_total = draw(st.booleans()) and model not in (Document, Page)
    limit, offset = draw(_windows), draw(_windows)
    as_entity = draw(st.booleans()) and (is_total or not keys)
    is_distinct = draw(st.sampled_from((False, False, False, True)))

    def build(i: int) -> Any:
        chosen = [getattr(entity, name) for name in keys]
        query = select(entity) if as_entity else select(*chosen, *primary_key)
        query = query.where(where(i)).order_by(*order_by, *(primary_key if is_total else ()))
        if is_distinct:
            query = query.distinct()
        if limit is not None:
            query = query.limit(limit[i])
        if offset is not None:
            query = query.offset(offset[i])
        return query

    if is_total:
        return Question(build, ordered_by=1 if as_entity else len(keys) + len(primary_key))
    is_partial = limit is not None or offset is not None
    return Question(build, ordered_by=len(keys) or None, is_partial=is_partial)


_windows = st.none() | st.tuples(*(st.sampled_from((0, 1, 3, 100, None)),) * 2).filter(
    lambda pair: (pair[0] is None) == (pair[1] is None)
)


def _direction(draw: Any, column: Any) -> Any:
    chosen = draw(st.sampled_from(("", "asc", "desc", "nulls_first", "desc nulls_last")))
    for name in chosen.split():
        column = getattr(column, name)()
    return column


@st.composite
def joins(draw: Any) -> Question:
    """Two or three tables, joined on the key or on something else."""
    model, child = draw(st.sampled_from(_JOINABLE))
    left, right = aliased(model), aliased(child)
    left_where = draw(filters(left, model, depth=1))
    right_where = draw(filters(right, child, depth=1))
    on = _on(
        left, model, right, child, draw(st.sampled_from(("key", "key", "key", "part", "value")))
    )
    how = draw(st.sampled_from(("inner", "inner", "where", "left", "left", "right", "full")))
    where_on = draw(st.sampled_from(("left", "right", "both", "on", "on left", "none")))
    third = aliased(child) if draw(st.integers(0, 3)) == 0 else None

    def build(i: int) -> Any:
        clause = on
        if where_on.startswith("on"):
            clause = and_(on, right_where(i) if where_on == "on" else left_where(i))
        columns = [*_primary_key(left, model), *_primary_key(right, child)]
        query = select(*columns)
        if how == "where":
            query = query.where(clause)
        elif how == "right":
            query = query.select_from(right).join(left, clause, isouter=True)
        else:
            query = query.select_from(left).join(
                right, clause, isouter=how == "left", full=how == "full"
            )
        if third is not None and how != "where":
            tie = _on(right, child, third, child, "key") if child in KEYS else literal(True)
            query = query.add_columns(*_primary_key(third, child)).join(third, tie, isouter=i > 1)
        if where_on in ("left", "both"):
            query = query.where(left_where(i))
        if where_on in ("right", "both"):
            query = query.where(right_where(i))
        return query

    return Question(build)


_JOINABLE = (
    (User, Order),
    (User, Order),
    (User, User),
    (Document, Page),
    (Document, Page),
    (User, Country),
    (Country, User),
    (User, Event),
    (Order, Note),
    (User, Flag),
)


def _primary_key(entity: Any, model: type[Any]) -> list[Any]:
    return [getattr(entity, column.key) for column in model.__table__.primary_key.columns]


def _on(left: Any, model: Any, right: Any, child: Any, kind: str) -> Any:
    if Country in (model, child):
        country, user = (left, right) if model is Country else (right, left)
        return user.country_code == country.code
    if Flag in (model, child) or kind == "value":
        one, other = (each.number if hasattr(each, "number") else each.id for each in (left, right))
        return one == other
    keys = list(zip(KEYS[model], KEYS[child], strict=True))
    ties = [getattr(left, one) == getattr(right, other) for one, other in keys]
    return and_(*ties[:1]) if kind == "part" else and_(*ties)


@st.composite
def aggregates(draw: Any) -> Question:
    """Aggregates of one table or of a join."""
    model = draw(st.sampled_from(MODELS))
    where = draw(filters(model, model))
    names = [column.key for column in model.__table__.c if column.key not in ("active", "token")]
    chosen = draw(
        st.lists(
            st.tuples(
                st.sampled_from(("count", "sum", "min", "max", "avg", "distinct")),
                st.sampled_from(names),
            ),
            min_size=1,
            max_size=3,
        )
    )
    extra = draw(st.sampled_from((None, None, None, None, "having", "group", "filter", "derived")))

    def build(i: int) -> Any:
        columns = [_aggregate(name, getattr(model, column)) for name, column in chosen]
        if extra == "filter":
            columns = [func.count().filter(where(i))]
        query = select(*columns).where(where(i))
        if extra == "having":
            query = query.having(func.count() > i)
        if extra == "group":
            query = query.add_columns(getattr(model, names[-1])).group_by(getattr(model, names[-1]))
        if extra == "derived":
            inner = select(model).where(where(i)).subquery()
            return select(func.count(), func.count(inner.c[names[-1]])).select_from(inner)
        return query

    return Question(build)


def _aggregate(name: str, column: Any) -> Any:
    if name == "distinct":
        return func.count(column.distinct())
    if name in ("sum", "avg") and column.type.python_type not in (int, Decimal):
        return func.count(column)
    return getattr(func, name)(column)


@st.composite
def derived_tables(draw: Any) -> Question:
    """SELECT from a subquery or CTE, filtered inside and outside."""
    model = draw(st.sampled_from(MODELS))
    inside = draw(filters(model, model, depth=1))
    names = [column.key for column in model.__table__.c]
    how = draw(st.sampled_from(("subquery", "subquery", "cte", "alias")))
    extra = draw(
        st.sampled_from((None, None, None, "limit", "distinct", "window", "union", "child"))
    )
    name = draw(st.sampled_from(names_of(model)))
    values = [
        draw(st.sampled_from([v for v in values_of(name) if v is not True])) for _ in range(2)
    ]
    values[1] = values[1] if type(values[1]) is type(values[0]) else values[0]

    def build(i: int) -> Any:
        query: Any = select(model.__table__).where(inside(i))
        if extra == "limit":
            query = query.order_by(*_primary_key(model, model)).limit(2 + i)
        elif extra == "distinct":
            query = query.distinct()
        elif extra == "window":
            query = query.add_columns(
                func.row_number().over(order_by=_primary_key(model, model)).label("n")
            )
        elif extra == "union":
            query = union_all(query, select(model.__table__).where(not_(inside(i))))
        table = query.cte() if how == "cte" else query.subquery()
        if how == "alias":
            table = table.alias()
        outer = select(*(table.c[each] for each in names))
        if extra == "child" and model in CHILDREN:
            child = aliased(CHILDREN[model])
            pairs = zip(KEYS[CHILDREN[model]], KEYS[model], strict=True)
            on = and_(*(getattr(child, c) == table.c[p] for c, p in pairs))
            outer = outer.add_columns(child.id if hasattr(child, "id") else child.number)
            outer = outer.join(child, on, isouter=values[0] == 1)
        return outer.where(table.c[name] == values[i])

    return Question(build)


@st.composite
def unions_and_scalars(draw: Any) -> Question:
    """Set operations, EXISTS as a column, scalar subqueries."""
    one = draw(filters(User, User))
    child = draw(filters(Order, Order))
    kind = draw(st.sampled_from(("union", "union_all", "exists", "scalar", "scalar free", "top")))

    def build(i: int) -> Any:
        if kind in ("union", "union_all"):
            combine = union if kind == "union" else union_all
            return combine(select(User.id).where(one(i)), select(Order.user_id).where(child(i)))
        if kind == "top":
            return select(exists().where(one(i)))
        tie = [] if kind == "scalar free" else [Order.user_id == User.id]
        if kind == "exists":
            column: Any = exists().where(*tie, child(i)).correlate(User)
        else:
            count = select(func.count(Order.id)).where(*tie, child(i))
            column = count.correlate(User).scalar_subquery()
        return select(User.id, column).where(one(i))

    return Question(build)


_KINDS = (
    plain_selects,
    plain_selects,
    plain_selects,
    joins,
    joins,
    aggregates,
    derived_tables,
    unions_and_scalars,
)


@dataclass(frozen=True)
class Change:
    """An UPDATE or DELETE, twice, and the tables that it may change."""

    build: Pair
    model: type[Any]

    def __repr__(self) -> str:
        return "\n".join(str(self.build(i)) for i in (0, 1))


@st.composite
def changes(draw: Any) -> Change:
    """An UPDATE or DELETE of one table, with any WHERE clause."""
    model = draw(st.sampled_from((Order, Note, Event, Store, Page, Country, User)))
    where = draw(conditions(model, model))
    kind = draw(st.sampled_from(("update", "update", "expression", "subquery", "from", "delete")))
    if model in (User, Country) and kind == "delete":
        kind = "update"  # they are referred to
    column = _CHANGED[model]
    returning = draw(st.booleans())
    others = draw(rows_of_others(model)) if draw(st.booleans()) else None

    def build(i: int) -> Any:
        statement: Any = delete(model) if kind == "delete" else update(model)
        if others is not None:
            statement = others.added_to(statement, i)
        if others is not None and others.value is not None and kind != "delete":
            statement = statement.values({column: others.value(column, i)})
        elif kind == "update":
            statement = statement.values({column: _NEW[column][i]})
        elif kind == "expression":
            expression = getattr(model, column) + _NEW[column][i]
            statement = statement.values({column: expression})
        elif kind == "subquery":
            found = select(func.max(Country.code)).scalar_subquery()
            statement = statement.values(
                {column: cast(found, getattr(model, column).type)}
                if column != "rank" and column not in ("amount", "size", "number", "score")
                else {column: select(func.max(Country.rank)).scalar_subquery()}
            )
        elif kind == "from" and model is Order:
            statement = statement.values(amount=User.score).where(Order.user_id == User.id)
        elif kind == "from":
            statement = statement.values({column: _NEW[column][i]})
        statement = statement.where(where(i)).execution_options(scatter="allow")
        if returning:
            statement = statement.returning(*model.__table__.primary_key.columns)
        return statement

    return Change(build, model)


_CHANGED = {
    Order: "amount",
    Note: "body",
    Event: "title",
    Store: "size",
    Page: "number",
    Country: "rank",
    User: "score",
}
_NEW: dict[str, tuple[Any, Any]] = {
    "amount": (5, -1),
    "body": ("x", "y"),
    "title": ("x", "y"),
    "size": (5, -1),
    "number": (1000, 2000),
    "rank": (5, -1),
    "score": (5, -1),
}
