"""Statements that were, or could well have been, answered wrongly: one of each kind.

Each gives what one PostgreSQL gives, in the same order where `ORDERED` says that it is determined,
or fails there too, or is refused.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Numeric,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    collate,
    column,
    desc,
    distinct,
    except_,
    exists,
    false,
    func,
    insert,
    join,
    lambda_stmt,
    literal,
    literal_column,
    or_,
    outerjoin,
    select,
    tablesample,
    text,
    true,
    tuple_,
    union,
    union_all,
    update,
    values,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.orm import (
    Bundle,
    Session,
    aliased,
    immediateload,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
)

from sqlalchemy_shards.errors import ShardsError, UnsupportedStatement
from tests.properties.world import (
    REGIONS,
    Country,
    Document,
    Event,
    Flag,
    Note,
    Order,
    Page,
    Store,
    User,
    World,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

pytestmark = pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")

Other = aliased(Order)
Twin = aliased(User)


class Three(IntEnum):
    three = 3


class Name(str):
    __slots__ = ()


def value_types() -> dict[str, Any]:
    """Values that are equal in Python or in PostgreSQL, and not in both."""
    numbers: dict[str, Any] = {
        "bool": True,
        "decimal": Decimal(3),
        "scaled decimal": Decimal("3.0"),
        "text": "3",
        "str subclass": Name("3"),
        "int enum": Three.three,
        "float": 3.0,
        "huge": 2**70,
        "null": None,
    }
    found = {}
    for name, value in numbers.items():
        found[f"key == {name}"] = select(User.id).where(User.id == value)
        found[f"key in {name}"] = select(User.id).where(User.id.in_([value, 5]))
        found[f"key == literal {name}"] = select(User.id).where(User.id == literal(value))
        found[f"range key == {name}"] = select(Event.year).where(Event.year == value)
    for region in (*REGIONS, "nowhere", "a very long name", Name("north"), "north "):
        found[f"list key == {region!r}"] = select(Store).where(Store.region == region)
        found[f"list key in {region!r}"] = select(Store).where(Store.region.in_([region, "south"]))
    for weight in (Decimal("1.00"), 1, 1.0, "1.5", Decimal("1.50"), Decimal("NaN"), True):
        here = Document.tenant == "a"
        found[f"numeric key == {weight!r}"] = select(Document).where(
            Document.weight == weight, here
        )
        found[f"numeric key in {weight!r}"] = select(Document).where(
            Document.weight.in_([weight]), Document.tenant.in_(["a", "A"])
        )
    return found


def conditions_on_keys() -> dict[str, Any]:
    """WHERE clauses that do not restrict the key, or not as they seem to."""
    document = Document
    clauses = {
        "not in": User.id.not_in([1, 2]),
        "in with null": User.id.in_([None, 1]),
        "in nothing": User.id.in_([]),
        "not in nothing": User.id.not_in([]),
        "false": false(),
        "true": true(),
        "swapped": literal(5) == User.id,
        "not equal": ~(User.id == 5),
        "not or": ~or_(User.id == 5, User.id == 6),
        "equals false": (User.id == 5) == False,  # noqa: E712
        "is not true": (User.id == 5).is_not(True),
        "cast": cast(User.id, Text) == "5",
        "case": case((User.id == 5, True), else_=False),
        "any of array": User.id == any_(literal([1, 2], type_=ARRAY(BigInteger))),
        "is not distinct": User.id.is_not_distinct_from(5),
        "coalesce": func.coalesce(User.id, 5) == 5,
        "key or value": or_(User.id == 5, User.score == 1),
        "key or key, and value": and_(or_(User.id == 5, User.id == 6), User.score == 1),
        "key of another row": User.id == select(func.max(Twin.id)).scalar_subquery(),
    }
    found = {name: select(User.id).where(clause) for name, clause in clauses.items()}
    pairs = {
        "tuple in": tuple_(document.tenant, document.weight).in_([("a", 1), ("A", Decimal("1.5"))]),
        "or of pairs": or_(
            and_(document.tenant == "a", document.weight == 1),
            and_(document.tenant == "A", document.weight == Decimal("1.5")),
        ),
        "two lists": and_(
            document.tenant.in_(["a", "A"]), document.weight.in_([1, Decimal("1.5")])
        ),
        "half a key": document.tenant == "a",
        "crossed parts": and_(document.tenant == "a", document.weight == document.size),
    }
    found |= {name: select(document).where(clause) for name, clause in pairs.items()}
    found["lower"] = select(Store).where(func.lower(Store.region) == "west")
    found["collated"] = select(Store).where(Store.region.collate("C") == "north")
    return found


def joins() -> dict[str, Any]:
    """Joins on the key and beside it, and conditions on either side."""
    on, ids = Other.user_id == User.id, (User.id, Other.id)
    outer = select(*ids).outerjoin(Other, on)
    pages = and_(Document.tenant == Page.tenant, Document.weight == Page.weight)
    full = select(*ids).join(Other, on, full=True)
    nested = join(Order, Other, Order.user_id == Other.user_id)
    return {
        "join": select(User, Other).join(Other, on),
        "join in where": select(*ids).where(on),
        "join of relationship": select(User.id, Order.id).join(User.orders).where(User.id == 5),
        "outer": outer,
        "outer, inner key": outer.where(Other.user_id == 5),
        "outer, inner null": outer.where(Other.id.is_(None)),
        "outer, inner key or null": outer.where(or_(Other.user_id == 5, Other.user_id.is_(None))),
        "outer on key and literal": select(*ids).outerjoin(Other, and_(on, Other.user_id == 5)),
        "outer on literal only": select(*ids).outerjoin(Other, Other.user_id == 5),
        "outer on literal of the left": select(*ids).outerjoin(Other, and_(on, User.id == 5)),
        "outer on value, key in where": select(*ids).outerjoin(Other, Other.id == 1).where(on),
        "right": select(*ids).select_from(outerjoin(Other, User, on)),
        "right, outer key": select(*ids)
        .select_from(outerjoin(Other, User, on))
        .where(User.id == 5),
        "full": full,
        "full, one key": full.where(User.id == 5),
        "full, both keys": full.where(User.id == 5, Other.user_id == 5),
        "reference outer sharded": select(Country.code, User.id).outerjoin(User),
        "reference outer one key": select(Country.code, User.id).outerjoin(
            User, and_(User.country_code == Country.code, User.id == 5)
        ),
        "sharded outer reference": select(Country.code, User.id).select_from(
            outerjoin(User, Country)
        ),
        "cartesian with reference": select(Country.code, User.id),
        "twins by key": select(User.id, Twin.id).where(User.id == Twin.id),
        "twins by value": select(User.id, Twin.id).where(User.score == Twin.score),
        "twins, two keys": select(User.id, Twin.id).where(User.id == 1, Twin.id == 2),
        "twins, lists": select(User.id, Twin.id).where(User.id.in_([1, 2]), Twin.id.in_([1, 2])),
        "chain": outer.add_columns(Order.id).join(Order, Order.user_id == Other.user_id),
        "outer chain": outer.add_columns(Order.id).outerjoin(Order, Order.id == Other.id),
        "nested": select(*ids).select_from(outerjoin(User, nested, Order.user_id == User.id)),
        "pages": select(Document.id, Page.number).join(Page, pages),
        "pages by half the key": select(Document.id).join(Page, Document.tenant == Page.tenant),
        "pages of one": select(Document.id)
        .join(Page, pages)
        .where(Page.tenant == "a", Document.weight == 1),
        "other keyspace": select(User.id, Event.id).where(User.id == Event.year),
        "other keyspace, one shard": select(User.id, Event.id).where(User.id == 1, Event.year == 1),
        "global": select(User.id, Flag.id).where(User.id == Flag.id),
        "global, one key": select(User.id, Flag.id).where(User.id == Flag.id, User.id == 1),
    }


def subqueries() -> dict[str, Any]:
    """EXISTS, IN, scalar subqueries, derived tables, CTEs, LATERAL, set operations."""
    child = exists().where(Order.user_id == User.id)
    count = select(func.count(Order.id)).where(Order.user_id == User.id).scalar_subquery()
    ids, grouped = select(User.id), select(Order.user_id, func.count().label("n"))
    numbered = select(User.id, func.row_number().over(order_by=User.id).label("n")).subquery()
    outer = select(User.id, Order.user_id).outerjoin(Order).subquery()
    five = ids.where(User.id == 5)
    lateral = (
        select(Order.amount).where(Order.user_id == User.id).order_by(Order.id).limit(1).lateral()
    )
    steps = select(literal(1).label("n")).cte(recursive=True)
    steps = steps.union_all(select(steps.c.n + 1).where(steps.c.n < 3))
    code = select(Country.code)

    def of(query: Any, *columns: str) -> Any:
        table = query.subquery()
        return select(*(table.c[name] for name in columns or table.c.keys()))

    one_cte, ten = five.cte(), ids.order_by(User.id).limit(10)
    return {
        "exists": ids.where(child),
        "not exists": ids.where(~child),
        "any": ids.where(User.orders.any(Order.amount == 1)),
        "has": select(Order.id, Order.user_id).where(Order.user.has(User.score == 1)),
        "exists anywhere": ids.where(exists().where(Order.amount == 1)),
        "exists by value": ids.where(exists().where(Order.amount == User.score)),
        "exists of one key": ids.where(child.where(Order.user_id == 5)),
        "not exists of one key": ids.where(~child.where(Order.user_id == 5)),
        "not exists, outer key inside": ids.where(~child.where(User.id == 5)),
        "in subquery": ids.where(User.id.in_(select(Order.user_id))),
        "reference in sharded": select(Country.code).where(
            Country.code.in_(select(User.country_code))
        ),
        "sharded in reference": ids.where(User.country_code.in_(code.where(Country.rank == 2))),
        "in picked reference row": ids.where(
            User.country_code.in_(code.order_by(Country.code).limit(1))
        ),
        "exists as column": select(exists().where(User.score == 1)),
        "exists of key as column": select(exists().where(User.id == 5)),
        "scalar": select(User.id, count),
        "scalar of all": select(User.id, select(func.count(Order.id)).scalar_subquery()),
        "scalar of reference": select(User.id, select(func.count(Country.code)).scalar_subquery()),
        "scalar in function": select(User.id, func.coalesce(count, 0)),
        "scalar of picked row": select(User.id, code.limit(1).scalar_subquery()),
        "aggregated names": select(
            User.id, select(func.string_agg(Country.code, ",")).scalar_subquery()
        ),
        "random once": select(User.id, select(func.random()).scalar_subquery() > 2),
        "derived": of(select(User).where(User.score > 0), "id", "score"),
        "derived key": (t := select(User).subquery()).select().where(t.c.id == 5),
        "derived with child": select((u := ids.subquery()).c.id, Order.id).join(
            Order, Order.user_id == u.c.id
        ),
        "derived alias": select(ids.subquery().alias("again").c.id),
        "derived limit": of(ten),
        "derived limit, outer key": (t := ten.subquery()).select().where(t.c.id == 5),
        "derived distinct": of(select(User.score).distinct()),
        "derived group": of(grouped.group_by(Order.user_id)),
        "derived window": numbered.select().where(numbered.c.n < 3),
        "derived count": of(select(func.count(User.id).label("n"))),
        "derived outer": outer.select().where(outer.c.user_id == 5),
        "derived outer null": outer.select().where(outer.c.user_id.is_(None)),
        "derived outer and child": select(outer, Other.id).join(
            Other, Other.user_id == outer.c.user_id
        ),
        "derived union": of(union_all(ids, select(Order.user_id))),
        "derived union of one": of(
            union_all(five, select(Order.user_id).where(Order.user_id == 5))
        ),
        "derived picked row": select(User.id, code.limit(1).subquery()),
        "derived now": select(User.id, select(func.now() < func.now()).subquery()),
        "cte": select(ids.cte()),
        "cte of one": select(one_cte.c.id, one_cte.alias().c.id),
        "cte of reference": select(User.id, (c := code.cte()).c.code).join(
            c, c.c.code == User.country_code
        ),
        "cte of picked row": select(User.id, code.limit(1).cte()),
        "cte aggregate": select(func.max(select(func.count(User.id).label("n")).cte().c.n)),
        "lateral": select(User.id, lateral.c.amount),
        "lateral of one": select(User.id, lateral.c.amount).where(User.id == 5),
        "recursive": select(steps.c.n),
        "recursive with one": select(User.id, steps.c.n).where(User.id == 5),
        "recursive with all": select(User.id, steps.c.n).where(User.score == steps.c.n),
        "union": union(select(User.score), select(Order.amount)),
        "union of one": union_all(five, select(Order.user_id).where(Order.user_id == 5)),
        "union of two shards": union_all(five, select(Order.user_id).where(Order.user_id == 6)),
        "union of reference": union_all(code, select(Country.name)),
        "except": except_(ids, select(Order.user_id)),
    }


TYPED = "id name code small score large price born seen token active".split()


def aggregates() -> dict[str, Any]:
    """Every aggregate of every type, of rows and of none, and what is only like one."""
    found = {}
    for name in TYPED:
        field = getattr(User, name)
        for function in ("count", "sum", "min", "max", "avg", "bool_and"):
            aggregate = getattr(func, function)(field)
            found[f"{function} {name}"] = select(aggregate)
            found[f"{function} {name} of nothing"] = select(aggregate).where(User.id > 10**15)
        found[f"count distinct {name}"] = select(func.count(distinct(field)))
    score = User.score
    counted = func.count(User.id)
    return found | {
        "count all": select(func.count()).select_from(User),
        "count one": select(func.count(1)).select_from(User),
        "count reference": select(func.count()).select_from(Country),
        "count join": select(func.count(), func.sum(Order.amount)).join_from(User, Order),
        "count outer join": select(func.count(Order.id)).select_from(outerjoin(User, Order)),
        "count derived": select(func.count()).select_from(select(User.id).subquery()),
        "count literal": select(func.count(literal_column("distinct score"))).select_from(User),
        "count text": select(text("count(*)")).select_from(User),
        "filter": select(func.count().filter(score > 0)),
        "window": select(func.count().over()).select_from(User),
        "mixed": select(score, func.count()),
        "with constant": select(counted, literal(1)),
        "in expression": select(counted + 1),
        "cast": select(cast(counted, Text)),
        "labels": select(counted.label("n"), func.max(User.id).label("m")),
        "group": select(score, func.count()).group_by(score),
        "having": select(counted).having(counted > 100),
        "limited": select(counted).limit(1),
        "ordered": select(counted).order_by(counted),
        "ordered inside": select(func.sum(aggregate_order_by(score, User.id))),
        "of expressions": select(func.max(score + 1), func.sum(score * 2)),
        "numeric whole": select(func.sum(cast(score, Numeric))),
        "numeric scaled": select(func.sum(cast(score, Numeric(10, 2)))),
        "float": select(func.sum(cast(score, Float))),
        "scalar": select(select(counted).scalar_subquery()),
        "bigint overflow": select(func.sum(cast(User.large, Integer))),
    }


def others() -> dict[str, Any]:
    """Raw text, functions, clauses that look at all rows, options."""
    ids = select(User.id)
    criteria = with_loader_criteria(Order, Order.amount == 1)
    return {
        "literal column": select(literal_column("1"), User.id),
        "text column": select(text("score"), User.id),
        "text condition": ids.where(text("score = 1")),
        "text condition of one": ids.where(text("score = 1"), User.id == 5),
        "text that reads": ids.where(text("exists (select 1 from orders)"), User.id == 5),
        "suffix that reads": ids.where(
            User.id == 5,
            ~exists(select(Order.id).where(Order.user_id == 5).suffix_with("UNION SELECT 1")),
        ),
        "prefix": ids.prefix_with("DISTINCT"),
        "now": ids.where(User.seen < func.now()),
        "now of one": ids.where(User.seen < func.now(), User.id == 5),
        "random order": ids.where(User.id == 5).order_by(func.random()),
        "distinct": select(User.score).distinct(),
        "distinct of one": select(User.score).where(User.id == 5).distinct(),
        "distinct function": select(func.distinct(User.score)),
        "fetch": ids.order_by(User.id).fetch(3),
        "for update": ids.with_for_update(),
        "for update and limit": ids.order_by(User.id).limit(1).with_for_update(skip_locked=True),
        "values": ids.join(
            values(column("x", Integer), name="v").data([(1,), (2,)]), column("x") == User.id
        ),
        "unnest": select(User.id, func.unnest(cast([1, 2], ARRAY(Integer)))),
        "function in from": select(User.id, func.generate_series(1, 2).column_valued("g")),
        "sample": select(tablesample(User.__table__, func.bernoulli(100)).c.id),
        "bundle": select(Bundle("pair", User.id, User.name)),
        "criteria": ids.options(with_loader_criteria(User, User.score > 0)),
        "criteria on key": ids.options(with_loader_criteria(User, User.id == 5)),
        "criteria in subquery": ids.where(
            exists(select(Order.id).where(Order.user_id == User.id))
        ).options(criteria),
        "primary key without shard key": select(Note.id, Note.user_id).where(Note.id == 101),
        "table": select(User.__table__),
        "twice": select(User.id, User.id, User.score),
    }


UNORDERED = {
    **value_types(),
    **conditions_on_keys(),
    **joins(),
    **subqueries(),
    **aggregates(),
    **others(),
}


def ordered() -> dict[str, Any]:
    """Orders that are total, or whose keys are all that is selected."""
    ids, table = select(User.id), User.__table__.c
    found: dict[str, Any] = {}
    for name in TYPED:
        field = getattr(User, name)
        for how, key in {
            "": field,
            "desc": field.desc(),
            "nulls first": field.nulls_first(),
            "desc nulls last": field.desc().nulls_last(),
        }.items():
            found[f"{name} {how}"] = select(field).order_by(key)
            found[f"{name} {how}, some"] = select(field).order_by(key).limit(5).offset(3)
        found[f"{name} desc, id"] = select(User.id, field).order_by(field.desc(), User.id)
    label = (User.id + 1).label("next")
    count = select(func.count(Order.id)).where(Order.user_id == User.id).scalar_subquery()
    row_number = func.row_number().over(order_by=User.id.desc())
    child = exists(select(Order.id).where(Order.user_id == User.id))
    return found | {
        "name given as text": ids.order_by("id"),
        "name given as text, desc": ids.order_by(desc("id")),
        "label": select(label).order_by(label.desc()),
        "label by name": select((-User.id).label("z")).order_by("z"),
        "label like a column, by name": select((-User.id).label("id")).order_by("id"),
        "label like a column, by column": select((-User.id).label("id")).order_by(User.id),
        "expression": ids.order_by(User.id % 3, User.id),
        "parameter": ids.order_by(User.id + 5),
        "case": ids.order_by(case((User.id > 5, 1), else_=0), User.id),
        "collate": select(User.name).order_by(collate(User.name, "C"), User.id),
        "collate desc": select(User.name).order_by(
            User.name.collate("C").desc().nulls_last(), User.id
        ),
        "not selected": select(User.score).order_by(User.id),
        "table not in from": ids.order_by(Country.name),
        "sharded table not in from": ids.order_by(Order.amount),
        "row number under a label": ids.order_by(row_number.label("n")),
        "row number": ids.order_by(row_number),
        "exists": ids.order_by(User.orders.any(), User.id),
        "subquery": ids.order_by(count, User.id),
        "column property": ids.order_by(User.order_count.desc(), User.id),
        "tuple": ids.order_by(tuple_(User.score, User.id)),
        "names of hidden columns": select(
            User.score.label("shards_sort_0"), User.id.label("shards_sort_1")
        ).order_by(User.id),
        "name of a hidden column": select(User.score.label("shards_sort_0"), User.id).order_by(
            "shards_sort_0", User.id
        ),
        "column twice": select(User.id, User.id, User.score).order_by(User.id),
        "core column twice": select(table.id, table.id, table.score).order_by(
            table.score.desc(), table.id
        ),
        "objects": select(User).order_by(User.id),
        "object twice": select(User, User.id, User).order_by(User.id.desc()),
        "two objects": select(User, Order).join(Order).order_by(User.id, Order.id),
        "undeferred": select(User).options(undefer(User.order_count)).order_by(User.id),
        "added columns": select(User.id + User.score + 1, User.name + "x" + User.code).order_by(
            User.id
        ),
        "criteria in subquery": ids.where(child)
        .options(with_loader_criteria(Order, lambda order: order.amount == 1))
        .order_by(User.id),
        "no rows": ids.order_by(User.id).limit(0),
        "no limit": ids.order_by(User.id).limit(bindparam("n", None, type_=Integer)),
        "offset only": ids.order_by(User.id).offset(4),
        "slice": ids.order_by(User.id).slice(2, 5),
        "limit literal": ids.order_by(User.id).limit(literal_column("3")),
        "limit function": ids.order_by(User.id).limit(func.abs(-3)),
        "limit rendered": ids.order_by(User.id).limit(bindparam("n", 3, literal_execute=True)),
        "for update": ids.order_by(User.id).with_for_update(),
        "joined collection": select(User).options(joinedload(User.orders)).order_by(User.id),
        "joined collection, some": select(User)
        .options(joinedload(User.orders))
        .order_by(User.id)
        .limit(3),
        "joined parent, some": select(User)
        .options(joinedload(User.country))
        .order_by(User.id)
        .limit(3),
    }


ORDERED = ordered()


class Answer:
    """Rows in order, or an error, of one function of a session."""

    def __init__(self, bind: Any, run: Callable[[Session], Any]) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        try:
            with Session(bind) as session:
                self.rows = [typed(row) for row in run(session)]
        except (SQLAlchemyError, ShardsError) as error:
            self.error = error


def answers(world: World, run: Callable[[Session], Any]) -> tuple[Answer, Answer]:
    """What one database and the cluster give; errors are alike, or a refusal."""
    one, cluster = Answer(world.one, run), Answer(world.cluster.engine, run)
    if isinstance(cluster.error, UnsupportedStatement):
        return cluster, cluster
    assert type(cluster.error) is type(one.error), cluster.error
    return one, cluster


def rows(statement: Any, parameters: Any = None) -> Callable[[Session], Any]:
    """All rows of a statement; objects with joined collections once each."""

    def run(session: Session) -> Any:
        result = session.execute(statement, parameters)
        try:
            return result.all()
        except InvalidRequestError:  # joined collections, which are doubled rows by nature
            return session.execute(statement, parameters).unique().all()

    return run


@pytest.mark.parametrize("name", UNORDERED)
def test_an_awkward_statement(world: World, name: str) -> None:
    one, cluster = answers(world, rows(UNORDERED[name]))

    assert Counter(cluster.rows) == Counter(one.rows)


@pytest.mark.parametrize("name", ORDERED)
def test_an_awkward_order(world: World, name: str) -> None:
    one, cluster = answers(world, rows(ORDERED[name]))

    assert without_digits(cluster.rows) == without_digits(one.rows)


def without_digits(found: list[Any]) -> list[Any]:
    """Rows whose numerics have no zeros behind: 1 and 1.0 are alike to ORDER BY."""
    return [[_without_digits(cell) for cell in row] for row in found]


def _without_digits(cell: Any) -> Any:
    is_decimal = isinstance(cell, tuple) and cell[0] == "Decimal"
    return Decimal(cell[1]).normalize() if is_decimal else cell


@pytest.mark.parametrize("count", [2.7, 2.5, Decimal("2.5"), "3", True, -1, 2**64, None, 2**31])
@pytest.mark.parametrize("clause", ["limit", "offset", "both"])
def test_an_awkward_number_of_rows(world: World, clause: str, count: Any) -> None:
    many = bindparam("n", type_=BigInteger)
    statement = select(User.id).order_by(User.id)
    statement = statement.limit(4 if clause == "offset" else many)
    statement = statement.offset(3 if clause == "limit" else many)

    one, cluster = answers(world, rows(statement, {"n": count}))

    assert cluster.rows == one.rows


def test_the_largest_limit_with_an_offset(world: World) -> None:
    statement = select(User.id).order_by(User.id).offset(3)
    statement = statement.limit(bindparam("n", 2**63 - 1, type_=BigInteger))

    one, cluster = answers(world, rows(statement))

    assert one is not cluster
    assert cluster.rows == one.rows


BIND = bindparam("x", type_=BigInteger)
LIST = bindparam("x", expanding=True, type_=BigInteger)
PARAMETERS = {
    "rendered": (select(User.id).where(User.id == bindparam("x", 5, literal_execute=True)), 7),
    "rendered without default": (
        select(User.id).where(User.id == bindparam("x", type_=BigInteger, literal_execute=True)),
        7,
    ),
    "rendered list": (
        select(User.id).where(
            User.id.in_(bindparam("x", [5, 6], expanding=True, literal_execute=True))
        ),
        [7, 8],
    ),
    "rendered and ordered": (
        select(User.id)
        .where(User.score > bindparam("x", 5, literal_execute=True))
        .order_by(User.id),
        0,
    ),
    "list twice": (
        select(User.id).where(User.id.in_(LIST), or_(User.id.in_(LIST), User.score == 1)),
        [1, 2, 3],
    ),
    "list twice, ordered": (
        select(User.id)
        .where(User.id.in_(LIST), or_(User.id.in_(LIST), User.score == 1))
        .order_by(User.id),
        [1, 2, 3],
    ),
    "key and value": (
        select(User.id).where(or_(User.id == BIND, User.score == BIND)).order_by(User.id),
        1,
    ),
    "key and limit": (select(User.id).where(User.id > BIND).order_by(User.id).limit(BIND), 3),
    "other type": (select(User.id).where(User.id == bindparam("x")), Decimal(3)),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_awkward_parameter(world: World, name: str) -> None:
    statement, value = PARAMETERS[name]

    one, cluster = answers(world, rows(statement, {"x": value}))

    assert Counter(cluster.rows) == Counter(one.rows)


def test_a_parameter_of_the_name_that_the_planner_uses(world: World) -> None:
    limit = bindparam("shards_limit", type_=BigInteger)
    statement = select(User.id).where(User.id > limit).order_by(User.id).limit(4)

    one, cluster = answers(world, rows(statement, {"shards_limit": 7}))

    assert one is not cluster
    assert cluster.rows == one.rows


def test_a_parameter_whose_value_is_computed_at_each_execution(world: World) -> None:
    keys = iter([5, 5, 6, 6])
    key = bindparam("x", callable_=lambda: next(keys), type_=BigInteger)
    statement = select(User.id).where(User.id == key)

    first = answers(world, rows(statement))
    second = answers(world, rows(statement))

    assert first[0].rows == first[1].rows == [(("int", 5),)]
    assert second[0].rows == second[1].rows == [(("int", 6),)]


def test_a_lambda_statement_with_other_values(world: World) -> None:
    def run(session: Session, key: int) -> Any:
        statement = lambda_stmt(lambda: select(User.id, User.score))
        statement += lambda query: query.where(User.id >= key).order_by(User.id)
        return session.execute(statement).all()

    for key in (1, 7):
        one, cluster = answers(world, lambda session, key=key: run(session, key))  # type: ignore[misc]

        assert one is not cluster
        assert cluster.rows == one.rows


@pytest.mark.parametrize(
    "load",
    [selectinload, subqueryload, joinedload, lazyload, immediateload],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("limit", [None, 5])
def test_loaders(world: World, load: Any, limit: int | None) -> None:
    query = select(User).options(load(User.orders)).order_by(User.id).limit(limit)

    def run(session: Session) -> Any:
        users = session.scalars(query).unique().all()
        return [(user.id, [order.id for order in user.orders]) for user in users]

    one, cluster = answers(world, run)

    assert cluster.rows == one.rows


class TestNamedShards:
    def test_a_reference_table_is_read_once_however_many_shards_are_named(
        self, world: World
    ) -> None:
        with Session(world.cluster.engine) as session:
            everywhere = {"shard": "*"}
            codes = session.scalars(select(Country.code), execution_options=everywhere).all()
            count = session.scalar(select(func.count(Country.code)), execution_options=everywhere)

        assert sorted(codes) == ["de", "fr", "in", "xx"]
        assert count == 4


@pytest.fixture(scope="module")
def other_schema(world: World) -> World:
    """The same with a schema `other` that holds fewer users, in another collation."""
    engines = [world.one, *(shard.engine for shard in world.cluster.shards.values())]
    for engine in engines:
        with engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA other"))
            connection.execute(text("CREATE TABLE other.users (LIKE users)"))
            connection.execute(text("INSERT INTO other.users SELECT * FROM users WHERE id < 3"))
            connection.execute(
                text('ALTER TABLE other.users ALTER code TYPE text COLLATE "und-x-icu"')
                if _has_icu(engine)
                else text("SELECT 1")
            )
    return world


def _has_icu(engine: Engine) -> bool:
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'")
        )
        return bool(found.scalar_one())


@pytest.mark.parametrize(
    "statement",
    [
        select(User.id).where(User.id == 1),
        select(User.id).order_by(User.id),
        select(User.id).order_by(User.id.desc()).limit(2),
        select(User.code).order_by(User.code),
        select(func.count(User.id)),
    ],
    ids=["key", "order", "limit", "text order", "count"],
)
def test_translated_schemas(other_schema: World, statement: Any) -> None:
    translated = statement.execution_options(schema_translate_map={None: "other"})

    one, cluster = answers(other_schema, rows(translated))
    _, plain = answers(other_schema, rows(statement))

    assert cluster.rows == one.rows
    assert plain.rows != cluster.rows or "WHERE" in str(statement)


NEW_KEY = 500
WRITES = {
    "insert reading another shard": [
        insert(User).values(
            id=NEW_KEY, score=select(func.max(Twin.score)).where(Twin.id == 3).scalar_subquery()
        )
    ],
    "insert reading all shards": [
        insert(User).values(id=NEW_KEY, score=select(func.count(Twin.id)).scalar_subquery())
    ],
    "rows that read all shards": [
        insert(User).values(score=select(func.count(Twin.id)).scalar_subquery()).returning(User.id),
        [{"id": NEW_KEY + number} for number in range(8)],
    ],
    "rows that each read another row": [
        insert(User)
        .values(score=select(Twin.score).where(Twin.id == bindparam("b")).scalar_subquery())
        .returning(User.id),
        [{"id": NEW_KEY + number, "b": number} for number in range(8)],
    ],
    "reference row from a sharded row": [
        update(Country).values(rank=select(User.score).where(User.id == 2).scalar_subquery())
    ],
    "reference rows that a sharded row picks": [
        update(Country).values(rank=9).where(exists(select(User.id).where(User.id == 2)))
    ],
    "reference row with the time": [
        insert(Country).values([{"code": "a", "name": "a"}, {"code": "b", "name": func.now()}])
    ],
    "reference row with random text": [
        upsert(Country)
        .values(code="in", name="x")
        .on_conflict_do_update(index_elements=["code"], set_={"name": cast(func.random(), Text)})
    ],
    "reference rows from picked rows": [
        insert(Country).from_select(["code", "name"], select(literal("yy"), Country.name).limit(1))
    ],
    "reference rows from reference rows": [
        insert(Country).from_select(
            ["code", "name"], select(func.substr(Country.code, 2, 1), Country.name)
        )
    ],
    "reference rows with raw text": [update(Country).values(rank=text("random()"))],
    "reference rows from one of several": [
        update(Country).values(name=Twin.name).where(Twin.country_code == Country.code)
    ],
    "global row from a sharded row": [
        insert(Flag).values(id=9, name=select(User.code).where(User.id == 2).scalar_subquery())
    ],
    "global rows from sharded rows": [
        insert(Flag).from_select(["id", "name"], select(User.id, User.code).where(User.id == 2))
    ],
    "sharded rows from sharded rows": [
        insert(Note).from_select(["id", "user_id"], select(User.id + 1000, User.id))
    ],
    "key under another name": [
        upsert(Note)
        .values(id=100, user_id=3)
        .on_conflict_do_update(index_elements=["id"], set_={Note.__table__.c.user_id: 3})
    ],
    "update by joined key": [
        update(Order).values(amount=User.score).where(Order.user_id == User.id)
    ],
    "update by joined value": [update(Order).values(amount=9).where(Order.id == Other.id)],
    "update by list": [update(User).values(score=9).where(User.id.in_([1, 2, 3]))],
    "update of key": [update(User).values(id=User.id + 1000)],
}


@pytest.mark.parametrize("name", WRITES)
def test_an_awkward_write(world: World, name: str) -> None:
    models = (User, Order, Note, Country, Flag)

    def run(session: Session) -> Any:
        session.connection(execution_options={"scatter": "allow"})
        session.connection().execute(*WRITES[name])  # type: ignore[arg-type]
        return [row for model in models for row in contents_of(world, session, model)]

    one, cluster = Answer(world.one, run), Answer(world.cluster.engine, run)

    if isinstance(cluster.error, ShardsError):
        return
    assert type(cluster.error) is type(one.error), cluster.error
    assert Counter(cluster.rows) == Counter(one.rows)


def contents_of(world: World, session: Session, model: type[Any]) -> list[Any]:
    """A table's rows; of a reference table every different row of every copy."""
    query = select(model.__table__)
    if model is not Country or session.get_bind() is world.one:
        return list(session.execute(query))
    copies = [
        tuple(sorted(session.execute(query, execution_options={"shard": shard}), key=str))
        for shard in world.cluster.shards
    ]
    return [row for copy in dict.fromkeys(copies) for row in copy]
