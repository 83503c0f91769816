"""What a block of a statement is split into: what the shards ship of it, and a head over that.

`Whole` is the statement that the blocks are of: their parameters are its own, and so are its names.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.sql.elements import CollationClause
from sqlalchemy.sql.selectable import CTE
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.catalog.expressions import Relation
from sqlalchemy_shards.routing.row_wise import ROW_WISE_FUNCTIONS, why_not_row_wise

from .blocks import written
from .derived import Derived
from .elsewhere import NOW, TIMES, at_workspace
from .heads import RELATION
from .names import SYSTEM_COLUMNS
from .nodes import nodes_of
from .parts import Part
from .spelling import speller
from .splitting import NotSplittable
from .wire import is_shippable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Table

    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.plan import ShippedRows
    from sqlalchemy_shards.routing.sources import StatementSources

    from .asked import Facts
    from .blocks import Block, Written

ON_SHARD: Final = "shards_grouped"
"""The name that a shard's groups have there."""


class Split(NamedTuple):
    """A block in two steps.

    :param part: what the shards ship.
    :param head: the SELECT over it that stands in the place of the block.
    :param tables: what is read for it.
    :param shown: for each column of the block, which column of the part it is; None: none of them.
    """

    part: Part
    head: Any
    tables: Collection[Table]
    shown: Sequence[str | None]


class Piece(NamedTuple):
    """A block that is to be split.

    :param around: the statement that it stands in.
    :param alone: the block, compiled by itself.
    :param name: that of the relation that will be shipped.
    """

    block: Block
    around: Written
    alone: Written
    name: str

    @property
    def labels(self) -> Sequence[str]:
        """The names by which the statement around it knows its columns."""
        columns = _compat.column_list(self.block.final)
        if self.block.is_outermost:
            return [f"c{number}" for number in range(len(columns))]
        shown = [each.name for each in self.block.select.subquery().c]
        if len(shown) != len(columns):
            raise NotSplittable("it cannot be told what its columns are called")
        return shown


class Whole:
    """A statement whose blocks are split.

    :raises NotSplittable: names in it may mean something else elsewhere.
    """

    def __init__(self, compiled: Any, statement: Any, facts: Facts) -> None:
        self.compiled = compiled
        self.facts = facts
        self.spelled = speller(compiled)
        self._dialect = at_workspace(compiled.dialect)
        self._check_names(statement)

    @cached_property
    def scalar(self) -> Collection[str]:
        """Names of functions that are no aggregates and give no sets."""
        # Names that are also those of other functions say nothing.
        names = self.compiled.rendered_functions
        return ROW_WISE_FUNCTIONS | TIMES | frozenset(self.facts.scalar(names))

    @cached_property
    def row_wise(self) -> frozenset[str]:
        """Names of functions that give on a shard what they give on one database."""
        # A function of the application's may read a table, of which a shard has a part.
        names = frozenset(self.scalar) & self.compiled.rendered_functions
        return ROW_WISE_FUNCTIONS | TIMES | frozenset(self.facts.builtin(names))

    def derived(self, statement: Any) -> Derived:
        """A statement of the workspace, with the parameters of the whole."""
        return Derived(statement.compile(dialect=self._dialect), self.compiled.bind_names, [NOW])

    def written(self, statement: Any, heads: Mapping[Any, Any] | None = None) -> Written:
        """A statement with its blocks."""
        return written(statement, self.compiled.dialect, heads or {})

    def relations(self, tables: Iterable[Table]) -> list[Relation]:
        """Tables, as relations without rows."""
        quote = self.compiled.preparer.quote
        found = []
        for table in tables:
            types = self.facts.columns_of(table)
            if not types:
                raise NotSplittable(f"the shards have no table {table.fullname}")
            columns = tuple(map(quote, types))
            found.append(Relation(quote(table.name), columns, tuple(types.values())))
        return found

    def relation_of(self, part: Part) -> Relation:
        """What a part will be, without rows."""
        quote = self.compiled.preparer.quote
        return Relation(quote(part.name), tuple(map(quote, part.columns)), part.types)

    def check_row_wise(self, expressions: Iterable[Any]) -> None:
        """Refuse expressions that may be something else on a shard than on one database."""
        reason = why_not_row_wise(expressions, further=self.row_wise)
        if reason is not None:
            raise NotSplittable(reason)

    def types_shipped(
        self, rows: Any, values: Mapping[str, Any], tables: Sequence[Relation]
    ) -> dict[str, ColumnType]:
        """The types of the columns that a SELECT ships.

        :param values: what each column is, by its name.
        """
        found = {}
        asked = self.facts.types_of(self.derived(rows), tables, len(values))
        for (name, value), type_ in zip(values.items(), asked, strict=True):
            if type_ is None or not is_shippable(type_):
                raise NotSplittable("what its groups hold cannot be shipped")
            if type_.database is not None and names_collation(value):
                # As a column's own it gives way to others, which it does not where it is named.
                raise NotSplittable("COLLATE names the collation of the database")
            found[name] = type_
        return found

    def check_head(
        self, piece: Piece, block: Any, split: Split, tables: Sequence[Relation]
    ) -> None:
        """Check that the head is taken, and gives values of the block's types.

        :param block: as PostgreSQL takes it over relations without rows.
        """
        over = [self.relation_of(split.part), *tables]
        head, whole = self.derived(split.head), self.derived(block)
        if piece.block.is_outermost:
            is_same = self.facts.returned(head, over) == self.facts.returned(whole, tables)
        else:
            width = len(_compat.column_list(split.head))
            types = self.facts.types_of(head, over, width)
            is_same = types == self.facts.types_of(whole, tables, width) and None not in types
        if not is_same:
            raise NotSplittable("over groups it would return values of other types")

    def _check_names(self, statement: Any) -> None:
        tables = list(self.compiled.rendered_tables)
        names = {table.name for table in tables}
        if len(names) < len(tables):
            raise NotSplittable("it names two tables that differ in their schema only")
        ctes = {node.name for node in nodes_of(statement, self.compiled) if isinstance(node, CTE)}
        if not names.isdisjoint(ctes):
            raise NotSplittable("it has a CTE with the name of a table")
        if any(name.startswith(RELATION) for name in {*names, *ctes}):
            raise NotSplittable(f"a name in it begins with {RELATION}")


def check_block(piece: Piece) -> _compat.SelectShape:
    """Refuse a block that cannot be looked into, or looks at others; return its clauses."""
    block, compiled = piece.block, piece.alone.compiled
    if compiled.raw_texts or compiled.whole_rows or compiled.bare_names & SYSTEM_COLUMNS:
        raise NotSplittable("it holds raw SQL text, whole rows or system columns")
    if any(map(_compat.compiles_itself, iterate(block.final))):
        raise NotSplittable("it holds an SQL construct of the application's own")
    shape = _compat.select_shape(block.final)
    if shape.extended or shape.embellished or shape.independent_ctes or shape.for_update:
        raise NotSplittable("it has clauses that are not looked into")
    if block.is_member and any(map(names_collation, _compat.column_list(block.final))):
        # It counts for more than that of a column, in a set operation.
        raise NotSplittable("COLLATE stands in a set operation")
    return shape


def part_of(
    piece: Piece,
    rows: Any,
    types: Mapping[str, ColumnType],
    kind: ShippedRows,
    tables: Collection[Table],
) -> Part:
    """What is shipped for a piece.

    :param tables: what is read for it.
    """
    return Part(
        name=piece.name,
        origin=", ".join(table.fullname for table in tables),
        columns=tuple(types),
        types=tuple(types.values()),
        rows=rows,
        kind=kind,
        follows_search_path=any(not each.schema for each in tables),
        is_vague=bool(_compat.select_shape(piece.block.final).having),
    )


def check_adds_up(sources: StatementSources) -> None:
    """Refuse what shards cannot answer each for its own rows."""
    reason = sources.unreadable or sources.obstacle
    if reason is not None:
        raise NotSplittable(reason)


def names_collation(expression: Any) -> bool:
    """Whether there is a COLLATE in an expression."""
    return any(isinstance(node, CollationClause) for node in iterate(expression))
