"""CSV and Arrow, copied in: CSV as PostgreSQL itself reads it, each row on the shard of its key."""

from __future__ import annotations

import io
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from sqlalchemy import select

from sqlalchemy_shards import CsvFormat, ShardedSession
from sqlalchemy_shards.cluster.copying.csv_format import records_of
from sqlalchemy_shards.errors import ConfigurationError, RowRefused, UnsupportedStatement
from tests.databases import libpq_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.shards.shop import World

PLAIN = CsvFormat(header=False)
CSV = 'id,version,name\n1,1,one\n2,1,"two, and\n""more"""\n3,1,""\n'

TEXTS = [
    "a,b\n",
    "a,b",
    "a,b\r\nc,d\r\n",
    ',""\n',
    '"",\n',
    '"a,b",c\n',
    '"a""b",c\n',
    '"""",""""""\n',
    'a"b,c"d,e\n',
    'x"a""b"y,z\n',
    '"a\nb\n",c\n"d","e\n"\n',
    '"a\r\nb",c\r\n',
    " a , b \n",
    "\\N,\\\n",
    '"NULL",NULL\n',
    "\u00e9,\U0001f600\n",
    '"\u2028",\x0b\n',
]


@pytest.fixture
def session(four_shards: World) -> Iterator[ShardedSession]:
    assert four_shards.cluster is not None
    with ShardedSession(four_shards.cluster) as session:
        yield session


@pytest.mark.parametrize("null", ["", "NULL", "\\N"])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_records_are_taken_apart_as_by_postgresql(one_shop_url: str, text: str, null: str) -> None:
    csv = CsvFormat(header=False, null=null)
    with psycopg.connect(libpq_url(one_shop_url)) as connection:
        connection.execute("CREATE TEMP TABLE read (a text, b text, number serial)")
        copy = f"COPY read (a, b) FROM STDIN (FORMAT csv, NULL '{null}')"
        with connection.cursor().copy(copy.encode()) as rows:
            rows.write(text.encode())
        expected = connection.execute("SELECT a, b FROM read ORDER BY number").fetchall()

    found = [tuple(csv.fields(record)) for record in records_of(io.StringIO(text), csv)]

    assert found == expected


class Trickling(io.BytesIO):
    """Gives few bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(3)


class TestCsv:
    @pytest.mark.parametrize("kind", ["text", "bytes", "trickling", "path", "path as text"])
    def test_a_file_may_be(
        self, four_shards: World, session: ShardedSession, tmp_path: Path, kind: str
    ) -> None:
        path = tmp_path / "customers.csv"
        path.write_bytes(b"\xef\xbb\xbf" + CSV.encode())
        files: dict[str, Any] = {
            "text": io.StringIO(CSV),
            "bytes": io.BytesIO(CSV.encode()),
            "trickling": Trickling(CSV.encode()),
            "path": path,
            "path as text": str(path),
        }
        result = session.copy_from(four_shards.models.Customer, files[kind])
        session.commit()

        assert result.rows == 3
        stored = four_shards.rows("SELECT id, name, region_code FROM customers")
        assert stored == [(1, "one", None), (2, 'two, and\n"more"', None), (3, "", None)]

    def test_rows_lie_where_inserted_ones_would(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        text = "\n".join(f"{n};n{n};1" for n in range(1000))
        csv = CsvFormat(header=False, delimiter=";")
        session.copy_from(m.Customer, io.StringIO(text), columns=["id", "name", "version"], csv=csv)
        session.commit()

        for shard, rows in four_shards.rows_by_shard("SELECT id FROM customers").items():
            assert {session.cluster.shard_for(m.Customer, key) for (key,) in rows} == {shard}

    def test_the_server_reads_values_and_the_client_adds_defaults(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        session.copy_from(m.Ledger, io.StringIO("customer_id,balance\n7,1.5\n8,1e3\n"))
        session.copy_from(m.Document, io.StringIO("owner_id,title\n5,a\n6,\n"))
        balances = session.scalars(select(m.Ledger.balance).order_by(m.Ledger.customer_id)).all()
        documents = session.execute(select(m.Document.title, m.Document.id)).all()

        assert balances == [Decimal("1.50"), Decimal("1000.00")]
        assert {title for title, _ in documents} == {"a", None}
        assert len({key for _, key in documents}) == 2

    def test_wanted_columns_are_picked(self, four_shards: World, session: ShardedSession) -> None:
        m = four_shards.models
        text = "more,version,id,name\n,1,4,four\n"
        session.copy_from(m.Customer, io.StringIO(text), columns=["id", "name", "version"])

        assert session.get_one(m.Customer, 4).name == "four"

    def test_an_empty_file_is_no_work(self, four_shards: World, session: ShardedSession) -> None:
        m = four_shards.models

        assert session.copy_from(m.Customer, io.StringIO("")).rows == 0
        assert session.copy_from(m.Customer, io.StringIO("id,name\n")).rows == 0

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("id,name,version\n1,a,1\n2,secret\n", "^row 2 of the CSV has 2 values instead of 3"),
            ("id,name,version\n1,a,1\n2,a,1,secret\n", "^row 2 .* has 4 values"),
            ("id,name,version\n1,a,1\nsecret,a,1\n", "^row 2 .* plain integer in column 'id'"),
            ("id,name,version\n1,a,1\n1_0,a,1\n", "^row 2 .* plain integer in column 'id'"),
            ("id,name,version\n1,a,1\n,a,1\n", "^row 2: a row .* no value for its shard key"),
            ('id,name,version\n1,a,1\n2,"secret,1\n', "record 3 .* a quote that is not closed"),
            ("id,nmae\n1,a\n", "has no column 'nmae'"),
        ],
    )
    def test_a_bad_row_is_told_by_its_number(
        self, four_shards: World, session: ShardedSession, text: str, told: str
    ) -> None:
        from sqlalchemy_shards.errors import ShardsError

        with pytest.raises(ShardsError, match=told) as raised:
            session.copy_from(four_shards.models.Customer, io.StringIO(text))

        assert "secret" not in str(raised.value)

    def test_what_the_server_cannot_read_is_told_by_its_row(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        from sqlalchemy.exc import DataError

        text = "id,name,version\n1,a,1\n2,a,secret\n3,a,1\n"
        with pytest.raises(DataError, match="in row 2, column 'version'") as raised:
            session.copy_from(four_shards.models.Customer, io.StringIO(text))

        assert "secret" not in str(raised.value)

    def test_another_encoding_must_be_named(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m, data = four_shards.models, "id,name,version\n1,\u00e9,1\n".encode("latin-1")
        with pytest.raises(RowRefused, match="not in the encoding"):
            session.copy_from(m.Customer, io.BytesIO(data))
        session.rollback()
        session.copy_from(m.Customer, io.BytesIO(data), csv=CsvFormat(encoding="latin-1"))

        assert session.get_one(m.Customer, 1).name == "\u00e9"

    @pytest.mark.parametrize(
        "wrong", [{"delimiter": ""}, {"quote": '""'}, {"delimiter": '"'}, {"null": "a,b"}]
    )
    def test_a_format_that_is_none_is_refused(self, wrong: Any) -> None:
        with pytest.raises(ConfigurationError):
            CsvFormat(**wrong)


class TestArrow:
    def test_tables_batches_and_streams_are_taken(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        table = pa.table({"id": [*range(5000)], "name": ["n"] * 5000, "version": [1] * 5000})
        streamed = pa.RecordBatchReader.from_batches(
            table.schema, [batch.slice(1, 1) for batch in table.to_batches(max_chunksize=100)]
        )
        session.copy_from(m.Customer, table)
        in_table = set(session.scalars(select(m.Customer.id)))
        session.rollback()
        session.copy_from(m.Customer, streamed)
        in_stream = set(session.scalars(select(m.Customer.id)))
        session.rollback()
        session.copy_from(m.Customer, table.to_batches()[0].slice(0, 3))

        assert in_table == set(range(5000))
        assert in_stream == {100 * n + 1 for n in range(50)}
        assert set(session.scalars(select(m.Customer.id))) == {0, 1, 2}

    def test_values_are_those_of_python(self, four_shards: World, session: ShardedSession) -> None:
        m = four_shards.models
        at = datetime(2024, 1, 2, 3, 4, 5, 6000)
        table = pa.table(
            {
                "id": pa.array([1], pa.int32()),
                "name": pa.array(["a"]).dictionary_encode(),
                "version": [1],
                "created": pa.array([at], pa.timestamp("ns", tz="UTC")),
                "notes": pa.array([None], pa.string()),
            }
        )
        session.copy_from(m.Customer, table)
        found = session.get_one(m.Customer, 1)

        assert (found.name, found.notes) == ("a", None)
        assert found.created.replace(tzinfo=None) == at

    def test_what_does_not_fit_is_refused(
        self, four_shards: World, session: ShardedSession
    ) -> None:
        m = four_shards.models
        with pytest.raises(UnsupportedStatement, match="has no column"):
            session.copy_from(m.Customer, pa.table({"nmae": [1]}))
        finer = pa.array([1], pa.timestamp("ns", tz="UTC"))
        with pytest.raises(RowRefused, match="fractions of a microsecond"):
            session.copy_from(m.Customer, pa.table({"id": [1], "created": finer}))
        with pytest.raises(RowRefused, match=r"^row 1: .* 'name'"):
            session.copy_from(m.Customer, pa.table({"id": [1], "name": [1], "version": [1]}))

    def test_without_pyarrow_it_says_what_to_install(
        self, four_shards: World, session: ShardedSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(ConfigurationError, match=r"sqlalchemy-shards\[arrow\]"):
            session.copy_from(four_shards.models.Customer, pa.table({"id": [1]}))
