"""What is shipped to the workspace: relations, each read by a SELECT on the shards.

A *part* is one relation: rows of a table, or what the shards made of them. All parts of one shard
are read by one statement, so that they are one snapshot; every value is shipped as PostgreSQL
writes it as text, so that none goes through a type of Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, literal_column, null, union_all

from sqlalchemy_shards import _compat

from .derived import Derived
from .elsewhere import NOW, at_given_time
from .wire import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import Select

    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.plan import ShippedRows

    from .ties import Tie, Ties


class Part(NamedTuple):
    """A relation that is shipped.

    :param name: under which it stands at the workspace.
    :param origin: what it is read from, in words.
    :param columns: names of its columns.
    :param types: how the shards keep their values.
    :param rows: reads it on a shard; its columns are these, in their order.
    :param kind: which rows these are.
    :param key: columns of the primary key that the workspace must know of.
    :param lookups: columns that rows are looked up by, once for each row of another relation.
    :param follows_search_path: a name in ``rows`` has no schema.
    """

    name: str
    origin: str
    columns: tuple[str, ...]
    types: tuple[ColumnType, ...]
    rows: Select[Any]
    kind: ShippedRows
    key: tuple[str, ...] = ()
    lookups: tuple[str, ...] = ()
    follows_search_path: bool = True


class Estimate(NamedTuple):
    """What the planner of a shard expects.

    :param rows: how many rows it would ship.
    :param until: when it is to be asked again, by the clock that only goes on.
    """

    rows: int
    until: float


class Gathering:
    """How a statement is answered by the workspace.

    :param parts: what it is answered from.
    :param needs_tables: a CTE could not stand for each of them.
    :param rewritten: the statement as the workspace must read it; None: as it is.
    :param is_partial: the shards do a part of its work, and the workspace the rest.
    :param ties: what hangs on what among the parts; None: nothing does.
    :ivar estimates: index of a part -> what a shard was found to expect of it lately.
    """

    def __init__(
        self,
        compiled: SQLCompiler,
        parts: tuple[Part, ...],
        *,
        needs_tables: bool,
        rewritten: Derived | None,
        is_partial: bool = False,
        ties: Ties | None = None,
    ) -> None:
        self.parts = parts
        self.needs_tables = needs_tables
        self.rewritten = rewritten
        self.is_partial = is_partial
        self.ties = ties
        self.estimates: dict[int, Estimate] = {}
        self._names = dict(compiled.bind_names)
        self._dialect = at_given_time(compiled.dialect)
        self._shipments: dict[tuple[tuple[int, ...], ...], Derived] = {}

    def shipment(
        self, indexes: tuple[int, ...], beside: tuple[int, ...] = (), lists: tuple[int, ...] = ()
    ) -> Derived:
        """The statement that reads some parts on one shard: the part's number, then its columns.

        :param beside: numbers of the ties to parts whose rows all lie on that shard.
        :param lists: numbers of the ties to parts whose keys are given, as its own parameters.
        """
        known = self._shipments.get((indexes, beside, lists))
        if known is None:
            statement = _shipping(
                [(index, self._narrowed(index, beside, lists)) for index in indexes]
            )
            compiled = statement.compile(dialect=self._dialect)
            keys = [key.parameter for number in lists for key in self.tie(number).keys]
            known = Derived(compiled, self._names, [NOW, *keys])
            self._shipments[indexes, beside, lists] = known
        return known

    def tie(self, number: int) -> Tie:
        """The tie of this number."""
        assert self.ties is not None
        return self.ties.all[number]

    def _narrowed(self, index: int, beside: tuple[int, ...], lists: tuple[int, ...]) -> Part:
        part = self.parts[index]
        own, given = (
            [tie for tie in map(self.tie, numbers) if tie.part == index]
            for numbers in (beside, lists)
        )
        if self.ties is None or not (own or given):
            return part
        return part._replace(rows=self.ties.rows(index, part, own, given))


def _shipping(parts: Sequence[tuple[int, Part]]) -> Any:
    """One SELECT over all parts: number of the part, then its columns as text."""
    width = max(len(part.columns) for _, part in parts)
    selects = []
    for index, part in parts:
        columns: list[Any] = [
            as_text(column, kept)
            for column, kept in zip(_compat.column_list(part.rows), part.types, strict=True)
        ]
        columns += [null()] * (width - len(columns))
        number = literal_column(str(index), Integer)
        labelled = [column.label(f"c{place}") for place, column in enumerate(columns)]
        selects.append(_compat.with_columns(part.rows, [number.label("part"), *labelled]))
    return selects[0] if len(selects) == 1 else union_all(*selects)
