"""Rows copied out: those of the transaction, as CSV that reads back, as tuples, as Arrow."""

from __future__ import annotations

import csv
import io
import tracemalloc
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, insert, literal, select, text

from sqlalchemy_shards import CsvFormat, ShardedSession
from sqlalchemy_shards.errors import ConfigurationError, ScatterNotAllowed, UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.shards.shop import World

AWKWARD = ["", "a,b", 'say "hi"', "two\nlines", "\\.", "NULL", None, "é"]


@pytest.fixture
def session(spread_shop: World) -> Iterator[ShardedSession]:
    assert spread_shop.cluster is not None
    with ShardedSession(spread_shop.cluster) as session:
        yield session


def read(written: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(written)))


def written(session: ShardedSession, source: Any, **arguments: Any) -> str:
    file = io.StringIO()
    session.copy_to(source, file, **arguments)
    return file.getvalue()


class TestCsv:
    def test_all_rows_of_a_class_are_written(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m, file = spread_shop.models, io.BytesIO()
        count = session.copy_to(m.Order, file)
        header, *rows = read(file.getvalue().decode())

        assert count == len(rows) == 24
        assert header == ["customer_id", "id", "amount", "status"]
        stored = spread_shop.rows("SELECT customer_id, id, amount, status FROM orders")
        assert sorted(rows) == sorted([*map(str, row)] for row in stored)

    def test_what_was_written_can_be_copied_in_again(
        self, spread_shop: World, session: ShardedSession, tmp_path: Path
    ) -> None:
        m, path = spread_shop.models, tmp_path / "labels.csv"
        session.execute(
            insert(m.Customer),
            [
                {"id": 100 + n, "name": f"{name}", "notes": name, "version": 1}
                for n, name in enumerate(AWKWARD)
            ],
        )
        query = "SELECT id, name, notes, region_code, home, version, created FROM customers"
        session.commit()
        before = spread_shop.rows_by_shard(query)
        session.copy_to(m.Customer, path)
        for table in ("orders", "labels", "customers"):
            session.execute(text(f"DELETE FROM {table}"), execution_options={"shard": "*"})
        result = session.copy_from(m.Customer, path)
        session.commit()

        assert result.rows == 12 + len(AWKWARD)
        assert spread_shop.rows_by_shard(query) == before

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_the_mark_of_an_encoding_stands_at_the_beginning_only(
        self, spread_shop: World, session: ShardedSession, encoding: str
    ) -> None:
        m, file = spread_shop.models, io.BytesIO()
        csv = CsvFormat(encoding=encoding)
        session.copy_to(select(m.Customer.id).order_by(m.Customer.id), file, csv=csv)

        assert file.getvalue().decode(encoding).split() == ["id", *map(str, range(1, 13))]

    def test_rows_are_those_of_the_transaction(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models
        session.add(m.Customer(id=500, name="pending"))
        names = written(session, select(m.Customer.name).where(m.Customer.id >= 500))
        session.rollback()

        assert names == "name\npending\n"

    def test_an_order_is_kept_also_over_shards(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models
        session.execute(insert(m.Document), [{"owner_id": 1, "title": title} for title in AWKWARD])
        query = select(m.Customer.id, m.Customer.created).order_by(m.Customer.id.desc())
        _, *rows = read(written(session, query))
        ids = [int(key) for key, _ in rows]

        assert ids == sorted(ids, reverse=True)
        assert len(ids) == 12

    def test_values_of_a_merged_answer_are_written_alike(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models
        session.execute(
            insert(m.Customer),
            [
                {"id": 100 + n, "name": f"n{n}", "notes": note, "version": 1}
                for n, note in enumerate(AWKWARD)
            ],
        )
        query = select(m.Customer.id, m.Customer.notes, m.Customer.region_code)
        by_copy = written(session, query, csv=CsvFormat(null="NULL"))
        merged = written(session, query.order_by(m.Customer.id), csv=CsvFormat(null="NULL"))

        assert sorted(read(by_copy)) == sorted(read(merged))

    def test_aggregates_and_gathered_rows_are_written(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models
        counted = written(session, select(func.count().label("n")).select_from(m.Order))
        average = written(session, select(func.avg(m.Order.amount).label("a")))

        assert counted == "n\n24\n"
        assert average == "a\n1.5000000000000000\n"

    def test_parameters_are_written_into_the_statement(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models
        query = select(m.Customer.id, literal("it's %s").label("what")).where(
            m.Customer.name == "customer 3"
        )

        assert written(session, query) == "id,what\n3,it's %s\n"

    def test_reference_and_global_rows_are_written_once(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models
        session.execute(insert(m.Flag), [{"id": 1, "name": "a"}])

        assert sorted(read(written(session, m.Region))) == [
            ["code", "name"],
            ["n", "North"],
            ["s", "South"],
        ]
        assert written(session, m.Flag.__table__) == "id,name\n1,a\n"

    def test_no_rows_are_a_header(self, spread_shop: World, session: ShardedSession) -> None:
        m = spread_shop.models
        query = select(m.Customer.id).where(m.Customer.id.in_([]))

        assert written(session, query) == "id\n"
        assert written(session, query, csv=CsvFormat(header=False)) == ""

    def test_the_format_is_followed(self, spread_shop: World, session: ShardedSession) -> None:
        m, file = spread_shop.models, io.BytesIO()
        csv = CsvFormat(False, null="\\N", delimiter="|", quote="'", encoding="latin-1")
        session.execute(insert(m.Flag), [{"id": 1, "name": "é'|"}, {"id": 2, "name": None}])
        session.copy_to(m.Flag, file, csv=csv)

        assert sorted(file.getvalue().decode("latin-1").splitlines()) == ["1|'é''|'", "2|\\N"]

    def test_listeners_of_the_session_have_their_say(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models

        def only_three(state: Any) -> None:
            state.statement = state.statement.where(m.Customer.id == 3)

        event.listen(session, "do_orm_execute", only_three)

        assert written(session, select(m.Customer.id)) == "id\n3\n"

    def test_what_listeners_ask_themselves_is_answered(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m, asked = spread_shop.models, []

        def ask(state: Any) -> None:
            if not asked:
                asked.append(None)
                asked.append(session.scalar(select(func.count()).select_from(m.Label)))

        event.listen(session, "do_orm_execute", ask)

        assert len(read(written(session, select(m.Customer.id)))) == 13
        assert asked == [None, 24]

    def test_an_error_of_the_file_stops_and_the_transaction_goes_on(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models

        class Full(io.StringIO):
            def write(self, text: str) -> int:
                if text != "id\n":
                    raise OSError(28, "no space left")
                return len(text)

        session.execute(insert(m.Flag), [{"id": 1, "name": "kept"}])
        with pytest.raises(OSError, match="no space"):
            session.copy_to(select(m.Customer.id), Full())
        assert session.scalar(select(m.Flag.name)) == "kept"
        session.commit()

        assert spread_shop.rows_by_shard("SELECT id FROM customers").keys()

    def test_progress_counts_rows(self, spread_shop: World, session: ShardedSession) -> None:
        counts: list[int] = []
        session.copy_to(spread_shop.models.Order, io.StringIO(), progress=counts.append)

        assert counts[-1] == 24

    def test_what_has_no_rows_is_refused(self, spread_shop: World, session: ShardedSession) -> None:
        m = spread_shop.models
        with pytest.raises(UnsupportedStatement, match="SELECT of objects"):
            session.copy_to(select(m.Customer), io.StringIO())
        with pytest.raises(UnsupportedStatement, match="neither a SELECT nor"):
            session.copy_to(object(), io.StringIO())
        with pytest.raises(ScatterNotAllowed):
            session.copy_to(m.Customer, io.StringIO(), execution_options={"scatter": "refuse"})


class TestTuples:
    def test_rows_come_as_plain_tuples(self, spread_shop: World, session: ShardedSession) -> None:
        m = spread_shop.models
        rows = list(session.copy_to(select(m.Order.customer_id, m.Order.amount)))

        assert {type(row) for row in rows} == {tuple}
        assert sorted(rows) == spread_shop.rows("SELECT customer_id, amount FROM orders")


class TestArrow:
    def test_rows_come_as_record_batches(self, spread_shop: World, session: ShardedSession) -> None:
        m = spread_shop.models
        session.execute(insert(m.Ledger), [{"customer_id": 1, "balance": Decimal("1.50")}])
        customers = session.copy_to(m.Customer, arrow=True).read_all()
        ledgers = session.copy_to(m.Ledger, arrow=True).read_all()

        assert sorted(customers["id"].to_pylist()) == list(range(1, 13))
        assert str(customers.schema.field("created").type) == "timestamp[us, tz=UTC]"
        assert ledgers.to_pylist() == [
            {"customer_id": 1, "balance": Decimal("1.50"), "parent_id": None}
        ]

    def test_what_was_given_can_be_copied_in_again(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        m = spread_shop.models
        before = spread_shop.rows_by_shard("SELECT * FROM labels")
        table = session.copy_to(m.Label, arrow=True).read_all()
        session.execute(text("DELETE FROM labels"), execution_options={"shard": "*"})
        session.copy_from(m.Label, table)
        session.commit()

        assert spread_shop.rows_by_shard("SELECT * FROM labels") == before

    def test_no_file_is_written_as_record_batches(
        self, spread_shop: World, session: ShardedSession
    ) -> None:
        file = io.BytesIO()
        with pytest.raises(ConfigurationError, match="files are written as CSV"):
            session.copy_to(spread_shop.models.Label, file, arrow=True)

        assert file.getvalue() == b""


def test_memory_does_not_grow_with_the_rows(spread_shop: World, session: ShardedSession) -> None:
    m = spread_shop.models
    rows = ({"id": n, "name": "x" * 500, "version": 1} for n in range(100, 40_100))
    session.copy_from(m.Customer, rows)

    class Discarding(io.StringIO):
        def write(self, text: str) -> int:
            return len(text)

    tracemalloc.start()
    try:
        count = session.copy_to(select(m.Customer.id, m.Customer.name), Discarding())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 40_012
    assert peak < 8_000_000  # all rows are 20 megabytes
