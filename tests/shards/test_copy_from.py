"""Rows copied in: stored as an insert would store them, all or none, and never piled up."""

from __future__ import annotations

import uuid
from collections import namedtuple
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DataError, IntegrityError, InternalError, SAWarning

from sqlalchemy_shards import ShardedSession
from sqlalchemy_shards.errors import (
    MissingShardKey,
    RoutingError,
    RowRefused,
    ScatterNotAllowed,
    UnsupportedStatement,
)
from tests.shards.shop import enlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shards.shop import World

MANY = 3000
NAMED = ["id", "name", "version"]
KEY = ["customer_id", "id"]


def customers(count: int = MANY, first: int = 1) -> Iterator[dict[str, Any]]:
    return ({"id": first + n, "name": f"n{n}", "version": 1} for n in range(count))


@pytest.fixture
def session(four_shards: World) -> Iterator[ShardedSession]:
    assert four_shards.cluster is not None
    with ShardedSession(four_shards.cluster) as session:
        yield session


class TestWhereRowsGo:
    def test_copied_rows_lie_where_inserted_ones_would(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m, query = four_shards.models, "SELECT id, name, version, home FROM customers"
        session.execute(insert(m.Customer), list(customers()))
        session.commit()
        inserted = four_shards.rows_by_shard(query)
        session.execute(text("DELETE FROM customers"), execution_options={"shard": "*"})
        result = session.copy_from(m.Customer, customers())
        session.commit()

        assert four_shards.rows_by_shard(query) == inserted
        assert result.rows == MANY
        assert result.rows_by_shard == {name: len(rows) for name, rows in inserted.items()}

    def test_rows_are_seen_by_later_statements_and_gone_after_a_rollback(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        session.copy_from(m.Customer, customers(100))
        counted = session.scalar(select(func.count()).select_from(m.Customer))
        found = session.get(m.Customer, 42)
        session.rollback()

        assert counted == 100
        assert found is not None
        assert four_shards.rows("SELECT id FROM customers") == []

    def test_only_shards_that_get_rows_take_part(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        result = session.copy_from(m.Customer, customers(1))

        assert enlisted(session) == {session.cluster.shard_for(m.Customer, 1)}
        assert set(result.rows_by_shard) == enlisted(session)

    def test_what_is_pending_is_flushed_first(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        session.add(m.Customer(id=7, name="seven"))
        session.copy_from(m.Order, [{"customer_id": 7, "id": 1, "amount": 5}])
        session.commit()

        assert four_shards.rows("SELECT customer_id, doubled, status FROM orders") == [
            (7, 10, "new")
        ]

    def test_a_savepoint_takes_rows_back(self, four_shards: World, session: ShardedSession) -> None:
        m = four_shards.models
        session.copy_from(m.Customer, customers(10))
        with session.begin_nested() as savepoint:
            session.copy_from(m.Customer, customers(100, first=100))
            savepoint.rollback()
        with pytest.raises(IntegrityError), session.begin_nested():
            session.copy_from(m.Customer, customers(20))
        session.commit()

        assert len(four_shards.rows("SELECT id FROM customers")) == 10

    def test_every_shard_gets_all_rows_of_a_reference_table(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        result = session.copy_from(four_shards.models.Region, [("n", "North"), ("s", "South")])
        session.commit()

        assert result.rows == 2
        stored = four_shards.rows_by_shard("SELECT code, name FROM regions")
        assert list(stored.values()) == [[("n", "North"), ("s", "South")]] * 4

    def test_a_global_table_is_filled_on_its_shard(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        result = session.copy_from(four_shards.models.Flag, [(1, "a"), (2, None)])

        assert result.rows_by_shard == {session.cluster.global_shard: 2}

    def test_one_shard_takes_everything(self, one_shard: World) -> None:
        m = one_shard.models
        with one_shard.session() as session:
            session.copy_from(m.Customer, customers(100))
            session.copy_from(m.Flag.__table__, [{"id": 1, "name": None}])
            session.commit()

        assert len(one_shard.rows("SELECT id FROM customers")) == 100
        assert one_shard.rows("SELECT id, name FROM flags") == [(1, None)]

    def test_no_rows_are_no_work(self, four_shards: World, session: ShardedSession) -> None:
        result = session.copy_from(four_shards.models.Customer, [])

        assert (result.rows, result.rows_by_shard, enlisted(session)) == (0, {}, set())


Named = namedtuple("Named", NAMED)


@dataclass
class Modelled:
    id: int
    name: str
    version: int
    other: str = "is no column"


class TestRows:
    @pytest.mark.parametrize(
        ("rows", "columns"),
        [
            ([{"version": 1, "id": 1, "name": "a"}, {"id": 2, "name": "b", "version": 1}], None),
            ([(1, "a", 1), [2, "b", 1]], NAMED),
            ([Named(1, "a", 1), Named(2, "b", 1)], None),
            ([Modelled(1, "a", 1), Modelled(2, "b", 1)], None),
            ([vars(Modelled(1, "a", 1)), vars(Modelled(2, "b", 1))], NAMED),
        ],
        ids=["mappings", "sequences", "named tuples", "objects", "parts of mappings"],
    )
    def test_rows_may_be(
        self, four_shards: World, session: ShardedSession, rows: Any, columns: Any
    ) -> None:
        session.copy_from(four_shards.models.Customer, iter(rows), columns=columns)
        session.commit()

        stored = four_shards.rows("SELECT id, name, version FROM customers")
        assert stored == [(1, "a", 1), (2, "b", 1)]

    def test_mapped_objects_give_what_is_set_and_stay_outside(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        documents = [m.Document(owner_id=n, title=f"t{n}") for n in range(50)]
        session.copy_from(m.Document, documents)
        stored = session.execute(select(m.Document.owner_id, m.Document.id, m.Document.home)).all()

        assert sorted(owner for owner, _, _ in stored) == list(range(50))
        assert len({key for _, key, _ in stored}) == 50
        assert len({home for _, _, home in stored}) == 4
        assert not any(document in session for document in documents)

    def test_rows_of_a_result_can_be_copied(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        session.copy_from(m.Customer, customers(10))
        query = select(m.Customer.id.label("customer_id"), m.Customer.version.label("id"))
        labels = session.execute(query.add_columns(m.Customer.name.label("text"))).all()
        session.copy_from(m.Label, labels)
        session.commit()

        assert len(four_shards.rows("SELECT * FROM labels")) == 10

    def test_a_single_table_subclass_says_what_its_rows_are(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        row = {"customer_id": 1, "id": 1, "amount": 3, "voucher": "v"}
        session.copy_from(m.VoucherPayment, [row])

        assert [type(each) for each in session.scalars(select(m.Payment))] == [m.VoucherPayment]

    def test_a_class_of_several_tables_says_how_each_is_filled(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m, keys = four_shards.models, [(number, 1) for number in range(1, 40)]
        told = r"Payment.__table__ with 'card' as 'kind', then CardPayment.__table__$"
        with pytest.raises(UnsupportedStatement, match=told):
            session.copy_from(m.CardPayment, [{"customer_id": 1}])
        payments = [(*key, "card", 5) for key in keys]
        session.copy_from(m.Payment.__table__, payments, columns=[*KEY, "kind", "amount"])
        session.copy_from(
            m.CardPayment.__table__, [(*key, "visa") for key in keys], columns=[*KEY, "card"]
        )
        found = session.scalars(select(m.Payment)).all()

        assert {(type(each), each.amount, each.card) for each in found} == {
            (m.CardPayment, 5, "visa")
        }
        assert sorted((each.customer_id, each.id) for each in found) == keys

    def test_progress_counts_rows(self, four_shards: World, session: ShardedSession) -> None:
        counts: list[int] = []
        session.copy_from(four_shards.models.Customer, customers(), progress=counts.append)

        assert counts == sorted(counts)
        assert len(counts) > 2
        assert counts[-1] == MANY


BAD_ROWS = {
    "another type": ((5, 1, 1), RowRefused, "type int cannot be stored in column 'name'"),
    "too large": ((5, "secret", 2**40), RowRefused, "out of the range of column 'version'"),
    "no key": ((None, "secret", 1), MissingShardKey, "no value for its shard key"),
    "a key of another type": (("5", "secret", 1), RoutingError, "is of type str"),
    "too many columns": ((5, "secret", 1, 1), RowRefused, "has 4 values for 3 columns"),
    "too few columns": ((5, "secret"), RowRefused, "has 2 values for 3 columns"),
    "no row at all": ("abc", RowRefused, "is of type str, and has no values"),
}


class TestRefusals:
    @pytest.mark.parametrize(("row", "refusal", "told"), BAD_ROWS.values(), ids=BAD_ROWS)
    @pytest.mark.parametrize("before", [10, 2500])
    def test_a_bad_row_is_told_by_its_number(
        self,
        four_shards: World,
        session: ShardedSession,
        row: Any,
        refusal: type[Exception],
        told: str,
        before: int,
    ) -> None:
        m = four_shards.models
        rows = [(n, "n", 1) for n in range(10, before + 10)]
        with pytest.raises(refusal, match=rf"^row {before + 1}\b.*{told}") as raised:
            session.copy_from(m.Customer, [*rows, row, *rows], columns=NAMED)
        session.rollback()

        assert "secret" not in str(raised.value)
        assert raised.value.row == before + 1  # type: ignore[attr-defined]
        assert four_shards.rows("SELECT id FROM customers") == []

    def test_rows_without_the_column_of_the_shard_key_are_refused(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        with (
            pytest.warns(SAWarning, match="primary key"),  # as an INSERT does
            pytest.raises(MissingShardKey, match=r"row 1: .*shard key") as raised,
        ):
            session.copy_from(four_shards.models.Customer, [{"name": "secret", "version": 1}])

        assert "secret" not in str(raised.value)

    def test_a_bad_first_row_leaves_the_transaction_as_it_was(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        session.execute(insert(m.Customer), list(customers(5)))
        with pytest.raises(MissingShardKey):
            session.copy_from(m.Customer, [(None, "a", 1)], columns=NAMED)
        session.commit()

        assert len(four_shards.rows("SELECT id FROM customers")) == 5

    @pytest.mark.parametrize(
        ("duplicate", "number"), [(1, MANY + 1), (2500, MANY + 1), (MANY, MANY + 1)]
    )
    def test_an_error_of_a_server_names_shard_and_row(
        self, four_shards: World, session: ShardedSession, duplicate: int, number: int
    ) -> None:
        m = four_shards.models
        rows = [*customers(), *customers(1, first=duplicate), *customers(100, first=MANY + 1)]
        with pytest.raises(IntegrityError) as raised:
            session.copy_from(m.Customer, rows)
        session.rollback()

        shard = session.cluster.shard_for(m.Customer, duplicate)
        assert f"(shard: {shard})" in str(raised.value)
        assert f"in row {number}\n" in str(raised.value)
        assert raised.value.orig.row == number  # type: ignore[union-attr]
        assert f"({duplicate})" not in str(raised.value)
        assert raised.value.orig.diag.constraint_name == "customers_pkey"  # type: ignore[union-attr]
        assert four_shards.rows("SELECT id FROM customers") == []

    def test_a_value_that_the_server_refuses_is_not_shown(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        rows = [("n", "North"), ("s", "South"), ("secretsecret", "too long")]
        with pytest.raises(DataError, match="in row 3, column 'code'") as raised:
            session.copy_from(four_shards.models.Region, rows)

        assert "secret" not in str(raised.value)

    def test_a_failed_copy_fails_the_transaction_on_all_shards(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        with pytest.raises(IntegrityError):
            session.copy_from(m.Customer, [*customers(100), *customers(1)])
        with pytest.raises(InternalError, match="aborted"):
            session.scalars(select(m.Customer)).all()
        session.rollback()
        session.copy_from(m.Customer, customers(3))
        session.commit()

        assert len(four_shards.rows("SELECT id FROM customers")) == 3

    def test_an_exception_of_the_iterable_comes_through_and_nothing_is_stored(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models

        def breaking() -> Iterator[dict[str, Any]]:
            yield from customers()
            raise ZeroDivisionError

        pids = [each.info.backend_pid for each in _drivers(session)]
        with pytest.raises(ZeroDivisionError):
            session.copy_from(m.Customer, breaking())
        with pytest.raises(InternalError, match="aborted"):
            session.scalars(select(m.Customer)).all()
        session.rollback()

        assert four_shards.rows("SELECT id FROM customers") == []
        assert [each.info.backend_pid for each in _drivers(session)] == pids

    def test_the_transaction_is_not_used_while_rows_are_read(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models

        def reading() -> Iterator[dict[str, Any]]:
            yield from customers(3000)
            session.scalars(select(m.Customer)).all()

        def committing(_: int) -> None:
            session.connection().connection.driver_connection.commit()

        with pytest.raises(UnsupportedStatement, match="while rows are copied"):
            session.copy_from(m.Customer, reading())
        session.rollback()
        with pytest.raises(UnsupportedStatement, match="while rows are copied"):
            session.copy_from(m.Customer, customers(), progress=committing)
        session.rollback()

        assert four_shards.rows("SELECT id FROM customers") == []

    @pytest.mark.parametrize(
        ("rows", "told"),
        [
            ([{"id": 1, "nmae": "a"}], "has no column 'nmae'"),
            ([{"id": 1, "customers": "a"}], "has no column 'customers'"),
        ],
    )
    def test_an_unknown_column_is_refused(
        self, four_shards: World, session: ShardedSession, rows: Any, told: str
    ) -> None:
        with pytest.raises(UnsupportedStatement, match=told):
            session.copy_from(four_shards.models.Customer, rows)

    def test_what_cannot_be_copied_into_is_refused(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        with pytest.raises(UnsupportedStatement, match="neither a mapped class nor a table"):
            session.copy_from(object(), [{"customer_id": 1}])
        with pytest.raises(UnsupportedStatement, match="named twice"):
            session.copy_from(m.Customer, [(1, 1)], columns=["id", "id"])

    def test_writes_on_several_shards_can_be_refused(self, shop_urls: dict[str, str]) -> None:
        from sqlalchemy_shards import create_cluster
        from tests.shards.shop import DECLARED

        cluster = create_cluster(shop_urls, name="shop", multi_shard_writes="refuse")
        with ShardedSession(cluster) as session, pytest.raises(ScatterNotAllowed):
            session.copy_from(DECLARED.Customer, customers(100))
        with ShardedSession(cluster) as session:
            session.copy_from(DECLARED.Customer, customers(1))
            session.rollback()
        cluster.dispose()

    def test_autocommit_would_be_half_done(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(ScatterNotAllowed):
            session.copy_from(four_shards.models.Customer, customers(100))
        session.rollback()

        assert four_shards.rows("SELECT id FROM customers") == []


def _drivers(session: ShardedSession) -> list[Any]:
    """The shards' driver connections in the session's transaction."""
    everywhere = {"shard": "*"}
    session.execute(text("select 1"), execution_options=everywhere)
    connection: Any = session.connection().connection.driver_connection
    return [connection.enlisted[name].driver for name in session.cluster.shards]


def test_ids_are_those_of_the_rows(four_shards: World, session: ShardedSession) -> None:
    m = four_shards.models
    rows = [{"owner_id": 1, "title": "a", "id": uuid.UUID(int=7)}]
    session.copy_from(m.Document, rows)

    assert session.get(m.Document, uuid.UUID(int=7)) is not None
