"""Rows as an application has them: mappings, tuples, objects; read once, a few at a time.

The first row tells the columns and of what kind all others are. A row that has others is refused:
COPY has one list of columns, and no way to ask for a default in a single row.
"""

from __future__ import annotations

from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import inspect

from .names import given_keys
from .wrong_rows import (
    RowKind,
    check_rows,
    is_sequence,
    kind_of,
    names_others,
    no_row,
    wrong_row,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy_shards.errors import RowRefused

    from .names import ColumnNames

    Row = Sequence[Any]


class RowSource(Protocol):
    """Where rows come from.

    :ivar keys: of the columns that each row has a value for, in this order.
    :ivar is_text: the values are text that the server reads, but for the shard key.
    """

    keys: Sequence[str]
    is_text: bool

    def take(self, count: int) -> Sequence[Row]:
        """The next rows, as many as asked for if there are so many; none: there are no more."""


class GivenRows:
    """Rows of an iterable.

    :param columns: names of the columns, where the rows do not tell them, or not all are wanted.
    :raises RowRefused: they are no iterable of rows, or the first of them is no row.
    """

    is_text = False

    def __init__(
        self, rows: Iterable[Any], names: ColumnNames, columns: Sequence[str] | None
    ) -> None:
        check_rows(rows)
        iterator = iter(rows)
        first = list(islice(iterator, 1))
        self._rows: Iterator[Any] = chain(first, iterator)
        self._taken = 0
        self._attributes = names.attributes
        self.keys: Sequence[str] = ()
        if first:
            self._kind = kind_of(first[0])
            self._told = _told(first[0], self._kind, names, columns)
            self._read = _reader(self._kind, self._told, names, are_all=columns is None)
            self.keys = given_keys(self._told, names)

    def take(self, count: int) -> Sequence[Row]:
        """The next rows."""
        rows = list(islice(self._rows, count))
        if not rows:
            return rows
        before, self._taken = self._taken, self._taken + len(rows)
        try:
            return self._read(rows)
        except Exception:
            for number, row in enumerate(rows, before + 1):
                if not self._can_read(row):
                    raise self._refused(number, row) from None
            raise

    def _can_read(self, row: Any) -> bool:
        try:
            self._read([row])
        except Exception:
            return False
        return True

    def _refused(self, number: int, row: Any) -> RowRefused:
        return wrong_row(number, row, self._kind, self._told, self._attributes)


def _told(
    first: Any, kind: RowKind, names: ColumnNames, columns: Sequence[str] | None
) -> tuple[str, ...]:
    """The names of the columns that rows have, as they are given or as the first row tells.

    :raises RowRefused: the first row tells none.
    """
    if kind is RowKind.NONE:
        raise no_row(1, first)
    if columns is not None:
        return tuple(columns)
    if kind is RowKind.SEQUENCE:
        return tuple(getattr(first, "_fields", names.in_order))
    if kind is RowKind.MAPPING:
        told = tuple(first)
    elif kind is RowKind.INSTANCE:
        held: Any = inspect(first)
        told = tuple(name for name in held.dict if name in names.attributes)
    else:
        told = tuple(name for name in names.in_order if hasattr(first, name))
    if not told:
        raise no_row(1, first)
    return told


def _reader(
    kind: RowKind, told: Sequence[str], names: ColumnNames, *, are_all: bool
) -> Callable[[Sequence[Any]], Sequence[Row]]:
    """What reads rows of a kind."""
    if kind is RowKind.MAPPING:
        return _reads_mappings(told, are_all=are_all)
    if kind is RowKind.SEQUENCE:
        return _reads_tuples(told, are_all=are_all)
    if kind is RowKind.INSTANCE:
        return _reads_instances(told, names.attributes, are_all=are_all)
    return _reads_attributes(told)


def _picked(told: Sequence[str], getter: Any) -> Callable[[Any], Row]:
    get = getter(*told)
    return get if len(told) > 1 else lambda row: (get(row),)


def _reads_mappings(
    told: Sequence[str], *, are_all: bool
) -> Callable[[Sequence[Any]], Sequence[Row]]:
    pick, width = _picked(told, itemgetter), len(told)

    def read(rows: Sequence[Any]) -> Sequence[Row]:
        picked = list(map(pick, rows))
        if are_all and {width} != set(map(len, rows)):
            raise LookupError
        return picked

    return read


def _reads_tuples(
    told: Sequence[str], *, are_all: bool
) -> Callable[[Sequence[Any]], Sequence[Row]]:
    width = len(told)

    def read(rows: Sequence[Any]) -> Sequence[Row]:
        if {width} != set(map(len, rows)):
            raise LookupError
        for type_ in set(map(type, rows)) - {tuple, list}:  # many others have a length
            if not is_sequence(type_) or (are_all and names_others(type_, told)):
                raise LookupError
        return rows

    return read


def _reads_instances(
    told: Sequence[str], attributes: frozenset[str], *, are_all: bool
) -> Callable[[Sequence[Any]], Sequence[Row]]:
    pick, all_told = _picked(told, itemgetter), frozenset(told)

    def read(rows: Sequence[Any]) -> Sequence[Row]:
        held = [inspect(row).dict for row in rows]
        if are_all and any(attributes & each.keys() != all_told for each in held):
            raise LookupError
        return list(map(pick, held))

    return read


def _reads_attributes(told: Sequence[str]) -> Callable[[Sequence[Any]], Sequence[Row]]:
    pick = _picked(told, attrgetter)
    return lambda rows: list(map(pick, rows))
