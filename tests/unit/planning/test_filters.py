"""Which conditions tell that a row cannot matter, so that it stays on its shard; and which do not.

A condition that is pushed to a table where it does not hold of all rows that matter makes a wrong
answer, and nobody sees it. So each way in which a row may matter without meeting it is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    case,
    exists,
    func,
    lateral,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy.orm import DeclarativeBase, aliased, column_property, joinedload, relationship

from sqlalchemy_shards import ShardKeyMixin, shard_table
from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.planning.gathering import plan_gathering

if TYPE_CHECKING:
    from sqlalchemy_shards.planning.parts import Gathering

INTEGER = ColumnType("pg_catalog.int4", None, "integer")


def spread(name: str) -> Table:
    return shard_table(
        Table(
            name,
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("n", Integer),
            Column("s", Text),
        )
    )


A, B, C = spread("a"), spread("b"), spread("c")
OTHER = A.alias("other")


def planned(statement: Any) -> Gathering:
    """How the workspace would answer; the catalog knows every column and trusts every function."""
    return plan_gathering(
        statement.compile(dialect=ShardsDialect()),
        types_of=lambda table: {column.name: INTEGER for column in table.c},
        depending=lambda _names: [],
    )


def pushed(statement: Any) -> dict[str, str | None]:
    """Table -> what its rows must meet to be shipped; None: all are shipped."""
    return {
        part.name: None
        if part.rows.whereclause is None
        else str(
            part.rows.whereclause.compile(
                dialect=ShardsDialect(), compile_kwargs={"literal_binds": True}
            )
        )
        for part in planned(statement).parts
    }


INNER = select(A.c.id, B.c.id).join(B, A.c.n == B.c.n)
LEFT = select(A.c.id, B.c.id).join(B, and_(A.c.n == B.c.n, B.c.id > 2, A.c.id > 3), isouter=True)
FULL = select(A.c.id, B.c.id).join(B, and_(A.c.n == B.c.n, B.c.id > 2), full=True)
THREE = select(A.c.id).select_from(
    A.outerjoin(B.outerjoin(C, C.c.n == B.c.n), and_(A.c.n == B.c.n, C.c.id > 1))
)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param(
            select(A.c.n).where(A.c.id > 1, A.c.n == 2).distinct(),
            {"a": "a.id > 1 AND a.n = 2"},
            id="the conjuncts of WHERE",
        ),
        pytest.param(
            select(A.c.n).where(or_(A.c.id > 1, A.c.n == 2)).distinct(),
            {"a": "a.id > 1 OR a.n = 2"},
            id="an OR about one table is one condition",
        ),
        pytest.param(
            INNER.where(A.c.id > 1, B.c.id > 2, A.c.id + B.c.id > 3),
            {"a": "a.id > 1", "b": "b.id > 2"},
            id="each side of an inner join its own",
        ),
        pytest.param(
            INNER.where(or_(A.c.id > 1, B.c.id > 2)),
            {"a": None, "b": None},
            id="an OR over two tables tells of neither",
        ),
        pytest.param(
            LEFT, {"a": None, "b": "b.id > 2"}, id="ON of a left join: of its right side alone"
        ),
        pytest.param(
            LEFT.where(A.c.n > 5, B.c.n > 6),
            {"a": "a.n > 5", "b": "b.id > 2"},
            id="WHERE over a left join: of its left side alone",
        ),
        pytest.param(
            LEFT.where(B.c.id.is_(None)),
            {"a": None, "b": "b.id > 2"},
            id="rows that are absent are asked for",
        ),
        pytest.param(
            FULL.where(A.c.id > 1, B.c.id > 2), {"a": None, "b": None}, id="a full join: nothing"
        ),
        pytest.param(
            THREE.where(A.c.id > 4, B.c.id > 5, C.c.id > 6),
            {"a": "a.id > 4", "b": None, "c": None},
            id="ON does not reach through the outer join within its right side",
        ),
        pytest.param(
            select(A.c.id)
            .select_from(A.outerjoin(B, A.c.n == B.c.n).join(C, and_(C.c.n == A.c.n, B.c.id > 1)))
            .where(C.c.id > 2),
            {"a": None, "b": None, "c": "c.id > 2"},
            id="an inner join over an outer one tells nothing of the side that may be absent",
        ),
        pytest.param(
            select(A.c.id, OTHER.c.id).where(A.c.n == OTHER.c.n, A.c.id > 1, OTHER.c.id < 9),
            {"a": "a.id > 1 OR a.id < 9"},
            id="two occurrences: what either needs",
        ),
        pytest.param(
            select(A.c.id, OTHER.c.id).where(A.c.n == OTHER.c.n, A.c.id > 1),
            {"a": None},
            id="two occurrences, one of them whole",
        ),
        pytest.param(
            select(A.c.n).where(A.c.id > 1, A.c.n.in_(select(B.c.n).where(B.c.id > 2))).distinct(),
            {"a": "a.id > 1", "b": "b.id > 2"},
            id="a subquery has conditions of its own",
        ),
        pytest.param(
            select(func.count())
            .select_from(A)
            .where(not_(exists().where(B.c.n == A.c.n, B.c.id > 2, A.c.id > 1))),
            {"a": None, "b": "b.id > 2"},
            id="what a correlated subquery says of the outer row",
        ),
        pytest.param(
            select(func.count())
            .select_from(A)
            .where(A.c.n.not_in(select(OTHER.c.n).where(OTHER.c.id > 2))),
            {"a": None},
            id="a subquery over the same table",
        ),
        pytest.param(
            select(A.c.n, func.count()).where(A.c.id > 1).group_by(A.c.n).having(A.c.n > 5),
            {"a": "a.id > 1"},
            id="HAVING is not WHERE",
        ),
        pytest.param(
            union(select(A.c.n).where(A.c.id > 1), select(B.c.n).where(B.c.id > 2)),
            {"a": "a.id > 1", "b": "b.id > 2"},
            id="members of a set operation",
        ),
        pytest.param(
            union(select(A.c.n).where(A.c.id > 1), select(A.c.n).where(A.c.s == "x")),
            {"a": "a.id > 1 OR a.s = 'x'"},
            id="members over the same table",
        ),
        pytest.param(
            select(A.c.id, func.count(B.c.id).filter(B.c.id > 2))
            .join(B, A.c.n == B.c.n)
            .group_by(A.c.id),
            {"a": None, "b": None},
            id="FILTER leaves rows in their groups",
        ),
        pytest.param(
            select(case((A.c.id > 1, A.c.n), else_=0)).distinct(), {"a": None}, id="CASE decides"
        ),
        pytest.param(
            select(A.c.n).where(A.c.id > func.random(), A.c.n == 2).distinct(),
            {"a": "a.n = 2"},
            id="what is not row-wise is not pushed",
        ),
        pytest.param(
            select(A.c.n).where(true(), A.c.n.is_not(None)).distinct(),
            {"a": "a.n IS NOT NULL"},
            id="a condition about no table",
        ),
        pytest.param(
            select(A.c.n).where(tuple_(A.c.id, A.c.n).in_([(1, 2), (3, 4)])).distinct(),
            {"a": "(a.id, a.n) IN ((1, 2), (3, 4))"},
            id="row values",
        ),
        pytest.param(
            select(A.c.n)
            .join(B, or_(and_(A.c.s == B.c.s, A.c.n == 1, A.c.id > 5), and_(B.c.n < 2, A.c.n == 3)))
            .distinct(),
            {"a": "a.n = 1 AND a.id > 5 OR a.n = 3", "b": None},
            id="what each alternative says",
        ),
        pytest.param(
            select(A.c.n)
            .join(B, A.c.s == B.c.s)
            .where(or_(A.c.n == 1, and_(B.c.n == 2, or_(and_(A.c.n == 4, B.c.id > 1), A.c.id < 9))))
            .distinct(),
            {"a": "a.n = 1 OR a.n = 4 OR a.id < 9", "b": None},
            id="alternatives within alternatives",
        ),
        pytest.param(
            select(A.c.n)
            .join(B, A.c.s == B.c.s)
            .where(not_(and_(or_(A.c.n == 1, B.c.n == 2), or_(A.c.n == 3, B.c.n == 4))))
            .distinct(),
            {"a": None, "b": None},
            id="alternatives that are denied",
        ),
        pytest.param(
            select(A.c.n)
            .outerjoin(B, A.c.s == B.c.s)
            .where(or_(and_(A.c.n == 1, B.c.n == 2), and_(A.c.n == 3, B.c.n.is_(None))))
            .distinct(),
            {"a": "a.n = 1 OR a.n = 3", "b": None},
            id="alternatives beside an outer join",
        ),
    ],
)
def test_conditions_are_pushed_to_the_tables_of_which_they_hold(
    statement: Any, expected: dict[str, str | None]
) -> None:
    assert pushed(statement) == expected


class TestNested:
    def test_a_subquery_in_the_from_list(self) -> None:
        inner = select(A.c.id, A.c.n).where(A.c.id > 1).limit(3).subquery()

        assert pushed(select(inner.c.n).where(inner.c.id < 9)) == {"a": "a.id > 1"}

    def test_conditions_do_not_enter_a_subquery_with_a_limit(self) -> None:
        inner = select(A.c.id, A.c.n).order_by(A.c.n).limit(3).subquery()

        assert pushed(select(inner.c.n).where(inner.c.id < 9)) == {"a": None}

    def test_a_cte_that_is_used_twice(self) -> None:
        cte = select(A.c.id, A.c.n).where(A.c.id > 1).cte("few")
        again = cte.alias("again")
        statement = select(cte.c.n, again.c.n).where(cte.c.id == again.c.n, again.c.id > 5)

        assert pushed(statement) == {"a": "a.id > 1"}

    def test_a_recursive_cte(self) -> None:
        start = select(A.c.id, A.c.n).where(A.c.id == 1).cte("tree", recursive=True)
        statement = select(start.union_all(select(A.c.id, A.c.n).join(start, A.c.n == start.c.id)))

        assert pushed(statement) == {"a": None}

    def test_a_lateral_subquery_tells_nothing_of_the_row_beside_it(self) -> None:
        inner = lateral(select(B.c.id).where(B.c.n == A.c.n, B.c.id > 2, A.c.id > 1).limit(1))

        assert pushed(select(A.c.id, inner.c.id).join(inner, true())) == {
            "a": None,
            "b": "b.id > 2",
        }

    def test_a_subquery_in_an_argument_of_a_function(self) -> None:
        newest = select(func.max(B.c.id)).where(B.c.n == A.c.n, B.c.id > 2).scalar_subquery()

        assert pushed(select(A.c.id, func.coalesce(newest, 0)).where(A.c.id > 1)) == {
            "a": "a.id > 1",
            "b": "b.id > 2",
        }

    def test_a_select_under_two_names_has_the_conditions_of_each_place(self) -> None:
        few = select(B.c.id, B.c.n).where(B.c.id > 2)
        one, other = few.subquery("one"), few.subquery("other")
        joined = A.join(one, one.c.n == A.c.n).outerjoin(other, other.c.n == A.c.id)

        assert pushed(select(A.c.id, other.c.id).select_from(joined)) == {
            "a": None,
            "b": "b.id > 2 OR b.id > 2",
        }

    def test_a_subquery_in_the_limit_of_a_set_operation(self) -> None:
        many = select(func.count()).select_from(B).where(B.c.id > 2).scalar_subquery()

        assert pushed(union(select(A.c.n), select(C.c.n).where(C.c.id > 3)).limit(many)) == {
            "a": None,
            "c": "c.id > 3",
            "b": "b.id > 2",
        }

    def test_a_scalar_subquery_among_the_columns(self) -> None:
        newest = select(func.max(B.c.id)).where(B.c.n == A.c.n, B.c.id > 2).scalar_subquery()

        assert pushed(select(A.c.id, newest).where(A.c.id > 1)) == {
            "a": "a.id > 1",
            "b": "b.id > 2",
        }


class TestParameters:
    def test_those_of_the_statement_have_its_values(self) -> None:
        limit = bindparam("least", type_=Integer)
        statement = select(A.c.n).where(A.c.id > limit).distinct()

        shipment = planned(statement).shipment((0,))

        assert shipment.values({"least": 7}) == {"least": 7}

    def test_a_condition_with_a_copy_of_a_parameter_is_not_pushed(self) -> None:
        """Its value would have to be guessed: the execution gives values to the original."""
        statement = select(A.c.n).where(A.c.id > 1, A.c.n == 2).distinct()
        compiled: Any = statement.compile(dialect=ShardsDialect())
        first, *_ = compiled.bind_names
        name = compiled.bind_names.pop(first)
        compiled.bind_names[first._clone()] = name
        gathering = plan_gathering(
            compiled,
            types_of=lambda table: {column.name: INTEGER for column in table.c},
            depending=lambda _names: [],
        )

        assert str(gathering.parts[0].rows.whereclause) == "a.n = :n_1"


class Base(DeclarativeBase):
    pass


class User(ShardKeyMixin, Base):
    __table__ = Table(
        "users",
        Base.metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("score", Integer),
    )
    __shard_key__ = "id"
    doubled = column_property(__table__.c.score * 2)


class Order(ShardKeyMixin, Base):
    __table__ = Table(
        "orders",
        Base.metadata,
        Column("user_id", Integer, primary_key=True, autoincrement=False),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("amount", Integer),
    )
    __shard_key__ = "user_id"


User.orders = relationship(
    Order, primaryjoin="User.id == foreign(Order.user_id)", viewonly=True, uselist=True
)


class TestOrm:
    def test_both_sides_of_a_join(self) -> None:
        statement = (
            select(User.id, Order.number)
            .join(Order, Order.amount == User.score)
            .where(User.id.in_([1, 2]), Order.number > 3)
        )

        assert pushed(statement) == {"users": "users.id IN (1, 2)", "orders": "orders.number > 3"}

    def test_an_outer_join(self) -> None:
        statement = (
            select(User.id, Order.number)
            .outerjoin(Order, and_(Order.amount == User.score, Order.number > 3, User.score > 4))
            .where(User.id > 1, Order.amount > 2)
        )

        assert pushed(statement) == {"users": "users.id > 1", "orders": "orders.number > 3"}

    def test_aliases(self) -> None:
        other = aliased(User)
        statement = select(User.id, other.id).where(
            User.score == other.score, User.id > 1, other.id < 9
        )

        assert pushed(statement) == {"users": "users.id > 1 OR users.id < 9"}

    def test_a_joined_collection_under_a_limit(self) -> None:
        statement = select(User).options(joinedload(User.orders)).where(User.id > 1).limit(3)

        found = pushed(statement)

        assert found["users"] == "users.id > 1"
        assert found["orders"] is not None
        assert found["orders"].startswith("EXISTS (SELECT 1")

    def test_a_column_property_is_written_as_what_it_computes(self) -> None:
        assert pushed(select(User.score).where(User.doubled > 1).distinct()) == {
            "users": "users.score * 2 > 1"
        }


def test_raw_columns_are_no_columns_of_a_table() -> None:
    assert pushed(select(A.c.n).where(A.c.id > literal_column("1")).distinct()) == {"a": "a.id > 1"}
