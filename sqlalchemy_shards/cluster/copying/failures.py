"""What went wrong with a row, told by its number and never by its values.

A server tells the line of the COPY that ran on it, and quotes the value that it could not read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.errors import RowRefused, ShardsError, UnsupportedStatement
from sqlalchemy_shards.routing.router import NO_KEY_ADVICE

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

_PLACE: Final = re.compile(r"\bline (\d+)(?:, column ([^:\n]+))?")
_DATA_EXCEPTION: Final = "22"  # the class of SQLSTATEs whose messages quote values


def told_by_row(
    error: psycopg.Error, shard: str, row_of_line: Callable[[int], int | None]
) -> psycopg.Error:
    """The same error of a server, without values, with the row's number as ``row``.

    :param row_of_line: the row that was sent as a line of the shard's COPY, None: not known.
    """
    diag = error.diag
    if error.sqlstate is None or diag.message_primary is None:
        return error
    place = _PLACE.search(diag.context or "")
    row = None if place is None else row_of_line(int(place[1]))
    column = place[2] if place is not None and place[2] else diag.column_name
    problem = diag.message_primary
    if error.sqlstate.startswith(_DATA_EXCEPTION):
        problem = f"a value is refused by the server ({type(error).__name__})"
    where = [f"row {row}"] * (row is not None) + [f"column {column!r}"] * (column is not None)
    text = f"{problem}, in {', '.join(where)}" if where else problem
    told = type(error)(text, info=error.pgresult)
    told.shard, told.row = shard, row  # type: ignore[attr-defined]
    return told


def used_while_copying() -> UnsupportedStatement:
    """What to raise where the code that gives rows uses the transaction that they go into."""
    return UnsupportedStatement(
        "the transaction is used while rows are copied in it",
        "read what the rows are made of before, or in a session of its own",
    )


def of_row(error: Exception, row: int, *, is_text: bool) -> ShardsError:
    """What to raise for a row that was refused here.

    :param row: its number, from 1.
    :param is_text: it is one of a file.
    """
    told: Any
    if isinstance(error, ShardsError):
        advice = error.advice
        if advice == NO_KEY_ADVICE:
            place = "let the file have it in a column" if is_text else "give it in each row"
            advice = f"{place}, or give the column a client-side default"
        told = type(error)(f"row {row}: {error.problem}", advice)
    else:
        told = RowRefused(
            f"row {row} cannot be stored: {type(error).__name__}",
            "give what the model's columns take",
        )
    told.row = row
    return told  # type: ignore[no-any-return]
