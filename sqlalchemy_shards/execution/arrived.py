"""Shipped rows as they came: lines of COPY's text format, which fill a table without being read.

A line is taken apart only where its values are needed one by one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NULL: Final = rb"\N"

AMBIGUOUS_ENCODINGS: Final = frozenset(
    ["BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"]
)
"""Encodings of clients in which the second byte of a character may be a backslash."""


class ArrivedRows:
    """The rows of one part, of all shards.

    :ivar count: how many.
    :ivar size: bytes of their lines.
    """

    __slots__ = ("_chunks", "count", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.count = 0
        self.size = 0

    @classmethod
    def of(cls, rows: Iterable[Sequence[str | None]], encoding: str) -> ArrivedRows:
        """Rows whose values are known, as text."""
        arrived = cls()
        arrived.add([_line(row, encoding) for row in rows])
        return arrived

    def __len__(self) -> int:
        return self.count

    def add(self, lines: Sequence[bytes]) -> int:
        """Add rows, one line each, with its end; return their bytes."""
        chunk = b"".join(lines)
        self._chunks.append(chunk)
        self.count += len(lines)
        self.size += len(chunk)
        return len(chunk)

    def chunks(self) -> Iterator[bytes]:
        """The rows in pieces, for COPY."""
        return iter(self._chunks)

    def columns(self, width: int) -> list[list[bytes | None]]:
        """The values, column by column, as the server wrote them; None for NULL."""
        lines = b"".join(self._chunks).split(b"\n")
        lines.pop()
        rows = [_cells(line) for line in lines]
        return [[row[place] for row in rows] for place in range(width)]

    def distinct(self, place: int, at_most: int) -> set[bytes] | None:
        """The values of a column, but NULL; None: they are more than ``at_most``."""
        found: set[bytes] = set()
        for chunk in self._chunks:
            lines = chunk.split(b"\n")
            lines.pop()
            found.update(line.split(b"\t", place + 1)[place] for line in lines)
            if len(found) - (NULL in found) > at_most:
                return None
        return {_plain(cell) for cell in found if cell != NULL}


class Sorter:
    """Puts the lines of one shard to their parts, by the number that stands first in each.

    :param parts: by number.
    :param widths: how many values a row of each has; what stands behind them is filling.
    :ivar count: how many lines there were.
    :ivar size: their bytes, without the filling.
    """

    __slots__ = ("_endings", "_parts", "_widths", "count", "size")

    def __init__(self, parts: Sequence[ArrivedRows], widths: Sequence[int]) -> None:
        self._parts = parts
        self._widths = widths
        self._endings: dict[bytes, int] = {}
        self.count = self.size = 0

    def add(self, lines: Sequence[bytes]) -> None:
        """Add lines, in any order of their parts."""
        found: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for line in lines:
            number, _, cells = line.partition(b"\t")
            found[number].append(cells)
        for number, rows in found.items():
            ending = self._endings.get(number)
            if ending is None:
                filling = rows[0].count(b"\t") + 1 - self._widths[int(number)]
                ending = self._endings[number] = filling * len(b"\t" + NULL)
            if ending:
                rows = [row[: -ending - 1] + b"\n" for row in rows]
            self.count += len(rows)
            self.size += self._parts[int(number)].add(rows)


def _line(row: Sequence[str | None], encoding: str) -> bytes:
    cells = (NULL if cell is None else _SPECIAL.sub(_escape, cell.encode(encoding)) for cell in row)
    return b"\t".join(cells) + b"\n"


def _escape(found: re.Match[bytes]) -> bytes:
    return b"\\" + _LETTERS.get(found[0], found[0])


def _cells(line: bytes) -> list[bytes | None]:
    cells: list[bytes | None] = list(line.split(b"\t"))
    if b"\\" not in line:
        return cells
    return [None if cell == NULL else _plain(cell) for cell in cells if cell is not None]


def _plain(cell: bytes) -> bytes:
    return _ESCAPED.sub(_unescaped, cell) if b"\\" in cell else cell


def _unescaped(found: re.Match[bytes]) -> bytes:
    return _ESCAPES.get(found[1], found[1])


_ESCAPED: Final = re.compile(rb"\\(.)", re.S)
_ESCAPES: Final = {
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
}
_SPECIAL: Final = re.compile(rb"[\\\t\n\r]")
_LETTERS: Final = {character: letter for letter, character in _ESCAPES.items()}
