"""Hypothesis strategies of statements that no shard can answer alone, as `statements` has them.

Groups, windows, set operations, derived tables and subqueries that look across shards.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from sqlalchemy import (
    and_,
    except_,
    except_all,
    exists,
    func,
    intersect,
    intersect_all,
    literal,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.orm import aliased

from tests.properties.statements import (
    MODELS,
    Question,
    aggregates,
    filters,
    joins,
    unions_and_scalars,
)
from tests.properties.world import Country, Event, Flag, Note, Order, Store, User

INTEGERS = {
    User: ("id", "small", "score"),
    Order: ("user_id", "id", "amount"),
    Note: ("id", "user_id"),
    Event: ("year", "id"),
    Store: ("id", "size"),
    Country: ("rank",),
    Flag: ("id",),
}
"""Columns that can be compared with each other, whatever table they are from."""

SOURCES = (User, User, Order, Order, Note, Event, Store, Country, Flag)


@st.composite
def gathered_questions(draw: Any) -> Question:
    """A SELECT of a kind that is gathered."""
    kinds = (groups, groups, windows, set_operations, nested, joined_chains)
    kind = draw(st.sampled_from((*kinds, joins, aggregates, unions_and_scalars)))
    return draw(kind())  # type: ignore[no-any-return]


def _integers(draw: Any, entity: Any, model: type[Any]) -> Any:
    return getattr(entity, draw(st.sampled_from(INTEGERS[model])))


def _filters(entity: Any, model: type[Any]) -> Any:
    return filters(entity, model, depth=1) if model in MODELS else st.just(lambda i: true())


@st.composite
def groups(draw: Any) -> Question:
    """GROUP BY of one to three columns of one table or two, in many ways."""
    model, other = draw(st.sampled_from(SOURCES)), draw(st.sampled_from(SOURCES))
    one, two = aliased(model), aliased(other)
    where, where_two = draw(_filters(one, model)), draw(_filters(two, other))
    is_joined = draw(st.booleans())
    left, right = _integers(draw, one, model), _integers(draw, two, other)
    count = draw(st.integers(1, 2))
    keys = [_integers(draw, one, model) for _ in range(count)]
    measured = _integers(draw, two, other) if is_joined else _integers(draw, one, model)
    how = draw(st.sampled_from(("plain", "plain", "rollup", "cube", "sets", "key", "label")))
    has_having, is_outer = draw(st.booleans()), draw(st.booleans())
    is_inside = draw(st.booleans())

    def build(i: int) -> Any:
        figures = [
            func.count(),
            func.sum(measured),
            func.avg(measured),
            func.count(measured.distinct()),
            func.max(measured).filter(measured > i),
            func.percentile_disc(0.5).within_group(measured),
        ]
        labelled = [key.label(f"key_{n}") for n, key in enumerate(keys)]
        query = select(*labelled, *(f.label(f"f{n}") for n, f in enumerate(figures)))
        query = query.select_from(one).where(where(i))
        if is_joined:
            on = and_(left == right, where_two(i)) if is_outer else left == right
            query = query.join(two, on, isouter=is_outer)
        if how == "label":
            query = query.group_by(*(label.name for label in labelled))
        elif how == "key":
            # The whole primary key, on which all columns of the table depend.
            own = [getattr(one, c.key) for c in model.__table__.primary_key.columns]
            query = query.group_by(*own)
        elif how == "rollup":
            query = query.group_by(func.rollup(*keys))
        elif how == "cube":
            query = query.group_by(func.cube(*keys))
        elif how == "sets":
            query = query.group_by(func.grouping_sets(*(tuple_(key) for key in keys)))
        else:
            query = query.group_by(*keys)
        if has_having:
            query = query.having(func.count(measured) > i)
        if is_inside:
            inner = query.subquery()
            query = select(func.count(), func.sum(inner.c.f0), func.max(inner.c.key_0))
        return query

    return Question(build)


@st.composite
def windows(draw: Any) -> Question:
    """Window functions whose order is total, so that their values are determined."""
    model = draw(st.sampled_from(SOURCES))
    entity = aliased(model)
    where = draw(_filters(entity, model))
    total = [getattr(entity, c.key) for c in model.__table__.primary_key.columns]
    part, value = _integers(draw, entity, model), _integers(draw, entity, model)
    frame = draw(st.sampled_from((None, (-1, 1), (None, 0), (0, None))))
    is_descending = draw(st.booleans())
    limit = draw(st.sampled_from((None, 3)))

    def build(i: int) -> Any:
        first = value.desc() if is_descending else value.asc().nulls_first()
        order = [first, *total]
        query = select(
            *total,
            func.row_number().over(partition_by=part, order_by=order).label("n"),
            func.sum(value).over(partition_by=part, order_by=order, rows=frame).label("s"),
            func.lag(value, literal(1 + i)).over(order_by=order).label("l"),
            func.dense_rank().over(order_by=value).label("r"),
        ).where(where(i))
        if limit is not None:
            inner = query.subquery()
            query = select(inner).where(inner.c.n <= limit + i)
        return query

    return Question(build)


_OPERATIONS = (union, union_all, except_, except_all, intersect, intersect_all)


@st.composite
def set_operations(draw: Any) -> Question:
    """Two or three SELECTs put together, members with an order and a limit of their own."""
    operations = [draw(st.sampled_from(_OPERATIONS)) for _ in range(draw(st.integers(1, 2)))]
    members = []
    for _ in range(len(operations) + 1):
        model = draw(st.sampled_from(SOURCES))
        entity = aliased(model)
        members.append(
            (
                _integers(draw, entity, model),
                draw(_filters(entity, model)),
                draw(st.sampled_from((None, None, 2, 5))),
                draw(st.booleans()),
            )
        )
    is_ordered, is_inside = draw(st.booleans()), draw(st.booleans())

    def member(i: int, column: Any, where: Any, limit: int | None, is_distinct: bool) -> Any:
        query = select(column.label("v")).where(where(i))
        if is_distinct:
            query = query.distinct()
        return query if limit is None else query.order_by(column).limit(limit + i)

    def build(i: int) -> Any:
        query = member(i, *members[0])
        for operation, each in zip(operations, members[1:], strict=True):
            query = operation(query, member(i, *each))
        if is_inside:
            inner = query.cte() if is_ordered else query.subquery()
            one, two = inner.alias(), inner.alias()
            return (
                select(one.c.v, func.count(two.c.v)).join(two, one.c.v <= two.c.v).group_by(one.c.v)
            )
        return query.order_by("v") if is_ordered else query

    return Question(build, ordered_by=1 if is_ordered and not is_inside else None)


@st.composite
def nested(draw: Any) -> Question:
    """Subqueries in WHERE, in the columns and LATERAL, correlated over one level or two."""
    models = [draw(st.sampled_from(SOURCES)) for _ in range(3)]
    one, two, three = (aliased(model) for model in models)
    wheres = [
        draw(_filters(entity, model))
        for entity, model in zip((one, two, three), models, strict=True)
    ]
    a, b, c = (_integers(draw, e, m) for e, m in zip((one, two, three), models, strict=True))
    b2, c2 = _integers(draw, two, models[1]), _integers(draw, three, models[2])
    kind = draw(st.sampled_from(("exists", "in", "not in", "scalar", "lateral", "lateral left")))
    is_deep, is_negated = draw(st.booleans()), draw(st.booleans())
    key = [getattr(one, each.key) for each in models[0].__table__.primary_key.columns]

    def build(i: int) -> Any:
        inner = [wheres[1](i)]
        if is_deep:
            # Correlated with the query around and with the one around that.
            deep = select(literal(1)).select_from(three)
            inner.append(exists(deep.where(c == b, or_(c2 == a, wheres[2](i))).correlate(one, two)))
        tie = b == a
        query = select(*key).where(wheres[0](i))
        if kind == "exists":
            found = exists(select(literal(1)).where(tie, *inner).correlate(one))
            return query.where(~found if is_negated else found)
        if kind in ("in", "not in"):
            values = select(b2).where(*inner).correlate(one)
            return query.where(a.in_(values) if kind == "in" else a.not_in(values))
        if kind == "scalar":
            found = select(func.sum(b2)).where(tie, *inner).correlate(one).scalar_subquery()
            return query.add_columns(found.label("found"))
        lateral = select(func.count(b2).label("n"), func.max(b).label("m"))
        side = lateral.where(tie, *inner).having(func.count() > i).correlate(one).lateral()
        return query.add_columns(side.c.n, side.c.m).join_from(
            one, side, true(), isouter=kind == "lateral left"
        )

    return Question(build)


@st.composite
def joined_chains(draw: Any) -> Question:
    """Three tables joined in any way, with conditions in every ON and in WHERE."""
    models = [draw(st.sampled_from(SOURCES)) for _ in range(3)]
    entities = [aliased(model) for model in models]
    wheres = [draw(_filters(entity, model)) for entity, model in zip(entities, models, strict=True)]
    columns = [_integers(draw, e, m) for e, m in zip(entities, models, strict=True)]
    hows = [draw(st.sampled_from(("inner", "left", "left", "full"))) for _ in range(2)]
    places = [draw(st.sampled_from(("where", "on", "none"))) for _ in range(3)]
    ties = [draw(st.integers(0, n)) for n in range(2)]
    is_distinct = draw(st.booleans())

    def build(i: int) -> Any:
        query = select(*(column.label(f"v{n}") for n, column in enumerate(columns)))
        source: Any = entities[0]
        for n, how in enumerate(hows, start=1):
            on = [columns[ties[n - 1]] == columns[n]]
            # FULL JOIN needs conditions that can be merged or hashed.
            if how != "full":
                on += [wheres[n](i)] if places[n] == "on" else []
                on += [wheres[0](i)] if places[0] == "on" and n == 1 else []
            query = query.select_from(source) if n == 1 else query
            query = query.join(entities[n], and_(*on), isouter=how == "left", full=how == "full")
        for place, where in zip(places, wheres, strict=True):
            query = query.where(where(i)) if place == "where" else query
        return query.distinct() if is_distinct else query

    return Question(build)
