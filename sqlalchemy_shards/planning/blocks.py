"""The SELECTs of a statement as the compiler writes them, and others written in their place.

A *block* is one SELECT, where it stands: in a FROM list, a CTE, an expression, a set operation. A
block is *self-contained* if it names nothing of the SELECTs around it, so that it gives the same
rows wherever it runs. What it names is told by the compiler, here and where it is compiled alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Table
from sqlalchemy.sql.elements import Over
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import CTE, CompoundSelect, Join, Select
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.routing.calls import name_of
from sqlalchemy_shards.routing.nested import is_cut_off
from sqlalchemy_shards.routing.row_wise import ORDERED_AGGREGATES
from sqlalchemy_shards.routing.scopes import leaves, unwrapped_query

from .elsewhere import at_workspace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import FromClause


NO_HEADS: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Block:
    """One SELECT where it is written.

    :param select: as the statement holds it.
    :param is_outermost: it is the statement.
    :param is_member: it stands in a set operation.
    :param is_recursive: it stands within a recursive CTE.
    :ivar final: after the ORM has worked on it.
    :ivar froms: the elements of its FROM list, without what it correlates to.
    :ivar names: what a name given as a string stands for.
    """

    select: Select[Any]
    is_outermost: bool
    is_member: bool
    is_recursive: bool
    final: Any = None
    froms: frozenset[FromClause] = frozenset()
    names: Mapping[str, Any] = field(default_factory=dict)


class Written:
    """A statement as the workspace reads it, compiled, with its blocks.

    :param compiled: the compiled statement, with what a `ShardsCompiler` takes note of.
    :param dialect: the one that it was asked for with.
    :ivar blocks: in the order in which they are written, those around others first.
    :ivar replaced: the SELECTs that others were written for.
    :ivar ctes: the queries of the CTEs that it names.
    """

    def __init__(self, compiled: Any, dialect: Any) -> None:
        self.compiled = compiled
        self._dialect = dialect
        self.blocks: Sequence[Block] = compiled.blocks
        self.replaced: frozenset[Any] = frozenset(compiled.replaced)
        self.ctes: frozenset[Any] = frozenset(compiled.named_ctes)

    @property
    def tables(self) -> dict[Table, int]:
        """How often each table is named in it."""
        counted: Mapping[Any, int] = self.compiled.rendered_tables
        return {table: count for table, count in counted.items() if isinstance(table, Table)}

    def stands_alone(self, query: Any) -> bool:
        """Whether a subquery in it names nothing of the SELECTs around it."""
        query = unwrapped_query(query)
        if isinstance(query, CompoundSelect):
            return all(map(self.stands_alone, query.selects))
        here = [each for each in self.blocks if each.select is query]
        return bool(here) and all(map(self.is_self_contained, here))

    def is_self_contained(self, block: Block) -> bool:
        """Whether one of its blocks names nothing of the SELECTs around it."""
        alone = written(block.final, self._dialect).blocks
        return self._are_alike(block, alone[0]) and all(
            self._is_alike_everywhere(each) for each in alone[1:]
        )

    def _is_alike_everywhere(self, alone: Block) -> bool:
        here = [each for each in self.blocks if each.select is alone.select]
        return bool(here) and all(self._are_alike(each, alone) for each in here)

    @staticmethod
    def _are_alike(one: Block, other: Block) -> bool:
        return one.froms == other.froms


def written(
    statement: Any,
    dialect: Any,
    heads: Mapping[Any, Any] = NO_HEADS,
    *,
    column_keys: Sequence[str] | None = None,
    stay: Collection[Table] = (),
) -> Written:
    """Compile a statement for the workspace.

    :param heads: SELECT -> what is written in its place.
    :param column_keys: of an UPDATE, the columns that are set by its parameters alone.
    :param stay: tables that are not brought there, and keep their schemas.
    """
    derived = at_workspace(dialect, stay)
    compiler = derived.statement_compiler
    derived.statement_compiler = type(
        f"Noting{compiler.__name__}", (_Noting, compiler), {"heads": heads}
    )
    keys = {} if column_keys is None else {"column_keys": column_keys}
    compiled: SQLCompiler = statement.compile(dialect=derived, **keys)
    return Written(compiled, dialect)


def may_choose(query: Any) -> bool:
    """Whether a query may give other rows each time that it runs, where its order has ties."""
    return any(map(_chooses, iterate(query)))


def may_choose_itself(query: Any) -> bool:
    """The same, whatever the CTEs do that it names."""
    pending = [query]
    while pending:
        node = pending.pop()
        if _chooses(node):
            return True
        pending += [child for child in node.get_children() if not isinstance(child, CTE)]
    return False


def _chooses(node: Any) -> bool:
    if isinstance(node, FunctionElement):
        return name_of(node) in ORDERED_AGGREGATES
    if not isinstance(node, (Select, CompoundSelect)):
        return isinstance(node, Over)
    shape = _compat.select_shape(node)
    return bool(shape.distinct_on) or is_cut_off(shape)


class _Noting(_compat.NotesSelects):
    """Takes note of blocks, and writes heads in place of some."""

    heads: Mapping[Any, Any]
    statement: Any

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.blocks: list[Block] = []
        self.replaced: set[Any] = set()
        self.named_ctes: set[Any] = set()
        self._open: list[Block] = []
        self._recursive_ctes = 0
        super().__init__(*arguments, **keywords)

    def visit_select(self, select_stmt: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write a SELECT, or what stands in its place."""
        head = self.heads.get(select_stmt)
        if head is not None:
            self.replaced.add(select_stmt)
        block = Block(
            select_stmt,
            is_outermost=select_stmt is self.statement,
            is_member=keywords.get("compound_index") is not None,
            is_recursive=self._recursive_ctes > 0,
        )
        self._open.append(block)
        parent: Any = super()
        shown = select_stmt if head is None else head
        text = parent.visit_select(shown, *arguments, **keywords)
        self._open.pop()
        return text

    def note_select(self, final: Any, froms: Any, names: Any) -> None:
        """Take note of the SELECT that is being written."""
        block = self._open[-1]
        block.final, block.names = final, names
        block.froms = frozenset(
            leaf for each in froms for leaf in leaves(each) if not isinstance(leaf, Join)
        )
        if block.select not in self.replaced:
            self.blocks.append(block)

    def visit_cte(self, cte: Any, *arguments: Any, **keywords: Any) -> Any:
        """Write a CTE, where it is first named."""
        parent: Any = super()
        self.named_ctes.add(cte.element)  # that of each alias of it, too
        self._recursive_ctes += bool(cte.recursive)
        try:
            return parent.visit_cte(cte, *arguments, **keywords)
        finally:
            self._recursive_ctes -= bool(cte.recursive)
