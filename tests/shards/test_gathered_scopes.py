"""Statements in which a name means another thing than it seems to, answered by the workspace.

Which rows of a table matter follows from what its name means where it stands: in a subquery, beside
an outer join, in a CTE that is named again. Each statement here would lose rows, or get others, if
one name were taken for another, or a condition for one that holds where it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    and_,
    delete,
    except_,
    exists,
    func,
    insert,
    intersect,
    not_,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
    update,
)

from sqlalchemy_shards import global_table, reference_table, shard_table
from sqlalchemy_shards.errors import UnsupportedStatement
from tests.databases import own_urls
from tests.shards.shipped import answers, filled_cluster, filled_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

METADATA = MetaData()


def _table(name: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer),
        Column("up", Integer),
    )


A, B = shard_table(_table("a")), shard_table(_table("b"))
R, G = reference_table(_table("r")), global_table(_table("g"))
A2, B2, R2 = A.alias("a2"), B.alias("b2"), R.alias("r2")
a, b, r, g, a2, b2, r2 = A.c, B.c, R.c, G.c, A2.c, B2.c, R2.c


@pytest.fixture(scope="module")
def databases(servers: PostgresServers) -> Iterator[Mapping[str, str]]:
    """Three shards, and one database with the rows of all, in one server."""
    with own_urls(servers, "scopes", ["s0", "s1", "s2", "one"]) as urls:
        yield urls


@pytest.fixture(scope="module")
def cluster(databases: Mapping[str, str]) -> Iterator[Cluster]:
    with filled_cluster(databases, "scopes", METADATA, _fill) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def one(databases: Mapping[str, str]) -> Iterator[Engine]:
    with filled_engine(databases, METADATA, _fill) as engine:
        yield engine


def _fill(connection: Any) -> None:
    """Trees of 24, 18, 12 and 9 rows, whose other numbers overlap and are NULL at times."""
    for table, size, modulus in ((A, 24, 7), (B, 18, 5), (R, 12, 4), (G, 9, 6)):
        connection.execute(
            insert(table),
            [
                {"id": i, "n": None if i % 8 == 0 else i % modulus, "up": i // 2 or None}
                for i in range(1, size + 1)
            ],
        )


NUMBER: Final = func.count().over().label("number")
"""A window over all rows, which no shard can open by itself."""


def lateral_beside_a_filled_row() -> Any:
    """The outer join keeps rows of `a` of which the lateral one would be empty."""
    inner = select(b.id, b.n).where(b.n == a.n, a.id > 5).order_by(b.id).limit(1).lateral("inner")
    return select(a.id, inner.c.id, NUMBER).select_from(A.outerjoin(inner, true()))


def lateral_within_lateral() -> Any:
    deep = select(r.id).where(r.n == b.n, r.n == a.n).correlate(A, B).order_by(r.id).limit(2)
    deep = deep.lateral("deep")
    both = select(b.id, deep.c.id.label("deep")).join_from(B, deep, true())
    inner = both.where(b.id == a.id).lateral("inner")
    return select(a.id, inner.c.id, inner.c.deep, NUMBER).join_from(A, inner, true())


def lateral_of_a_filled_side() -> Any:
    inner = select(r.id).where(r.n == b.n).order_by(r.id).limit(1).lateral("inner")
    joined = A.outerjoin(B, and_(a.id == b.id, b.n > 2)).outerjoin(inner, true())
    return select(a.id, b.id, inner.c.id, NUMBER).select_from(joined)


def cte_with_the_name_of_a_table() -> Any:
    shadow = select(a.id, a.n).where(a.n == 3).cte("b")
    return select(shadow.c.id, a.id, NUMBER).where(a.n == shadow.c.n, a.id < shadow.c.id)


def nested_cte_with_the_name_of_an_outer_one() -> Any:
    inner_few = select(b.id, b.n).where(b.n == 1).cte("few", nesting=True)
    inner = select(inner_few.c.id, inner_few.c.n).subquery("inner")
    few = select(a.id, a.n).where(a.n > 3).cte("few")
    return select(few.c.id, inner.c.id, func.count().over()).where(few.c.id > inner.c.id)


def cte_that_is_named_twice() -> Any:
    few = select(a.id, a.n, a.up).where(a.n > 2).cte("few")
    again = few.alias("again")
    return select(few.c.id, again.c.id).where(few.c.up == again.c.id, again.c.n == 3)


def cte_that_is_named_outside_and_in_a_subquery() -> Any:
    few = select(a.id, a.n).where(a.id < 9).cte("few")
    again = few.alias("again")
    there = exists(select(again.c.id).where(again.c.n == b.up))
    return select(b.id, few.c.id).where(b.n == few.c.n, not_(there))


def cte_in_a_cte_that_is_named_elsewhere_too() -> Any:
    low = select(a.id, a.n).where(a.n < 3).cte("low")
    both = select(low.c.id, b.id.label("other")).where(low.c.n == b.n).cte("both")
    return select(both.c.other, low.c.id).where(both.c.id == low.c.id, low.c.id > 2)


def recursive_cte_with_two_other_tables() -> Any:
    """Of what its steps find, the first row tells nothing."""
    tree = select(a.id, a.up, a.n).where(a.id == 24).cte("tree", recursive=True)
    step = select(b.id, b.up, r.n).join_from(B, R, or_(r.n == b.n, b.n.is_(None)))
    tree = tree.union(step.where(b.id == tree.c.up))
    return select(tree.c.id, tree.c.n, b.n).where(b.id == tree.c.id)


def recursive_cte_that_begins_with_a_limited_select() -> Any:
    tree = select(a.id, a.up, a.n).where(a.id > 20).order_by(a.n, a.id).limit(1)
    cte = tree.cte("tree", recursive=True)
    step = select(a2.id, a2.up, b.n).join_from(A2, B, b.id == a2.id, isouter=True)
    cte = cte.union_all(step.where(a2.id == cte.c.up))
    return select(cte.c.id, cte.c.n, r.n).join_from(cte, R, r.id == cte.c.id)


def recursive_cte_over_two_tables_side_by_side() -> Any:
    tree = select(a.id.label("here"), b.id.label("there")).where(a.id == b.id, a.id == 16)
    cte = tree.cte("tree", recursive=True)
    cte = cte.union(select(a2.id, b2.id).where(a2.id == cte.c.here / 2, b2.up == cte.c.there / 4))
    return select(cte.c.here, cte.c.there, r.n).join_from(cte, R, r.id == cte.c.here, isouter=True)


def recursive_cte_that_is_named_in_exists() -> Any:
    tree = select(r.id, r.up).where(r.id == 12).cte("tree", recursive=True)
    tree = tree.union(select(r2.id, r2.up).where(r2.id == tree.c.up))
    return select(a.id, NUMBER).where(exists().where(tree.c.id == a.n))


def recursive_cte_under_another_name() -> Any:
    tree = select(r.id, r.up).where(r.id == 12).cte("tree", recursive=True)
    tree = tree.union(select(r2.id, r2.up).where(r2.id == tree.c.up))
    one, other = tree.alias("one"), tree.alias("other")
    return select(one.c.id, other.c.id, a.id).where(one.c.up == other.c.id, a.n == other.c.id)


def full_join_under_an_inner_one() -> Any:
    full = A.join(B, and_(a.n == b.n, a.id > 6, b.id > 6), full=True)
    return select(a.id, b.id, r.id).select_from(full.join(R, r.id == func.coalesce(a.id, b.id)))


def full_join_of_what_an_inner_one_filters() -> Any:
    inner = A.join(R, and_(a.n == r.n, r.id > 3))
    return select(a.id, r.id, b.id).select_from(inner.join(B, b.id == a.id, full=True))


def inner_join_over_what_is_filled() -> Any:
    joined = A.outerjoin(B, and_(a.id == b.id, b.n == 2))
    return select(a.id, b.id, r.id, NUMBER).select_from(
        joined.join(R, or_(b.n == r.n, and_(b.n.is_(None), r.id == 1)))
    )


def outer_join_within_the_filled_side() -> Any:
    inner = B.outerjoin(R, and_(r.n == b.n, r.id > 4))
    return select(a.id, b.id, r.id, NUMBER).select_from(A.outerjoin(inner, b.n == a.n))


def rows_without_a_partner() -> Any:
    return (
        select(a.id, NUMBER)
        .select_from(A.outerjoin(B, and_(a.n == b.n, b.id > 9)))
        .where(b.id.is_(None))
    )


def correlated_subquery_in_on() -> Any:
    there = exists(select(r.id).where(r.n == a.n, r.n == b.n, r.id > 2))
    return select(a.id, b.id, NUMBER).select_from(A.outerjoin(B, and_(a.up == b.id, there)))


def scalar_subquery_in_on() -> Any:
    least = select(func.min(b2.id)).where(b2.n == a.n).correlate(A).scalar_subquery()
    return select(a.id, b.id, NUMBER).select_from(A.outerjoin(B, b.id == least))


def not_exists_of_exists() -> Any:
    inner = exists(select(r.id).where(r.n == b.n, r.id > 6))
    return select(a.id, NUMBER).where(not_(exists(select(b.id).where(b.n == a.n, not_(inner)))))


def not_exists_that_names_the_outer_row_only() -> Any:
    return select(a.id, NUMBER).where(not_(exists(select(b.id).where(a.n > 3, b.id == 1))))


def exists_or_something_else() -> Any:
    return select(a.id, NUMBER).where(or_(a.n == 6, exists(select(b.id).where(b.id == a.up))))


def exists_of_an_aggregate() -> Any:
    return select(a.id, NUMBER).where(exists(select(func.count(b.id)).where(b.n == a.n, b.n == 9)))


def scalar_subquery_in_having() -> Any:
    most = select(func.count(b.id)).where(b.n == a.n).scalar_subquery()
    return select(a.n, func.count(), func.sum(a.id)).group_by(a.n).having(most > 3)


def scalar_subquery_in_a_function() -> Any:
    most = select(func.max(b.id)).where(b.n == a.n, b.id > 4).scalar_subquery()
    return select(a.id, func.coalesce(most, -1), NUMBER).where(a.id > func.coalesce(most, 3))


def set_operation_in_a_cte() -> Any:
    both = union(select(a.n).where(a.id > 20), select(b.n).where(b.id < 4)).cte("both")
    return select(r.id, both.c.n).where(r.n == both.c.n)


def set_operation_whose_members_shadow_each_other() -> Any:
    first = select(a.id, b.id).where(a.n == b.n, a.id > 15)
    second = select(b.id, a.id).where(a.n == b.n, b.id < 5)
    return except_(first, second)


def set_operation_of_set_operations() -> Any:
    inner = intersect(select(a.n), select(b.n).where(b.id > 3))
    return union_all(inner, select(r.n).where(r.id == 2)).order_by("n")


def in_a_set_operation() -> Any:
    either = union(select(b.n).where(b.id == 3), select(r.n).where(r.id == 4))
    return select(a.id, NUMBER).where(a.n.in_(either))


def not_in_with_nulls() -> Any:
    return select(a.id, NUMBER).where(a.n.not_in(select(b.n).where(b.n.is_not(None), b.id > 10)))


def in_with_limit() -> Any:
    few = select(b.n).where(b.n.is_not(None)).order_by(b.n, b.id).limit(4)
    return select(a.id, NUMBER).where(a.n.in_(few))


def rows_in_a_subquery() -> Any:
    pairs = select(b.n, b.up).where(b.id > 4)
    return select(a.id, NUMBER).where(tuple_(a.n, a.up).in_(pairs))


def table_twice() -> Any:
    return select(a.id, a2.id).where(a.up == a2.id, a2.n == 3, a.id > 4)


def table_thrice_in_a_ring() -> Any:
    third = A.alias("a3")
    return select(a.id, a2.id, third.c.id).where(
        a.n == a2.up, a2.n == third.c.up, third.c.n == a.up, a.id < 20
    )


def subquery_with_the_table_outside_in_its_own_list() -> Any:
    """Its `a` is another one than that outside."""
    own = select(func.max(a.id)).where(a.n == 2).correlate(None).scalar_subquery()
    return select(a.id, NUMBER).where(a.id < own)


def derived_table_with_the_name_of_a_table() -> Any:
    hidden = select(b.id, b.n).where(b.n > 1).subquery("a")
    return select(hidden.c.id, r.id).where(hidden.c.n == r.n)


def subquery_that_stands_in_two_places() -> Any:
    most = select(func.max(b.id)).where(b.n == a.n).scalar_subquery()
    first = select(a.id, most).where(a.id > 12)
    return union(first, select(a.id, most).where(a.n == 1))


def subquery_that_correlates_in_one_place_only() -> Any:
    """The same SELECT has `a` in its own FROM list where no `a` is around it."""
    most = select(func.max(b.id)).where(b.n == a.n, a.id > 3).scalar_subquery()
    return union(select(a.id, most).where(a.id < 9), select(r.id, most).where(r.id < 4))


def ordered_by_a_scalar_subquery() -> Any:
    most = select(func.max(b.id)).where(b.n == a.n).scalar_subquery().label("most")
    return select(a.id, most).order_by(most.desc().nulls_last(), a.id).limit(7)


def limited_by_a_subquery() -> Any:
    few = select(func.count(r.id)).where(r.n == 1).scalar_subquery()
    return union(select(a.id), select(b.id)).order_by("id").limit(few)


def aggregate_filtered_by_a_subquery() -> Any:
    there = exists(select(b.id).where(b.n == a.n, b.id > 9))
    return select(a.up, func.count().filter(there), func.sum(a.id)).group_by(a.up)


def copies_and_what_lies_elsewhere() -> Any:
    return select(a.id, g.id, r.id).where(a.n == g.n, g.id == r.id, r.n == 1)


def values_of_a_derived_aggregate() -> Any:
    counted = select(a.n, func.count().label("many")).where(a.id > 3).group_by(a.n).subquery()
    return select(b.id, counted.c.many).where(b.n == counted.c.n, counted.c.many > 2)


def window_inside() -> Any:
    ranked = select(a.id, a.n, func.rank().over(order_by=a.n).label("place")).subquery()
    return select(b.id, ranked.c.place).where(b.id == ranked.c.id, ranked.c.n == 2)


STATEMENTS: Final[tuple[Callable[[], Any], ...]] = (
    lateral_beside_a_filled_row,
    lateral_within_lateral,
    lateral_of_a_filled_side,
    cte_with_the_name_of_a_table,
    nested_cte_with_the_name_of_an_outer_one,
    cte_that_is_named_twice,
    cte_that_is_named_outside_and_in_a_subquery,
    cte_in_a_cte_that_is_named_elsewhere_too,
    recursive_cte_with_two_other_tables,
    recursive_cte_that_begins_with_a_limited_select,
    recursive_cte_over_two_tables_side_by_side,
    recursive_cte_that_is_named_in_exists,
    recursive_cte_under_another_name,
    full_join_under_an_inner_one,
    full_join_of_what_an_inner_one_filters,
    inner_join_over_what_is_filled,
    outer_join_within_the_filled_side,
    rows_without_a_partner,
    correlated_subquery_in_on,
    scalar_subquery_in_on,
    not_exists_of_exists,
    not_exists_that_names_the_outer_row_only,
    exists_or_something_else,
    exists_of_an_aggregate,
    scalar_subquery_in_having,
    scalar_subquery_in_a_function,
    set_operation_in_a_cte,
    set_operation_whose_members_shadow_each_other,
    set_operation_of_set_operations,
    in_a_set_operation,
    not_in_with_nulls,
    in_with_limit,
    rows_in_a_subquery,
    table_twice,
    table_thrice_in_a_ring,
    subquery_with_the_table_outside_in_its_own_list,
    derived_table_with_the_name_of_a_table,
    subquery_that_stands_in_two_places,
    subquery_that_correlates_in_one_place_only,
    ordered_by_a_scalar_subquery,
    limited_by_a_subquery,
    aggregate_filtered_by_a_subquery,
    copies_and_what_lies_elsewhere,
    values_of_a_derived_aggregate,
    window_inside,
)


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda each: each.__name__)
def test_names_mean_what_they_mean_to_postgresql(
    statement: Callable[[], Any], cluster: Cluster, one: Engine
) -> None:
    expected = answers(one, statement())

    assert answers(cluster.engine, statement()) == expected
    assert expected


@pytest.mark.parametrize(
    "change",
    [
        insert(A).values(id=99, n=1).returning(a.id),
        update(A).values(n=1).where(a.n == 2).returning(a.id),
        delete(A).where(a.n == 2).returning(a.id),
    ],
    ids=["INSERT", "UPDATE", "DELETE"],
)
def test_a_select_that_changes_rows_inside_is_not_gathered(change: Any, cluster: Cluster) -> None:
    changed = change.cte("changed")
    statement = select(changed.c.id, NUMBER).join_from(A, changed, a.n == changed.c.id)

    with pytest.raises(UnsupportedStatement), cluster.engine.connect() as connection:
        connection.execute(statement)
