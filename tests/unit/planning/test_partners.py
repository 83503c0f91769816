"""Which rows are left on their shard as they cannot have a partner; and which are not.

A row that is left out although it would have had a part makes a wrong answer, and nobody sees it.
So each way in which a row may matter without a partner is here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    all_,
    and_,
    any_,
    exists,
    func,
    lateral,
    not_,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
)

from sqlalchemy_shards import global_table, reference_table, shard_table
from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.planning.gathering import plan_gathering

INTEGER = ColumnType("pg_catalog.int4", None, "integer")
METADATA = MetaData()


def table(name: str, *columns: Column[Any]) -> Table:
    return Table(name, METADATA, *columns)


USERS = shard_table(
    table(
        "users",
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("score", Integer),
        Column("country", Text),
    ),
    key="id",
)
ORDERS = shard_table(
    table(
        "orders",
        Column("user_id", Integer, primary_key=True, autoincrement=False),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("amount", Integer),
        Column("product", Integer),
    ),
    key="user_id",
)
LINES = shard_table(
    table(
        "lines",
        Column("user_id", Integer, primary_key=True, autoincrement=False),
        Column("order_id", Integer, primary_key=True, autoincrement=False),
        Column("pieces", Integer),
    ),
    key="user_id",
)
BIG = shard_table(
    table(
        "big", Column("id", BigInteger, primary_key=True, autoincrement=False), Column("n", Integer)
    ),
    key="id",
)
NUMBERS = shard_table(
    table(
        "numbers",
        Column("id", Numeric, primary_key=True, autoincrement=False),
        Column("n", Integer),
    ),
    key="id",
)
YEARS = shard_table(
    table(
        "years", Column("id", Integer, primary_key=True, autoincrement=False), Column("n", Integer)
    ),
    key="id",
    keyspace="years",
)
PAIRS = shard_table(
    table(
        "pairs",
        Column("a", Integer, primary_key=True, autoincrement=False),
        Column("b", Integer, primary_key=True, autoincrement=False),
    ),
    key=("a", "b"),
    keyspace="pairs",
)
BESIDE_PAIRS = shard_table(
    table(
        "beside_pairs",
        Column("a", Integer, primary_key=True, autoincrement=False),
        Column("b", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer),
    ),
    key=("a", "b"),
    keyspace="pairs",
)
COUNTRIES = reference_table(
    table("countries", Column("code", Text, primary_key=True), Column("rank", Integer))
)
REGIONS = reference_table(
    table(
        "regions",
        Column("rank", Integer, primary_key=True, autoincrement=False),
        Column("name", Text),
    )
)
FLAGS = global_table(
    table(
        "flags", Column("id", Integer, primary_key=True, autoincrement=False), Column("n", Integer)
    )
)
PRODUCTS = global_table(
    table(
        "products",
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("flag", Integer),
    )
)

U, R, L, C = USERS.c, ORDERS.c, LINES.c, COUNTRIES.c


def pushed(statement: Any) -> dict[str, str | None]:
    """Table -> the WHERE clause of what is shipped of it; None: all of it is."""
    compiled: Any = statement.compile(dialect=ShardsDialect())
    gathering = plan_gathering(
        compiled,
        types_of=lambda table: {column.name: INTEGER for column in table.c},
        depending=lambda _names: [],
    )
    found: dict[str, str | None] = {}
    for part in gathering.parts:
        sql = part.rows.compile(dialect=ShardsDialect(), compile_kwargs={"literal_binds": True})
        _, is_narrowed, where = " ".join(str(sql).split()).partition(" WHERE ")
        found[part.name] = where if is_narrowed else None
    return found


def partner(table: str, *conditions: str, number: int = 1) -> str:
    """EXISTS, as it is written; ``$`` stands for the alias."""
    alias = f"shards_partner_{number}"
    joined = beside(*conditions).replace("$", alias)
    return f"EXISTS (SELECT 1 FROM {table} AS {alias} WHERE {joined})"


def beside(*conditions: str) -> str:
    """The same where it stands among others."""
    return " AND ".join(f"({each})" if each.startswith("EXISTS") else each for each in conditions)


USER_OF_ORDER = partner("users", "orders.user_id = $.id", "$.score > 1")
ORDER_OF_USER = partner("orders", "users.id = $.user_id", "$.amount > 2")
JOINED = select(func.count()).select_from(USERS.join(ORDERS, U.id == R.user_id))
LEFT = select(func.count()).select_from(USERS.outerjoin(ORDERS, U.id == R.user_id))
OTHER = ORDERS.alias("other")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            JOINED.where(U.score > 1),
            {"users": "users.score > 1", "orders": USER_OF_ORDER},
            id="of a join over the shard key",
        ),
        pytest.param(
            JOINED.where(U.score > 1, R.amount > 2),
            {
                "users": beside("users.score > 1", ORDER_OF_USER),
                "orders": beside("orders.amount > 2", USER_OF_ORDER),
            },
            id="both ways",
        ),
        pytest.param(
            select(func.count()).where(U.id == R.user_id, U.score > 1),
            {"users": "users.score > 1", "orders": USER_OF_ORDER},
            id="of an equality in WHERE",
        ),
        pytest.param(JOINED, {"users": None, "orders": None}, id="without filters nothing is won"),
        pytest.param(
            select(func.count())
            .select_from(USERS.join(ORDERS, U.score == R.amount))
            .where(U.id > 1),
            {"users": "users.id > 1", "orders": None},
            id="not over other columns than the key",
        ),
        pytest.param(
            LEFT.where(U.score > 1),
            {"users": "users.score > 1", "orders": USER_OF_ORDER},
            id="the filled side of a left join has partners",
        ),
        pytest.param(
            LEFT.where(R.amount > 2),
            {"users": None, "orders": None},
            id="the kept side of a left join needs none",
        ),
        pytest.param(
            select(func.count()).select_from(
                USERS.outerjoin(ORDERS, and_(U.id == R.user_id, R.amount > 2, U.score > 1))
            ),
            {"users": None, "orders": "orders.amount > 2"},
            id="ON of a left join is no filter of its kept side",
        ),
        pytest.param(
            select(func.count())
            .select_from(USERS.outerjoin(ORDERS, U.score == R.amount))
            .where(U.id == R.user_id, U.score > 1),
            {"users": "users.score > 1", "orders": None},
            id="WHERE over a left join binds the kept side only",
        ),
        pytest.param(
            select(func.count())
            .select_from(ORDERS.outerjoin(USERS, and_(U.score == R.amount, U.score > 1)))
            .where(U.id == R.user_id),
            {"orders": USER_OF_ORDER, "users": "users.score > 1"},
            id="a row that is absent is no partner",
        ),
        pytest.param(
            select(func.count())
            .select_from(USERS.join(ORDERS, U.id == R.user_id, full=True))
            .where(U.score > 1),
            {"users": None, "orders": None},
            id="a full join needs none",
        ),
        pytest.param(
            select(func.count())
            .select_from(USERS.outerjoin(ORDERS.join(LINES, R.user_id == L.user_id), true()))
            .where(L.pieces > 3, U.score > 1),
            {"users": "users.score > 1", "orders": None, "lines": None},
            id="WHERE is no filter of what is filled",
        ),
        pytest.param(
            select(func.count()).select_from(
                USERS.outerjoin(
                    ORDERS.join(LINES, and_(R.user_id == L.user_id, L.pieces > 3)),
                    U.score == R.amount,
                )
            ),
            {
                "users": None,
                "orders": partner("lines", "orders.user_id = $.user_id", "$.pieces > 3"),
                "lines": "lines.pieces > 3",
            },
            id="a join within the filled side",
        ),
        pytest.param(
            JOINED.where(or_(U.score > 1, R.amount > 2)),
            {"users": None, "orders": None},
            id="an OR over both is no filter",
        ),
        pytest.param(
            select(func.count())
            .select_from(USERS)
            .join(ORDERS, or_(U.id == R.user_id, U.score == 0))
            .where(U.score > 1),
            {"users": "users.score > 1", "orders": None},
            id="an equality under OR is not certain",
        ),
        pytest.param(
            select(func.count()).where(U.id != R.user_id, U.score > 1),
            {"users": "users.score > 1", "orders": None},
            id="an inequality",
        ),
        pytest.param(
            select(func.count()).where(U.id.is_not_distinct_from(R.user_id), U.score > 1),
            {"users": "users.score > 1", "orders": None},
            id="what is true of NULLs",
        ),
        pytest.param(
            select(func.count()).where(U.id == R.user_id + 1, U.score > 1),
            {"users": "users.score > 1", "orders": None},
            id="an equality of more than columns",
        ),
    ],
)
def test_partners_in_joins(statement: Any, expected: dict[str, str | None]) -> None:
    assert pushed(statement) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            select(R.amount, func.count())
            .where(R.user_id.in_(select(U.id).where(U.score > 1)))
            .group_by(R.amount),
            {"orders": USER_OF_ORDER, "users": "users.score > 1"},
            id="IN",
        ),
        pytest.param(
            select(R.amount)
            .where(R.user_id == any_(select(U.id).where(U.score > 1).scalar_subquery()))
            .distinct(),
            {"orders": USER_OF_ORDER, "users": "users.score > 1"},
            id="= ANY",
        ),
        pytest.param(
            select(R.amount)
            .where(R.user_id == select(U.id).where(U.score > 1).scalar_subquery())
            .distinct(),
            {"orders": USER_OF_ORDER, "users": "users.score > 1"},
            id="a scalar subquery",
        ),
        pytest.param(
            select(R.amount)
            .where(R.user_id == all_(select(U.id).where(U.score > 1).scalar_subquery()))
            .distinct(),
            {"orders": None, "users": "users.score > 1"},
            id="= ALL is true of nothing",
        ),
        pytest.param(
            select(R.amount).where(R.user_id.not_in(select(U.id).where(U.score > 1))).distinct(),
            {"orders": None, "users": "users.score > 1"},
            id="NOT IN",
        ),
        pytest.param(
            select(R.amount).where(exists().where(U.id == R.user_id, U.score > 1)).distinct(),
            {"orders": USER_OF_ORDER, "users": "users.score > 1"},
            id="EXISTS",
        ),
        pytest.param(
            select(R.amount).where(not_(exists().where(U.id == R.user_id, U.score > 1))).distinct(),
            {"orders": None, "users": "users.score > 1"},
            id="NOT EXISTS",
        ),
        pytest.param(
            select(R.amount)
            .where(R.amount > 2, not_(exists().where(U.id == R.user_id)))
            .distinct(),
            {
                "orders": "orders.amount > 2",
                "users": partner("orders", "users.id = $.user_id", "$.amount > 2"),
            },
            id="what is absent for few rows is looked for beside these",
        ),
        pytest.param(
            select(R.amount)
            .where(
                exists(
                    select(func.count()).select_from(USERS).where(U.id == R.user_id, U.score > 1)
                )
            )
            .distinct(),
            {"orders": None, "users": "users.score > 1"},
            id="an EXISTS that counts is always true",
        ),
        pytest.param(
            select(R.amount)
            .where(R.amount.in_(select(func.count()).where(U.id == R.user_id, U.score > 1)))
            .distinct(),
            {"orders": None, "users": "users.score > 1"},
            id="IN a count, which may be nought",
        ),
        pytest.param(
            select(R.amount)
            .where(R.user_id.in_(union(select(U.id).where(U.score > 1), select(L.user_id))))
            .distinct(),
            {"orders": None, "users": "users.score > 1", "lines": None},
            id="IN a union",
        ),
        pytest.param(
            select(R.amount)
            .where(R.id.in_(select(L.order_id).where(L.user_id == R.user_id, L.pieces > 3)))
            .distinct(),
            {
                "orders": partner(
                    "lines",
                    "orders.id = $.order_id",
                    "orders.user_id = $.user_id",
                    "$.pieces > 3",
                ),
                "lines": "lines.pieces > 3",
            },
            id="a correlated IN",
        ),
        pytest.param(
            select(R.amount)
            .where(tuple_(R.id, R.user_id).in_(select(L.order_id, L.user_id).where(L.pieces > 3)))
            .distinct(),
            {
                "orders": partner(
                    "lines",
                    "orders.id = $.order_id",
                    "orders.user_id = $.user_id",
                    "$.pieces > 3",
                ),
                "lines": "lines.pieces > 3",
            },
            id="rows IN",
        ),
        pytest.param(
            select(U.id, select(func.count()).where(R.user_id == U.id).scalar_subquery().label("n"))
            .where(U.score > 1)
            .order_by("n"),
            {"users": "users.score > 1", "orders": USER_OF_ORDER},
            id="an outer row is a partner",
        ),
        pytest.param(
            select(
                U.id,
                select(func.count()).where(R.user_id == U.id, R.amount > 2).scalar_subquery(),
            ).distinct(),
            {"users": None, "orders": "orders.amount > 2"},
            id="an inner row of a value is no partner of the outer one",
        ),
    ],
)
def test_partners_in_subqueries(statement: Any, expected: dict[str, str | None]) -> None:
    assert pushed(statement) == expected


class TestDerived:
    def test_a_column_that_a_subquery_shows_is_that_of_the_table(self) -> None:
        few = select(U.id.label("who"), U.score).where(U.score > 1).limit(3).subquery()
        statement = select(func.count()).join_from(ORDERS, few, R.user_id == few.c.who)

        assert pushed(statement) == {"users": "users.score > 1", "orders": USER_OF_ORDER}

    def test_nothing_is_carried_into_a_subquery(self) -> None:
        few = select(U.id.label("who"), U.score).limit(3).subquery()
        statement = (
            select(func.count())
            .join_from(ORDERS, few, R.user_id == few.c.who)
            .where(R.amount > 2, few.c.score > 1)
        )

        assert pushed(statement) == {"users": None, "orders": "orders.amount > 2"}

    def test_rows_of_two_names_of_one_cte_are_two_partners(self) -> None:
        few = select(L.user_id, L.order_id).where(L.pieces > 3).cte("few")
        again = few.alias("again")
        statement = select(func.count()).where(
            R.user_id == few.c.user_id, R.id == again.c.order_id, R.user_id == again.c.user_id
        )

        assert pushed(statement)["orders"] == beside(
            *[
                partner("lines", "orders.user_id = $.user_id", "$.pieces > 3"),
                partner(
                    "lines", "orders.id = $.order_id", "orders.user_id = $.user_id", "$.pieces > 3"
                ),
            ]
        )

    def test_a_member_of_a_set_operation_is_not_all_of_it(self) -> None:
        both = union_all(select(U.id).where(U.score > 1), select(BIG.c.id)).subquery()
        statement = select(func.count()).join_from(ORDERS, both, R.user_id == both.c.id)

        assert pushed(statement)["orders"] is None

    def test_the_rows_of_a_recursive_cte(self) -> None:
        tree = select(R.user_id, R.id).where(R.id == 1).cte("tree", recursive=True)
        tree = tree.union_all(select(R.user_id, R.id).where(R.id == tree.c.id))
        statement = select(func.count()).join_from(USERS, tree, tree.c.user_id == U.id)

        assert pushed(statement) == {"users": None, "orders": None}

    def test_a_lateral_subquery_looks_beside_its_row(self) -> None:
        last = lateral(select(R.id).where(R.user_id == U.id).order_by(R.id).limit(1))
        statement = select(func.count(last.c.id)).join_from(USERS, last, true()).where(U.score > 1)

        assert pushed(statement) == {"users": "users.score > 1", "orders": USER_OF_ORDER}


class TestOccurrences:
    def test_a_row_is_shipped_if_one_occurrence_needs_it(self) -> None:
        statement = JOINED.join(OTHER, OTHER.c.amount == R.amount).where(U.score > 1)

        assert pushed(statement)["orders"] is None

    def test_what_either_occurrence_needs(self) -> None:
        statement = JOINED.join(OTHER, OTHER.c.amount == R.amount).where(
            U.score > 1, OTHER.c.amount > 7
        )

        assert pushed(statement)["orders"] == f"({USER_OF_ORDER}) OR orders.amount > 7"

    def test_rows_of_the_same_table_are_partners_of_each_other(self) -> None:
        statement = select(func.count()).where(R.user_id == OTHER.c.user_id, OTHER.c.amount > 7)

        assert pushed(statement)["orders"] == (
            f"({partner('orders', 'orders.user_id = $.user_id', '$.amount > 7')})"
            " OR orders.amount > 7"
        )

    def test_a_subquery_that_stands_in_two_places_is_not_taken_for_one(self) -> None:
        count = select(func.count()).where(R.user_id == U.id).scalar_subquery()
        statement = union(select(count).where(U.score > 1), select(count).where(U.score > 2))

        first, second = (
            partner("users", "orders.user_id = $.id", f"$.score > {score}") for score in (1, 2)
        )
        assert pushed(statement)["orders"] == f"({first}) OR ({second})"

    def test_a_subquery_that_means_another_table_in_each_place(self) -> None:
        """Where no users are around it, it has users of its own."""
        count = select(func.count(R.id)).where(R.user_id == U.id, U.score > 1).scalar_subquery()
        statement = union(select(count).where(U.country == "x"), select(C.rank + count))

        assert pushed(statement)["users"] == "users.country = 'x' OR users.score > 1"

    def test_a_table_that_is_named_like_a_partner(self) -> None:
        odd = shard_table(
            Table(
                "shards_partner_1",
                MetaData(),
                Column("id", Integer, primary_key=True, autoincrement=False),
            )
        )
        statement = select(func.count()).where(odd.c.id == U.id, U.score > 1)

        assert pushed(statement) == {"users": "users.score > 1", "shards_partner_1": None}


class TestWhereRowsLie:
    def test_the_whole_shard_key(self) -> None:
        one, other = PAIRS.c, BESIDE_PAIRS.c
        statement = select(func.count()).where(other.n > 1, one.a == other.a)

        assert pushed(statement)["pairs"] is None
        assert pushed(statement.where(one.b == other.b))["pairs"] == partner(
            "beside_pairs", "pairs.a = $.a", "pairs.b = $.b", "$.n > 1"
        )

    def test_the_parts_of_the_key_in_their_places(self) -> None:
        one, other = PAIRS.c, BESIDE_PAIRS.c
        statement = select(func.count()).where(other.n > 1, one.a == other.b, one.b == other.a)

        assert pushed(statement)["pairs"] is None

    def test_another_keyspace(self) -> None:
        statement = select(func.count()).where(YEARS.c.n > 1, YEARS.c.id == U.id)

        assert pushed(statement)["users"] is None

    def test_another_size_of_number_hashes_alike(self) -> None:
        statement = select(func.count()).where(BIG.c.n > 1, BIG.c.id == U.id)

        assert pushed(statement)["users"] == partner("big", "users.id = $.id", "$.n > 1")

    def test_another_kind_of_number_does_not(self) -> None:
        statement = select(func.count()).where(NUMBERS.c.n > 1, NUMBERS.c.id == U.id)

        assert pushed(statement)["users"] is None

    def test_a_reference_table_is_beside_all(self) -> None:
        statement = select(func.count()).where(C.code == U.country, C.rank > 5)

        assert pushed(statement) == {
            "countries": "countries.rank > 5",
            "users": partner("countries", "users.country = $.code", "$.rank > 5"),
        }

    def test_nothing_lies_beside_a_copy_of_a_reference_table(self) -> None:
        statement = select(func.count()).where(C.code == U.country, U.score > 1)

        assert pushed(statement)["countries"] is None

    def test_global_tables_lie_beside_each_other(self) -> None:
        statement = select(func.count()).where(FLAGS.c.id == PRODUCTS.c.flag, FLAGS.c.n > 5)

        assert pushed(statement)["products"] == partner("flags", "products.flag = $.id", "$.n > 5")

    def test_a_global_table_lies_beside_no_other(self) -> None:
        statement = select(func.count()).where(
            FLAGS.c.id == U.score, FLAGS.c.n > 5, FLAGS.c.n == C.rank
        )

        assert (pushed(statement)["users"], pushed(statement)["countries"]) == (None, None)


class TestChains:
    def test_a_partner_has_partners(self) -> None:
        statement = (
            JOINED.join(COUNTRIES, C.code == U.country)
            .join(REGIONS, REGIONS.c.rank == C.rank)
            .where(REGIONS.c.name == "Asia")
        )

        region = partner("regions", "shards_partner_2.rank = $.rank", "$.name = 'Asia'", number=3)
        country = partner("countries", "shards_partner_1.country = $.code", region, number=2)
        assert pushed(statement)["orders"] == partner("users", "orders.user_id = $.id", country)

    def test_a_chain_ends(self) -> None:
        tables = [
            reference_table(
                Table(
                    f"t{number}",
                    MetaData(),
                    Column("id", Integer, primary_key=True, autoincrement=False),
                    Column("next", Integer),
                )
            )
            for number in range(6)
        ]
        statement = select(func.count()).where(
            *(one.c.next == other.c.id for one, other in pairwise(tables)),
            tables[-1].c.id > 5,
        )

        found = pushed(statement)

        assert found["t0"] is None
        assert str(found["t2"]).count("EXISTS") == 3

    def test_the_number_of_semi_joins_is_bounded(self) -> None:
        tables = [
            reference_table(
                Table(
                    f"t{number}",
                    MetaData(),
                    Column("id", Integer, primary_key=True, autoincrement=False),
                    Column("n", Integer),
                )
            )
            for number in range(12)
        ]
        statement = select(func.count()).where(
            *(U.score == each.c.id for each in tables), *(each.c.n > 1 for each in tables)
        )

        assert str(pushed(statement)["users"]).count("EXISTS") == 8
