"""Tables under partitioners of every kind, and Hypothesis strategies of conditions on their keys.

Values lie on, beside and between bounds; some keys are pinned elsewhere; NULL is compared as well.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import array

from sqlalchemy_shards import (
    CompositePartitioner,
    HashPartitioner,
    Keyspace,
    ListPartitioner,
    RangePartitioner,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.models.generated_id import GeneratedId
from sqlalchemy_shards.topology.generated_id import FIRST_MILLISECOND, IdParts, id_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards.topology.shard_map import ShardMap

METADATA = MetaData()
NUMBERS = (-1, 0, 5, 9, 10, 15, 19, 20, 25)
NAMES = ("", "a", "az", "b", "m", "mm", "ä", "é", "日")
PRICES = (Decimal("0"), Decimal("1.5"), Decimal("1.50001"), Decimal("9.99"), Decimal("10"))
REGIONS = ("north", "south", "east", "")


def key(name: str, type_: Any) -> Column[Any]:
    return Column(name, type_, primary_key=True, autoincrement=False)


def sharded(name: str, *columns: Column[Any], key: Any, keyspace: str) -> Table:
    table = Table(name, METADATA, *columns, Column("value", Integer))
    return shard_table(table, key=key, keyspace=keyspace)


READINGS = sharded("readings", key("k", Integer), key="k", keyspace="numbers")
NOTES = sharded("notes", key("k", BigInteger), key("id", Integer), key="k", keyspace="numbers")
ITEMS = sharded(
    "items",
    key("id", GeneratedId),
    Column("k", Integer, nullable=False),
    key="k",
    keyspace="numbers",
)
HASHED = sharded("hashed", key("k", Integer), key="k", keyspace="hashed")
LABELS = sharded("labels", key("k", Text(collation="C")), key="k", keyspace="names")
WORDS = sharded("words", key("k", Text), key="k", keyspace="names")
COSTS = sharded("costs", key("k", Numeric), key="k", keyspace="prices")
FLAGS = sharded("flags", key("k", Boolean), key="k", keyspace="flags")
SHIPMENTS = sharded(
    "shipments", key("k", Text), key("m", Integer), key=("k", "m"), keyspace="pairs"
)
PARCELS = sharded(
    "parcels",
    key("k", Text),
    key("m", Integer),
    key("id", Integer),
    key=("k", "m"),
    keyspace="pairs",
)
SPANS = sharded("spans", key("k", Integer), key("m", Integer), key=("k", "m"), keyspace="spans")
PAIRS = sharded("hashpairs", key("k", Integer), key("m", Integer), key=("k", "m"), keyspace="both")
CODES = reference_table(Table("codes", METADATA, key("code", Integer), Column("value", Integer)))

TABLES = (READINGS, NOTES, ITEMS, HASHED, LABELS, WORDS, COSTS, FLAGS, SHIPMENTS, SPANS, PAIRS)
CHILDREN: Mapping[Table, Table] = {READINGS: NOTES, SHIPMENTS: PARCELS, NOTES: READINGS}
TENS = RangePartitioner([0, 10, 20])


def keyspaces() -> dict[str, Keyspace]:
    """Partitioners of every kind, with pins that lie beside their buckets' shards."""
    return {
        "numbers": Keyspace(TENS, pins={5: "s3", 25: "s0"}),
        "hashed": Keyspace(HashPartitioner(8), pins={9: "s2"}),
        "names": Keyspace(RangePartitioner(["b", "m", "é"]), pins={"az": "s3"}),
        "prices": Keyspace(RangePartitioner([Decimal("1.5"), 10])),
        "flags": Keyspace(ListPartitioner({"yes": [True], "no": [False]})),
        "pairs": Keyspace(
            CompositePartitioner(
                ListPartitioner({"n": ["north"], "s": ["south"]}, default="other"),
                HashPartitioner(2),
            ),
            placement={"n/0-1": "s0", "s/0-1": "s1", "other/0": "s2", "other/1": "s3"},
            pins={("north", 5): "s2"},
        ),
        "spans": Keyspace(CompositePartitioner(TENS, RangePartitioner([10])), pins={(15, 0): "s0"}),
        "both": Keyspace(HashPartitioner(16)),
    }


def rows(shard_map: ShardMap) -> dict[Table, list[dict[str, Any]]]:
    """Every table's rows."""

    def with_id(k: int, number: int) -> int:
        bucket = shard_map.bucket_for("numbers", (k,))
        return id_of(IdParts(FIRST_MILLISECOND + number, bucket, 0, 0))

    pairs = [(k, m) for k in REGIONS for m in NUMBERS[1:6]]
    numbers = [(k, m) for k in NUMBERS for m in (0, 9, 10, 25)]
    return {
        READINGS: [{"k": k, "value": k % 3} for k in NUMBERS],
        NOTES: [{"k": k, "id": i, "value": i} for k in NUMBERS[2:] for i in range(k % 3)],
        ITEMS: [{"k": k, "id": with_id(k, n), "value": n} for n, k in enumerate(NUMBERS)],
        HASHED: [{"k": k, "value": k % 2} for k in NUMBERS],
        LABELS: [{"k": k, "value": len(k)} for k in NAMES],
        WORDS: [{"k": k, "value": len(k)} for k in NAMES],
        COSTS: [{"k": k, "value": 1} for k in PRICES],
        FLAGS: [{"k": k, "value": int(k)} for k in (True, False)],
        SHIPMENTS: [{"k": k, "m": m, "value": m % 2} for k, m in pairs],
        PARCELS: [{"k": k, "m": m, "id": 1, "value": m % 3} for k, m in pairs[::2]],
        SPANS: [{"k": k, "m": m, "value": m % 2} for k, m in numbers],
        PAIRS: [{"k": k, "m": m, "value": m % 2} for k, m in numbers],
        CODES: [{"code": k, "value": k % 2} for k in NUMBERS],
    }


def values_of(column: Any, ids: Sequence[int]) -> Sequence[Any]:
    """Values worth comparing a column with; None is NULL."""
    if isinstance(column.type, GeneratedId):
        return (*ids, 1, -1, None)
    if isinstance(column.type, Boolean):
        return (True, False, None)
    if isinstance(column.type, Text):
        return (*NAMES, *REGIONS, None)
    if type(column.type) is Numeric:
        return (*PRICES, Decimal("1.4"), Decimal("1.50"), 3, 10, None)
    return (*NUMBERS, 1, 99, Decimal("9.5"), Decimal("10"), None)


@st.composite
def leaves(draw: Any, table: Any, ids: Sequence[int]) -> Any:
    """One comparison of one column, or of both parts of a key."""
    columns = [column for column in table.c if column.name != "value"] * 3 + [table.c.value]
    column = draw(st.sampled_from(columns))
    value = st.sampled_from(values_of(column, ids))
    one, other = draw(value), draw(value)
    shape = draw(st.sampled_from(_SHAPES))
    if shape == "rows" and "m" in table.c:
        row = st.tuples(*(st.sampled_from(values_of(table.c[c], ids)) for c in "km"))
        listed = draw(st.lists(row.filter(lambda r: None not in r), min_size=1, max_size=3))
        listed = [each for each in listed if list(map(type, each)) == list(map(type, listed[0]))]
        both = tuple_(table.c.k, table.c.m)
        return draw(
            st.sampled_from(
                [
                    both == tuple_(*listed[0]),
                    both.in_(listed),
                    both.in_([tuple_(*each) for each in listed]),
                    both < tuple_(*listed[0]),
                ]
            )
        )
    if shape in ("in", "not in", "any"):
        return _listed(draw, shape, column, [v for v in values_of(column, ids) if v is not None])
    if isinstance(column.type, Boolean):
        return draw(st.sampled_from([column, ~column, column == true(), column.is_(False)]))
    return _compared(shape, column, _literal(one, column), _literal(other, column))


_SHAPES = (
    *("==",) * 4,
    *("<", "<=", ">", ">=", "between", "between", "symmetric", "in", "in", "rows", "rows"),
    *("!=", "not in", "any", "null", "not distinct", "cast", "coerced", "sum", "callable"),
)


def _literal(value: Any, column: Any) -> Any:
    return literal(value, column.type) if value is None else literal(value)


def _listed(draw: Any, shape: str, column: Any, values: Sequence[Any]) -> Any:
    same = [v for v in values if type(v) is type(values[0])]
    listed = draw(st.lists(st.sampled_from(same), max_size=3))
    if shape == "in":
        return column.in_([*listed, None] if len(listed) == 2 else listed)
    if shape == "not in":
        return column.not_in(listed)
    if len(listed) == 3:
        return column == any_(array(listed))
    return column == any_(literal(listed, ARRAY(column.type)))


def _compared(shape: str, column: Any, one: Any, other: Any) -> Any:
    ways = {
        "==": lambda: column == one,
        "<": lambda: column < one,
        "<=": lambda: one >= column,
        ">": lambda: column > one,
        ">=": lambda: column >= one,
        "!=": lambda: column != one,
        "between": lambda: column.between(one, other),
        "symmetric": lambda: column.between(one, other, symmetric=True),
        "null": lambda: column.is_(None),
        "not distinct": lambda: column.is_not_distinct_from(one),
        "cast": lambda: column == cast(one.value, column.type),
        "coerced": lambda: column == type_coerce(one.value, column.type),
        "callable": lambda: (
            column == bindparam("c", callable_=lambda: one.value, unique=True, type_=one.type)
        ),
        "sum": lambda: func.coalesce(column, one) == other,
    }
    return ways.get(shape, ways["=="])()


def conditions(table: Any, ids: Sequence[int]) -> Any:
    """A WHERE clause: comparisons joined by AND, OR and NOT."""

    def combined(parts: Any) -> Any:
        several = st.lists(parts, min_size=2, max_size=3)
        return st.one_of(
            several.map(lambda each: and_(*each)),
            several.map(lambda each: or_(*each)),
            several.map(lambda each: not_(or_(*each))),
            several.map(lambda each: not_(and_(*each))),
            parts.map(not_),
            parts.map(lambda each: each.is_(True)),
            st.just(false()),
        )

    return st.recursive(leaves(table, ids), combined, max_leaves=5)


@st.composite
def statements(draw: Any, ids: Sequence[int]) -> Any:
    """A SELECT of keys, from one table or from several that are tied in some way."""
    table = draw(st.sampled_from(TABLES))
    entity = table.alias() if draw(st.booleans()) else table
    where = draw(conditions(entity, ids))
    shape = draw(st.sampled_from(_STATEMENTS))
    if shape == "reference" and isinstance(table.c.k.type, Integer):
        limit = draw(st.sampled_from(NUMBERS))
        tie = entity.c.k == CODES.c.code
        return select(entity).join(CODES, tie).where(CODES.c.code == limit, where)
    if shape in ("plain", "reference") or table not in CHILDREN:
        return select(entity).where(where)
    child = CHILDREN[table].alias()
    names = [name for name in ("k", "m") if name in entity.c and name in child.c]
    tie = and_(*(entity.c[name] == child.c[name] for name in names))
    inner = draw(conditions(child, ids))
    return _tied(shape, (entity, where), (child, inner), tie, names)


_STATEMENTS = (
    *("plain",) * 8,
    *("inner", "left", "left", "right", "exists", "not exists", "in", "not in", "scalar"),
    *("derived", "grouped", "distinct", "limited", "cte", "cte twice", "union", "lateral"),
    *("chain", "chain", "nested", "or exists", "reference", "reference", "loose"),
    *("exists twice", "shadowed"),
)


def _tied(shape: str, outer: Any, child: Any, tie: Any, names: Sequence[str]) -> Any:
    (entity, where), (other, inner) = outer, child
    of_other = [other.c[name] for name in names]
    of_entity = tuple_(*(entity.c[name] for name in names))
    found = exists().where(tie, inner)
    columns = [*entity.c, *(column.label(f"o_{column.name}") for column in other.c)]
    union = union_all(select(*of_other).where(inner), select(*of_other)).subquery()
    grouped = select(*of_other, func.count().label("n")).where(inner).group_by(*of_other).subquery()
    again = other.element.alias()
    ways = {
        "inner": lambda: select(*columns).join(other, tie).where(where, inner),
        "left": lambda: select(*columns).outerjoin(other, tie).where(or_(where, inner)),
        "right": lambda: (
            select(*columns).select_from(other.outerjoin(entity, and_(tie, where))).where(inner)
        ),
        "chain": lambda: select(*columns).select_from(
            entity.outerjoin(other, and_(tie, where)).outerjoin(
                again, and_(inner, *(other.c[name] == again.c[name] for name in names))
            )
        ),
        "nested": lambda: (
            select(*columns)
            .select_from(
                entity.outerjoin(
                    other.outerjoin(
                        again, and_(inner, *(other.c[name] == again.c[name] for name in names))
                    ),
                    tie,
                )
            )
            .where(or_(where, again.c.value == 1))
        ),
        "loose": lambda: (
            select(*columns).outerjoin(other, entity.c.value == other.c.value).where(where, inner)
        ),
        "exists": lambda: select(entity).where(found),
        "or exists": lambda: select(entity).where(or_(where, found)),
        "exists twice": lambda: select(entity).where(
            exists().where(
                tie, exists().where(inner, *(again.c[name] == other.c[name] for name in names))
            )
        ),
        # The subquery names the same reference table as the statement around it.
        "shadowed": lambda: (
            select(other)
            .join(CODES, true())
            .where(
                CODES.c.code.in_(
                    select(CODES.c.value)
                    .where(CODES.c.code == 10, CODES.c.value == other.c[names[-1]])
                    .correlate(other)
                )
            )
        ),
        "not exists": lambda: select(entity).where(where, ~found),
        "in": lambda: select(entity).where(of_entity.in_(select(*of_other).where(inner))),
        "not in": lambda: select(entity).where(of_entity.not_in(select(*of_other).where(inner))),
        "scalar": lambda: select(entity).where(
            where, entity.c.k == select(func.min(other.c.k)).where(inner, tie).scalar_subquery()
        ),
        "derived": lambda: _around(select(entity).where(where).subquery(), other, inner, names),
        "grouped": lambda: _around(grouped, entity, where, names),
        "distinct": lambda: _around(
            select(*of_other).where(inner).distinct().subquery(), entity, where, names
        ),
        "limited": lambda: _around(
            select(*of_other).where(inner).order_by(*of_other).limit(2).subquery(),
            entity,
            where,
            names,
        ),
        "cte": lambda: _around(select(other).where(inner).cte(), entity, where, names),
        "cte twice": lambda: _twice(select(other).where(inner).cte(), entity, where),
        "union": lambda: _around(union, entity, where, names),
        "lateral": lambda: select(entity).join(
            select(other.c.value).where(tie, inner).order_by(other.c.value).limit(1).lateral(),
            true(),
        ),
    }
    return ways[shape]()


def _around(inside: Any, entity: Any, where: Any, names: Sequence[str]) -> Any:
    tie = and_(*(entity.c[name] == inside.c[name] for name in names))
    return select(entity, inside.c.k.label("inside")).join(inside, tie).where(where)


def _twice(cte: Any, entity: Any, where: Any) -> Any:
    again = cte.alias()
    return (
        select(entity)
        .join(cte, cte.c.k == entity.c.k)
        .join(again, again.c.value == entity.c.value)
        .where(where)
    )
