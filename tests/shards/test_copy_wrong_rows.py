"""What is told of rows that are none: one sentence, with the row's number and no value of it."""

from __future__ import annotations

import io
from collections import namedtuple
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards import CsvFormat, ShardedSession
from sqlalchemy_shards.errors import MissingShardKey, RowRefused, ShardsError, UnsupportedStatement
from tests.shards.shop import DECLARED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.shards.shop import World

NAMED = ["id", "name", "version"]
Customer = DECLARED.Customer
Named = namedtuple("Named", NAMED)
Swapped = namedtuple("Swapped", ["id", "version", "name"])

NO_VALUES = "and has no values of the table's columns; give each row as a mapping, as a tuple"
OTHER_FORM = "in another form than the first row; give rows of one form"
WIDTH = "for 3 columns: 'id', 'name', 'version'; give one value for each column"
SAME = "give the same columns in each row"

GOOD: dict[str, Any] = {
    "mapping": {"id": 1, "name": "a", "version": 1},
    "tuple": (1, "a", 1),
    "object": SimpleNamespace(id=1, name="a", version=1),
    "mapped object": Customer(id=1, name="a", version=1),
}
NO_ROWS: dict[str, Any] = {
    "nothing": None,
    "number": 5,
    "text": "secret",
    "three letters": "abc",
    "three bytes": b"abc",
}


@pytest.fixture
def session(four_shards: World) -> Iterator[ShardedSession]:
    assert four_shards.cluster is not None
    with ShardedSession(four_shards.cluster) as session:
        yield session


@pytest.mark.parametrize("row", NO_ROWS.values(), ids=NO_ROWS)
@pytest.mark.parametrize("first", [None, *GOOD])
def test_what_is_no_row_is_told_by_its_number_and_type(
    session: ShardedSession, first: str | None, row: Any
) -> None:
    rows = [row] if first is None else [GOOD[first], row]
    columns = NAMED if first == "tuple" else None
    with pytest.raises(RowRefused) as raised:
        session.copy_from(Customer, rows, columns=columns)

    told = f"row {len(rows)} is of type {type(row).__name__}, {NO_VALUES}"
    assert str(raised.value).startswith(told)
    assert raised.value.row == len(rows)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("rows", "columns", "told"),
    [
        ([(1, "secret")], NAMED, f"row 1 has 2 values {WIDTH}"),
        ([GOOD["tuple"], (2,)], NAMED, f"row 2 has 1 value {WIDTH}"),
        ([GOOD["tuple"], GOOD["mapping"]], NAMED, f"row 2 is of type dict, .* {OTHER_FORM}"),
        ([GOOD["tuple"], {1, 2, 3}], NAMED, f"row 2 is of type set, .* {OTHER_FORM}"),
        ([GOOD["mapping"], GOOD["tuple"]], None, f"row 2 is of type tuple, .* {OTHER_FORM}"),
        ([Named(1, "a", 1), Swapped(2, 1, "b")], None, "row 2 names its fields .* order than"),
        ([GOOD["mapping"], {"id": 2, "name": "b"}], None, f"row 2 .* for 'version', .*{SAME}"),
        ([{"id": 2}, GOOD["mapping"]], None, f"row 2 has 'name', 'version' beside .*{SAME}"),
        ([{"id": 2, "name": "b"}], NAMED, "row 1 has no value for 'version'"),
        ([Customer(id=2), GOOD["mapped object"]], None, "row 2 has 'name', 'version' beside"),
        ([GOOD["mapped object"], Customer(id=2)], None, "row 2 has no value for 'name', 'version'"),
        ([GOOD["object"], SimpleNamespace(id=2)], None, "row 2 has no value for 'name', 'version'"),
        ([Customer()], None, f"row 1 is of type Customer, {NO_VALUES}"),
        ([{}], None, f"row 1 is of type dict, {NO_VALUES}"),
        ([object()], None, f"row 1 is of type object, {NO_VALUES}"),
    ],
)
def test_a_row_that_is_not_as_its_columns_is_told_by_what_differs(
    session: ShardedSession, rows: Any, columns: Any, told: str
) -> None:
    with pytest.raises(RowRefused, match=f"^{told}") as raised:
        session.copy_from(Customer, rows, columns=columns)

    assert raised.value.row == len(rows)
    assert "secret" not in str(raised.value)


async def awaited() -> AsyncIterator[Any]:
    yield {"id": 1}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"id": 1, "name": "secret"}, r"a single dict .* give it in a list: \[row\]"),
        (Customer(id=1), r"a single Customer .* give it in a list: \[row\]"),
        ("id,name\n1,secret\n", r"a single str .* io.StringIO\(text\)"),
        (b"id,name\n1,secret\n", r"a single bytes .* io.BytesIO\(data\)"),
        (None, "given as NoneType, .* give a list"),
        (5, "given as int, .* give a list"),
        (Customer, "cannot be iterated over; give a list"),
        (awaited(), "cannot await .* AsyncShardedSession"),
    ],
)
def test_what_is_no_iterable_of_rows_is_refused(
    session: ShardedSession, rows: Any, told: str
) -> None:
    with pytest.raises(RowRefused, match=told) as raised:
        session.copy_from(Customer, rows)

    assert "secret" not in str(raised.value)


def test_a_path_without_a_file_says_how_text_is_given(session: ShardedSession) -> None:
    with pytest.raises(FileNotFoundError, match=r"io\.StringIO\(text\)\): 'no-such-file\.csv'"):
        session.copy_from(Customer, "no-such-file.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,name\n1,a\nsecret,b\n", "row 2 .* no plain integer in column 'id', .*: 42$"),
        ("id,name\n1,a\n\n2,b\n", "row 2 of the CSV is an empty line, .*; leave it away"),
        ("id,name\n1\n", "row 1 of the CSV has 1 value instead of 2; correct it, or quote .* ','"),
        ("1,secret\n", r"the first line .* no column of table 'customers'; .*header=False"),
        ("id;name\n1;secret\n", r"the first line .* no column .*delimiter="),
    ],
)
def test_csv_that_cannot_be_read_says_what_to_do(
    session: ShardedSession, text: str, told: str
) -> None:
    with pytest.raises(RowRefused, match=told) as raised:
        session.copy_from(Customer, io.StringIO(text))

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("columns", ["id", 5, [], [0], [Customer.id]])
def test_columns_are_names(session: ShardedSession, columns: Any) -> None:
    with pytest.raises(UnsupportedStatement, match="columns= names no columns; give the names"):
        session.copy_from(Customer, [(1,)], columns=columns)


def test_a_csv_format_is_one(session: ShardedSession) -> None:
    wrong: Any = {"header": False}
    with pytest.raises(UnsupportedStatement, match="csv= was given as dict; give a CsvFormat"):
        session.copy_from(Customer, io.StringIO("id\n1\n"), csv=wrong)
    session.copy_from(Customer, io.StringIO("1,a,1\n"), columns=NAMED, csv=CsvFormat(False))

    assert session.get_one(Customer, 1).name == "a"


GOES_ON: dict[str, Any] = {
    "no row at all": ([5], True),
    "other columns": ([GOOD["mapping"], {"id": 2}], True),
    "no shard key": ([{"id": None, "name": "a", "version": 1}], True),
    "a shard key of a wrong type": ([{"id": "x", "name": "a", "version": 1}], True),
    "an unknown column": ([{"id": 1, "nowhere": 1}], True),
    "a value of a wrong type": ([{"id": 1, "name": "a", "version": "x"}], False),
    "no shard key after 64 rows": (
        [{"id": n or None, "name": "a", "version": 1} for n in [*range(1, 65), 0]],
        False,
    ),
}


@pytest.mark.parametrize(("rows", "goes_on"), GOES_ON.values(), ids=GOES_ON)
def test_the_transaction_goes_on_only_where_no_copy_had_begun(
    session: ShardedSession, rows: Any, goes_on: bool
) -> None:
    session.execute(text("SELECT 1"), execution_options={"shard": "*"})
    with pytest.raises(ShardsError):
        session.copy_from(Customer, rows)
    if goes_on:
        assert session.scalars(select(Customer)).all() == []
    else:
        with pytest.raises(SQLAlchemyError, match=r"rolled back|aborted"):
            session.scalars(select(Customer)).all()


@pytest.mark.filterwarnings("ignore:Column 'customers.id':sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (io.StringIO("name,version\na,1\n"), "let the file have it in a column, or give the"),
        ([{"name": "a", "version": 1}], "give it in each row, or give the column a client-side"),
    ],
    ids=["file", "rows"],
)
def test_a_missing_shard_key_is_told_by_where_the_rows_come_from(
    session: ShardedSession, rows: Any, told: str
) -> None:
    with pytest.raises(MissingShardKey, match=f"^row 1: .*'id'; {told}"):
        session.copy_from(Customer, rows)
