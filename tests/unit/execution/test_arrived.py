from __future__ import annotations

import pytest

from sqlalchemy_shards.execution.arrived import ArrivedRows, Sorter


def test_rows_are_sorted_out_by_their_part() -> None:
    parts = [ArrivedRows(), ArrivedRows()]

    Sorter(parts, [2, 1]).add([b"1\tx\t\\N\n", b"0\ty\t\\N\n", b"1\t\\N\t\\N\n"])

    assert parts[0].columns(2) == [[b"y"], [None]]
    assert parts[1].columns(1) == [[b"x", None]]
    assert [(part.count, part.size) for part in parts] == [(1, 5), (2, 5)]


def test_each_shard_may_fill_up_otherwise() -> None:
    parts = [ArrivedRows(), ArrivedRows()]

    Sorter(parts, [1, 3]).add([b"0\ta\t\\N\t\\N\n"])
    Sorter(parts, [1, 3]).add([b"0\tb\n"])

    assert b"".join(parts[0].chunks()) == b"a\nb\n"


def test_parts_with_two_digits_are_told_apart() -> None:
    parts = [ArrivedRows() for _ in range(12)]

    Sorter(parts, [1] * 12).add([b"1\tone\n", b"11\televen\n"])

    assert [parts[1].columns(1), parts[11].columns(1)] == [[[b"one"]], [[b"eleven"]]]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (rb"\N", None),
        (rb"\\N", rb"\N"),
        (b"", b""),
        (rb"a\tb\nc\rd\\e", b"a\tb\nc\rd\\e"),
        (rb"\b\f\v", b"\b\f\v"),
        (rb"\\\\t", rb"\\t"),
        (rb"\\\t", b"\\\t"),
        (rb"\\.", rb"\."),
        ("ä€".encode(), "ä€".encode()),
    ],
)
def test_values_are_what_the_server_wrote(written: bytes, value: bytes | None) -> None:
    rows = ArrivedRows()

    rows.add([b"1\t" + written + b"\n"])

    assert rows.columns(2) == [[b"1"], [value]]


def test_without_rows_there_are_columns_all_the_same() -> None:
    assert ArrivedRows().columns(2) == [[], []]


class TestDistinct:
    def test_values_are_read_as_they_were_written(self) -> None:
        rows = ArrivedRows()
        rows.add([b"1\ta\\tb\\\\\n", b"2\t\\N\n"])
        rows.add([b"3\t\\\\N\n", b"4\ta\\tb\\\\\n", b"5\t\n"])

        assert rows.distinct(1, 3) == {b"a\tb\\", b"\\N", b""}

    def test_there_may_be_too_many(self) -> None:
        rows = ArrivedRows()
        rows.add([b"1\n", b"2\n", b"\\N\n", b"2\n"])

        assert rows.distinct(0, 2) == {b"1", b"2"}
        assert rows.distinct(0, 1) is None
