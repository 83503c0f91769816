"""From statements to shards, without a server: what narrows, and to which shards exactly."""

# ruff: noqa: SIM300 - the names in capitals are columns

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    Numeric,
    String,
    and_,
    any_,
    bindparam,
    cast,
    delete,
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
    update,
)
from sqlalchemy.dialects.postgresql import array

from sqlalchemy_shards.routing.route import Reason
from sqlalchemy_shards.topology.generated_id import FIRST_MILLISECOND, IdParts, id_of
from tests.properties.conditions import (
    CODES,
    COSTS,
    FLAGS,
    HASHED,
    ITEMS,
    LABELS,
    NOTES,
    PAIRS,
    PARCELS,
    READINGS,
    SHIPMENTS,
    SPANS,
    WORDS,
    keyspaces,
)
from tests.routed import routed, territory_of

TERRITORY = territory_of(keyspaces())
EVERYWHERE = "s0 s1 s2 s3"
NOWHERE = ""
K = READINGS.c.k  # s0 below 0, s2 below 10, s1 below 20, s3 from 20; 5 is on s3, 25 on s0
NAME, WORD, COST, FLAG = LABELS.c.k, WORDS.c.k, COSTS.c.k, FLAGS.c.k
REGION, NUMBER = SHIPMENTS.c.k, SHIPMENTS.c.m
BOTH = tuple_(REGION, NUMBER)


def shards(statement: Any) -> str:
    return " ".join(routed(statement, TERRITORY).shards)


def id_in(bucket: int) -> int:
    return id_of(IdParts(FIRST_MILLISECOND, bucket, 0, 0))


def test_the_buckets_of_these_tests_are_where_they_are_said_to_be() -> None:
    shard_map = TERRITORY.shard_map
    homes = [shard_map.shard_for("numbers", (k,)) for k in (-1, 0, 5, 10, 20, 25)]

    assert homes == ["s0", "s2", "s3", "s1", "s3", "s0"]


EQUALITIES = [
    (K == 6, "s2"),
    (literal(6) == K, "s2"),
    (K == 5, "s3"),
    (K.in_([6, 15]), "s1 s2"),
    (K.in_([6, None]), "s2"),
    (K.in_([]), NOWHERE),
    (K.in_([literal(6), 15]), "s1 s2"),
    (K.in_([6, 15]) & K.in_([15, 25]), "s1"),
    (K == literal(None, Integer), NOWHERE),
    (and_(K == 1, K == 2), NOWHERE),
    (or_(K == 6, K == 15), "s1 s2"),
    (or_(K == 6, READINGS.c.value == 1), EVERYWHERE),
    (or_(K == 6, false()), "s2"),
    (and_(K == 6, true()), "s2"),
    (K == bindparam("k", callable_=lambda: 6), "s2"),
    (K == cast(6, Integer), "s2"),
    (K == cast(literal(6), BigInteger), "s2"),
    (K == type_coerce(6, Integer), "s2"),
    (K == cast("6", Integer), EVERYWHERE),
    (K == literal(6) + 0, EVERYWHERE),
    (K + 0 == 6, EVERYWHERE),
    (K == Decimal(6), "s2"),
    (K == Decimal("6.00"), "s2"),
    (K == Decimal("6.5"), NOWHERE),
    (K == literal(6.0), EVERYWHERE),
    (K == literal("6", String), EVERYWHERE),
    (K == any_(array([6, 15])), "s1 s2"),
    (K == any_(literal([6, 15, None], ARRAY(Integer))), "s1 s2"),
    (K == any_(literal([[6], [15]], ARRAY(Integer, dimensions=2))), EVERYWHERE),
    (K.is_not_distinct_from(6), "s2"),
    (K.is_(None), NOWHERE),
    (K.is_not(None), EVERYWHERE),
    ((K == 6).is_(True), "s2"),
    ((K == 6).is_not(True), EVERYWHERE),
    ((K != 6).is_(False), "s2"),
    ((K == 6) == true(), "s2"),
    ((K == 6) == false(), EVERYWHERE),
    (COST == 3, "s2"),
    (COST == Decimal("1.50"), "s2"),
    (COST.in_([1, 20]), "s0 s1"),
    (FLAG, "s0"),
    (~FLAG, "s1"),
    (FLAG == false(), "s1"),
    (FLAG.is_(True), "s0"),
    (FLAG.is_not(True), "s0 s1"),
    (HASHED.c.k == 9, "s2"),
]

NEGATIONS = [
    (~(K == 6), EVERYWHERE),
    (K.not_in([6]), EVERYWHERE),
    (not_(K.not_in([6])), "s2"),
    (not_(and_(K != 6, K != 15)), "s1 s2"),
    (not_(or_(K < 10, K >= 20)), "s1"),
    (not_(or_(K != 6, READINGS.c.value == 1)), "s2"),
    (not_(and_(K != 6, READINGS.c.value == 1)), EVERYWHERE),
    (not_(not_(and_(K == 6, READINGS.c.value == 1))), "s2"),
    (not_(and_(K.is_not(None), K >= 0)), "s0"),
]

RANGES = [
    (K < 0, "s0"),
    (K <= -1, "s0"),
    (K < 1, "s0 s2"),
    (K >= 20, "s0 s3"),
    (K > 19, "s0 s3"),
    (25 > K, EVERYWHERE),
    (K.between(10, 19), "s1"),
    (K.between(15, 5), NOWHERE),
    (K.between(15, 6, symmetric=True), "s1 s2"),
    (~K.between(0, 24), "s0 s3"),
    (K.between(6, None), NOWHERE),
    (and_(K > 3, K < 7), "s2 s3"),
    (and_(K > 3, K < 4), NOWHERE),
    (and_(K >= 6, K <= 6), "s2"),
    (and_(K > 9, K == 5), NOWHERE),
    (and_(K < 9, K.in_([6, 15])), "s2"),
    (or_(K < 0, K.between(10, 12)), "s0 s1"),
    (K > Decimal("9.5"), "s0 s1 s3"),
    (K > literal(9.5), EVERYWHERE),
    (COST < Decimal("1.5"), "s0"),
    (COST <= Decimal("1.5"), "s0 s2"),
    (COST > 9, "s1 s2"),
    (NAME < "b", "s0 s3"),
    (NAME < "a", "s0"),
    (NAME < literal("b", String(collation="unicode")), EVERYWHERE),
    (WORD < "b", EVERYWHERE),
    (HASHED.c.k < 3, EVERYWHERE),
    (and_(HASHED.c.k < 3, HASHED.c.k > 5), NOWHERE),
]

PARTS = [
    (REGION == "north", "s0 s2"),
    (REGION == "east", "s2 s3"),
    (REGION.in_(["north", "south"]), "s0 s1 s2"),
    (and_(REGION == "north", NUMBER == 5), "s2"),
    (and_(REGION == "north", NUMBER == 6), "s0"),
    (BOTH == tuple_("south", 6), "s1"),
    (BOTH == ("south", 6), "s1"),
    (BOTH.in_([("south", 6), ("north", 5)]), "s1 s2"),
    (BOTH.in_([tuple_("south", 6), tuple_("north", 6)]), "s0 s1"),
    (tuple_(REGION, SHIPMENTS.c.value).in_([("south", 6)]), "s1"),
    (tuple_(NUMBER, REGION).in_([(6, "south")]), "s1"),
    (not_(BOTH != tuple_("south", 6)), "s1"),
    (REGION > "m", EVERYWHERE),
    (PAIRS.c.k == 1, EVERYWHERE),
    (and_(SPANS.c.k == 5, SPANS.c.m < 10), "s3"),
    (and_(SPANS.c.k < 0, SPANS.c.m < 10), "s0"),
    (tuple_(SPANS.c.k, SPANS.c.m) < (0, 5), "s0 s2 s3"),
]

IDS = [
    (ITEMS.c.id == id_in(2), "s1"),
    (ITEMS.c.id == id_in(1), "s2 s3"),
    (ITEMS.c.id.in_([id_in(0), id_in(2)]), "s0 s1"),
    (ITEMS.c.id == 5, EVERYWHERE),
    (ITEMS.c.id.in_([id_in(0), 5]), EVERYWHERE),
    (ITEMS.c.id == id_in(99), EVERYWHERE),
    (or_(ITEMS.c.id == id_in(0), ITEMS.c.k == 15), "s0 s1"),
    (and_(ITEMS.c.id == id_in(1), ITEMS.c.k == 6), "s2"),
    (ITEMS.c.id > id_in(1), EVERYWHERE),
    (ITEMS.c.id != id_in(1), EVERYWHERE),
]


@pytest.mark.parametrize(
    ("where", "expected"), EQUALITIES + NEGATIONS + RANGES + PARTS + IDS, ids=str
)
def test_a_condition_leads_to_shards(where: Any, expected: str) -> None:
    assert shards(select(literal(1)).where(where)) == expected


CHILD = NOTES.c.k
BESIDE = K == CHILD
COUNTED = select(CHILD, func.count().label("n")).group_by(CHILD).subquery()
UNITED = union_all(select(K), select(CHILD)).subquery()
EXISTING = exists().where(BESIDE)
ONCE = select(NOTES).where(NOTES.c.id == 1).cte()
OUTER = READINGS.outerjoin(NOTES, BESIDE)
LATEST = select(NOTES.c.id).where(BESIDE).order_by(NOTES.c.id).limit(1).lateral()


STATEMENTS = [
    (select(READINGS).where(false()), NOWHERE),
    (select(READINGS).where(not_(false())), EVERYWHERE),
    (select(READINGS, NOTES).where(BESIDE, CHILD == 6), "s2"),
    (select(READINGS, NOTES).where(BESIDE, or_(K < 0, CHILD.between(10, 12))), "s0 s1"),
    (select(READINGS, CODES).where(K == CODES.c.code, CODES.c.code == 6), "s2"),
    (select(READINGS, CODES).where(K == CODES.c.code, CODES.c.code < 0), "s0"),
    (select(READINGS, CODES).where(K == CODES.c.code, CODES.c.value == 0), EVERYWHERE),
    (select(READINGS).select_from(OUTER).where(K == 6), "s2"),
    (select(READINGS).select_from(OUTER).where(CHILD == 6), "s2"),
    (select(READINGS).select_from(OUTER).where(K == 6, CHILD.is_(None)), "s2"),
    (select(READINGS).select_from(OUTER).where(CHILD.is_(None)), EVERYWHERE),
    (select(READINGS).select_from(OUTER).where(or_(CHILD == 6, CHILD.is_(None))), EVERYWHERE),
    (select(READINGS).select_from(READINGS.outerjoin(NOTES, and_(BESIDE, K == 6))), EVERYWHERE),
    (
        select(READINGS).select_from(
            READINGS.outerjoin(NOTES, and_(BESIDE, K == 6)).outerjoin(ITEMS, ITEMS.c.k == CHILD)
        ),
        EVERYWHERE,
    ),
    (
        select(READINGS).where(
            exists(select(NOTES.join(ITEMS, ITEMS.c.k == CHILD)).where(BESIDE, ITEMS.c.k == 6))
        ),
        "s2",
    ),
    (
        select(READINGS).where(
            exists(
                select(NOTES.outerjoin(ITEMS, and_(ITEMS.c.k == CHILD, CHILD == 6))).where(BESIDE)
            )
        ),
        EVERYWHERE,
    ),
    (select(READINGS).where(exists().where(BESIDE, CHILD == 6)), "s2"),
    (select(READINGS).where(exists().where(BESIDE, K == 6)), "s2"),
    (select(READINGS).where(~exists().where(BESIDE, CHILD == 6)), EVERYWHERE),
    (select(READINGS).where(or_(K == 15, exists().where(BESIDE, CHILD == 6))), "s1 s2"),
    (select(READINGS).where(not_(or_(K != 15, EXISTING))), "s1"),
    (select(READINGS).where(K.in_(select(CHILD).where(CHILD == 6))), "s2"),
    (select(READINGS).where(K.in_(select(CHILD).where(CHILD == 6).limit(1))), "s2"),
    (select(READINGS).where(K == any_(select(CHILD).where(CHILD == 6).scalar_subquery())), "s2"),
    (select(READINGS).where(K == select(CHILD).where(CHILD == 6).scalar_subquery()), "s2"),
    (
        select(READINGS).where(K == select(func.max(CHILD)).where(CHILD == 6).scalar_subquery()),
        EVERYWHERE,
    ),
    (
        select(READINGS).where(exists(select(func.count()).where(BESIDE, CHILD == 6))),
        EVERYWHERE,
    ),
    (select(READINGS).where(K.not_in(select(CHILD).where(CHILD == 6))), EVERYWHERE),
    (
        select(READINGS).where(
            K.in_(union_all(select(CHILD).where(CHILD == 6), select(CODES.c.code).where(false())))
        ),
        "s2",
    ),
    (select(COUNTED).where(COUNTED.c.k == 6), "s2"),
    (select(READINGS, COUNTED.c.n).where(K == COUNTED.c.k, K == 6), "s2"),
    (select(COUNTED).where(COUNTED.c.n == 6), EVERYWHERE),
    (select(UNITED).where(UNITED.c.k == 6), "s2"),
    (select(ONCE).where(ONCE.c.k == 6), "s2"),
    (select(ONCE, ONCE.alias("again")).where(ONCE.c.k == 6), EVERYWHERE),
    (select(READINGS, LATEST).where(K == 6), "s2"),
    (union_all(select(K).where(K == 6), select(CHILD).where(CHILD == 15)), "s1 s2"),
    (update(READINGS).values(value=1).where(K.between(10, 12)), "s1"),
    (update(READINGS).values(value=NOTES.c.id).where(BESIDE, CHILD == 6), "s2"),
    (delete(READINGS).where(BESIDE, CHILD.in_([6, 15])), "s1 s2"),
    (delete(READINGS).where(exists().where(BESIDE, CHILD == 6)), "s2"),
    (
        select(SHIPMENTS, PARCELS).where(
            tuple_(REGION, NUMBER) == tuple_(PARCELS.c.k, PARCELS.c.m),
            PARCELS.c.k == "north",
        ),
        "s0 s2",
    ),
    (
        select(SHIPMENTS).where(
            BOTH.in_(select(PARCELS.c.k, PARCELS.c.m).where(PARCELS.c.k == "south"))
        ),
        "s1",
    ),
    (
        select(SHIPMENTS).where(exists().where(REGION == PARCELS.c.k, PARCELS.c.k == "south")),
        "s1",
    ),
]


@pytest.mark.parametrize(("statement", "expected"), STATEMENTS, ids=range(len(STATEMENTS)))
def test_a_statement_leads_to_shards(statement: Any, expected: str) -> None:
    assert shards(statement) == expected


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (K == 6, Reason.KEY),
        (K < 0, Reason.RANGE),
        (or_(K < 0, K == 6), Reason.RANGE),
        (REGION == "north", Reason.PART),
        (ITEMS.c.id == id_in(1), Reason.BUCKET),
        (and_(K == 1, K == 2), Reason.NO_MATCH),
        (K < 99, Reason.UNKNOWN_KEY),
    ],
    ids=str,
)
def test_a_route_says_what_decided_it(where: Any, reason: Reason) -> None:
    assert routed(select(literal(1)).where(where), TERRITORY).reason is reason


def test_a_number_given_in_the_statement_decides_for_each_value() -> None:
    statement = select(READINGS).where(K == bindparam("k", type_=Numeric))

    found = [routed(statement, TERRITORY, {"k": value}).shards for value in (6, Decimal(15), None)]

    assert found == [("s2",), ("s1",), ()]


def test_an_order_that_the_database_may_not_have_does_not_narrow() -> None:
    statement = select(LABELS).where(NAME < "b")

    assert routed(statement, TERRITORY, byte_order=False).reason is Reason.UNKNOWN_KEY
