"""CSV as PostgreSQL reads and writes it: its options, and records taken apart.

A value that is quoted is never NULL; one that is not, and equals the NULL string, is. A quote may
stand anywhere in a value; within quotes, two of them are one. Python's own reader knows neither.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.errors import ConfigurationError, RowRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHUNK: Final = 1 << 16
"""How many characters or bytes are read at a time."""

RECORD_CHARACTERS_MAX: Final = 1 << 28
"""How long a record may be; without a bound, a quote that is not closed would be the whole file."""


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """How CSV is written, as the options of PostgreSQL's COPY say it.

    :param header: whether the first line names the columns.
    :param null: what stands for NULL, where it is not quoted.
    :param delimiter: one character between values.
    :param quote: one character around values; within them it is doubled.
    :param encoding: of bytes, as Python names it.
    :raises ConfigurationError: PostgreSQL would not accept them.
    """

    header: bool = True
    null: str = ""
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        """Refuse what PostgreSQL refuses."""
        faults = [
            f"{name}={value!r} is not one character"
            for name, value in (("delimiter", self.delimiter), ("quote", self.quote))
            if len(value) != 1 or value in "\r\n" or not value.isascii()
        ]
        if self.delimiter == self.quote:
            faults.append("delimiter and quote are the same")
        if {*"\r\n", self.delimiter, self.quote} & {*self.null}:
            faults.append(f"null={self.null!r} holds a delimiter, a quote or the end of a line")
        if faults:
            raise ConfigurationError(
                "CSV cannot be read or written like this:", "correct the format", faults=faults
            )

    def fields(self, record: str) -> list[str | None]:
        """The values of a record; None: NULL."""
        delimiter, quote, null = self.delimiter, self.quote, self.null
        if quote not in record:
            return [None if field == null else field for field in record.split(delimiter)]
        fields: list[str | None] = []
        field, is_quoted = "", False
        parts = record.split(quote)
        for place, part in enumerate(parts):
            if place % 2:  # within quotes
                field, is_quoted = field + part, True
            elif not part and 0 < place < len(parts) - 1:  # two quotes
                field += quote
            else:
                first, *others = part.split(delimiter)
                field += first
                for other in others:
                    fields.append(field if is_quoted or field != null else None)
                    field, is_quoted = other, False
        fields.append(field if is_quoted or field != null else None)
        return fields

    def record(self, values: Sequence[str | None]) -> str:
        """Values as a record, with its end of line; None: NULL."""
        # psql takes a line of its own for the end of the data.
        end = "\\." if len(values) == 1 else self.null
        special = {self.delimiter, self.quote, "\n", "\r"}
        fields = []
        for value in values:
            if value is None:
                fields.append(self.null)
            elif value in (self.null, end) or not special.isdisjoint(value):
                doubled = value.replace(self.quote, 2 * self.quote)
                fields.append(f"{self.quote}{doubled}{self.quote}")
            else:
                fields.append(value)
        return self.delimiter.join(fields) + "\n"


def records_of(file: Any, csv: CsvFormat) -> Iterator[str]:
    """The records of a file, each without its end of line.

    :param file: has ``read``, which gives text or bytes.
    :raises RowRefused: a quote is not closed, or bytes are not of the encoding.
    """
    quote = csv.quote
    begun: list[str] = []
    length, quotes, number = 0, 0, 1
    for line in _lines(file, csv):
        if not begun and quote not in line:
            yield line.removesuffix("\r")
            number += 1
            continue
        begun.append(line)
        length, quotes = length + len(line), quotes + line.count(quote)
        if length > RECORD_CHARACTERS_MAX:
            break
        # Quotes that are doubled do not change whether their number is even.
        if quotes % 2 == 0:
            yield "\n".join(begun).removesuffix("\r")
            begun, length, quotes, number = [], 0, 0, number + 1
    if begun:
        raise RowRefused(
            f"record {number} of the CSV has a quote that is not closed", "close it, or double it"
        )


def _lines(file: Any, csv: CsvFormat) -> Iterator[str]:
    rest = ""
    for text in _texts(file, csv):
        *lines, rest = (rest + text).split("\n")
        yield from lines
    if rest:
        yield rest


def _texts(file: Any, csv: CsvFormat) -> Iterator[str]:
    decoder = getincrementaldecoder(csv.encoding)()
    is_first = True
    while data := file.read(CHUNK):
        try:
            text = data if isinstance(data, str) else decoder.decode(data)
        except UnicodeDecodeError:
            raise _wrong_encoding(csv) from None
        yield text.removeprefix("\ufeff") if is_first else text
        is_first = False
    try:
        yield decoder.decode(b"", True)
    except UnicodeDecodeError:
        raise _wrong_encoding(csv) from None


def _wrong_encoding(csv: CsvFormat) -> RowRefused:
    return RowRefused(
        f"the CSV is not in the encoding {csv.encoding!r}", "name the one that it is in"
    )
