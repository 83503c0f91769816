"""What is shipped to the workspace: relations, each read by a SELECT on the shards.

A *part* is one relation: rows of a table, or what the shards made of them. All parts of one shard
are read by one statement, so that they are one snapshot; every value is shipped as PostgreSQL
writes it as text, so that none goes through a type of Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, literal_column, null, union_all

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import ShippedRows

from .asked_keys import Source, asking
from .derived import Derived
from .elsewhere import NOW, at_given_time
from .wire import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from typing import TypeAlias

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import Select

    from sqlalchemy_shards.catalog.columns import ColumnType

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
    :param is_vague: no planner knows how many rows these are, as subqueries choose them.
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
    is_vague: bool = False


class Rows(NamedTuple):
    """The question how many rows of a part a shard would ship.

    :param need: of one occurrence of its table; None: of all.
    """

    part: int
    need: int | None = None


class Values(NamedTuple):
    """The question how many values there are that are compared with the keys of a tie."""

    tie: int


Question: TypeAlias = "Rows | Values | Source"
"""What the planner of a shard is asked: of a source, how many keys it has there."""


class Estimate(NamedTuple):
    """What the planner of a shard expects.

    :param rows: how many rows a statement would give.
    :param until: when it is to be asked again, by the clock that only goes on.
    """

    rows: int
    until: float


class Gathering:
    """How a statement is answered by the workspace.

    :param parts: what it is answered from.
    :param needs_tables: a CTE could not stand for each of them.
    :param rewritten: the statement as the workspace must read it; None: as it is.
    :param is_partial: its parts are the groups of its outermost SELECT, which lie where the whole
        statement belongs.
    :param ties: what hangs on what among the parts; None: nothing does.
    :ivar estimates: what a shard was found to expect lately.
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
        self.estimates: dict[Question, Estimate] = {}
        self._names = dict(compiled.bind_names)
        self._dialect = at_given_time(compiled.dialect)
        self._derived: dict[Hashable, Derived] = {}

    @property
    def is_split(self) -> bool:
        """Whether the shards do a part of its work, and the workspace the rest."""
        rows = (ShippedRows.ALL, ShippedRows.MATCHING)
        return any(part.kind not in rows for part in self.parts)

    def shipment(
        self, indexes: tuple[int, ...], beside: tuple[int, ...] = (), lists: tuple[int, ...] = ()
    ) -> Derived:
        """The statement that reads some parts on one shard: the part's number, then its columns.

        :param beside: numbers of the ties to parts whose rows all lie on that shard.
        :param lists: numbers of the ties to parts whose keys are given, as its own parameters.
        """
        return self._kept(
            ("ships", indexes, beside, lists),
            lambda: _shipping([(index, self._narrowed(index, beside, lists)) for index in indexes]),
            [key.parameter for number in lists for key in self.tie(number).keys],
        )

    def asked(self, sources: tuple[tuple[int, Source], ...]) -> Derived:
        """The statement that reads keys on one shard: the source's number, then its columns."""
        return self._kept(("asks", *sources), lambda: asking(self.parts, sources))

    def asked_of_planner(self, question: Question) -> Derived:
        """The statement of which a shard is to tell how many rows it would give there."""
        if isinstance(question, Source):
            return self.asked(((0, question),))
        if isinstance(question, Values):
            return self._kept(question, lambda: self._ties.values_compared(question.tie))
        index, need = question
        if need is None:
            return self.shipment((index,))
        part = self.parts[index]
        return self._kept(question, lambda: self._ties.rows_of_need(index, need, part))

    def _kept(
        self, name: Hashable, statement: Callable[[], Any], own: Sequence[Any] = ()
    ) -> Derived:
        known = self._derived.get(name)
        if known is None:
            compiled = statement().compile(dialect=self._dialect)
            known = self._derived[name] = Derived(compiled, self._names, [NOW, *own])
        return known

    @property
    def _ties(self) -> Ties:
        assert self.ties is not None
        return self.ties

    def tie(self, number: int) -> Tie:
        """The tie of this number."""
        return self._ties.all[number]

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
