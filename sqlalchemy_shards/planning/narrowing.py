"""What a row of a table must meet to be shipped, from the occurrences of the table.

A row matters if it matters in any occurrence. In one occurrence it must meet the filters and have
its partners. That it has a partner can be told on its own shard if all rows that may be partners
lie there: they lie beside it by the shard key, or are those of a reference table, which is on every
shard. For other partners a *link* is kept: which rows they are is known in an execution only.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, exists, literal_column, or_, select
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ColumnClause
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.distribution import Global, Reference
from sqlalchemy_shards.routing.beside import lies_beside

from .filters import filters_of
from .made import is_made_beside
from .partners import Partners, asks_for_row, partners_of
from .subqueries import has_subquery

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import Exists, FromClause

    from sqlalchemy_shards.routing.scopes import Occurrence

    from .made import Made
    from .partners import Partner
    from .subqueries import Subqueries

DEPTH_MAX: Final = 3
"""A partner's own partners are asked for so many steps away."""

SEMI_JOINS_MAX: Final = 8
"""No more of them stand in what must be met in one occurrence."""

ALIAS: Final = "shards_partner_"
"""How the names of partners begin in the SQL that ships rows."""


NOTHING: Final[Mapping[int, Sequence[Any]]] = MappingProxyType({})

NONE_MADE: Final[Mapping[Any, Made]] = MappingProxyType({})


class Way(NamedTuple):
    """A row beside a row, whose partner it is that may lie on another shard.

    :param table: what the row beside is of.
    :param alias: under which its columns are named.
    :param exists: the condition that there is one; it takes further ones about its columns.
    """

    table: Table
    alias: FromClause
    exists: Exists


class Link(NamedTuple):
    """A partner whose rows may lie on another shard.

    :param partner: the name of the part that has the partner's rows.
    :param pairs: keys of one's own columns, and the names of the partner's that equal them.
    :param semi_join: the condition that a row has the partner, for where all its rows lie.
    :param way: it is the partner of a row beside; the first columns of the pairs are of that one.
    """

    partner: str
    pairs: tuple[tuple[str, str], ...]
    semi_join: Any
    way: Way | None = None


class Need(NamedTuple):
    """What a row must meet to matter in one occurrence of its table.

    :param conditions: what its shard can look at by itself.
    """

    conditions: tuple[Any, ...]
    links: tuple[Link, ...] = ()


def needs_of(
    found: Mapping[Table, Sequence[Occurrence]],
    compiled: SQLCompiler,
    *,
    has_partners: bool,
    subqueries: Subqueries | None = None,
    made: Mapping[Any, Made] = NONE_MADE,
) -> Mapping[Table, tuple[Need, ...]]:
    """What rows of each table must meet, for each of its occurrences.

    :param has_partners: these are all occurrences of all tables, so that partners can be found
        among them.
    :param subqueries: tells of conditions with subqueries; None: they are not looked at.
    :param made: SELECT -> what the shards make of it, where its tables' rows are not shipped.
    """
    writer = _Writer(compiled, found, subqueries, made if has_partners else None)
    return {table: tuple(map(writer.need, each)) for table, each in found.items()}


def condition_of(needs: Sequence[Need], further: Mapping[int, Sequence[Any]] = NOTHING) -> Any:
    """What a row must meet to matter in any occurrence; None: every row may matter.

    :param further: by the number of the need, what must be met as well.
    """
    alternatives = []
    for number, need in enumerate(needs):
        conditions = [*need.conditions, *further.get(number, ())]
        if not conditions:
            return None
        alternatives.append(and_(*conditions))
    return or_(*alternatives) if alternatives else None


class _Writer:
    """Writes what occurrences need as conditions on their tables."""

    def __init__(
        self,
        compiled: SQLCompiler,
        found: Mapping[Table, Sequence[Occurrence]],
        subqueries: Subqueries | None,
        made: Mapping[Any, Made] | None,
    ) -> None:
        self._compiled = compiled
        self._found = found
        self._shipped = {each for occurrences in found.values() for each in occurrences}
        self._subqueries = subqueries
        self._made = made
        self._filters: dict[Occurrence, list[Any]] = {}
        self._partners: dict[Occurrence, Partners] = {}
        self._left = SEMI_JOINS_MAX

    def need(self, own: Occurrence) -> Need:
        """What rows must meet in one occurrence."""
        table, self._left = own.table, SEMI_JOINS_MAX
        conditions = self._conditions(own, table, ())
        links = list(self._links(own))
        if self._subqueries is not None:
            is_clear = self._subqueries.is_as_meant
            conditions = [each for each in conditions if is_clear(table, each)]
            links = [each for each in links if is_clear(table, each.semi_join)]
        return Need(tuple(conditions), tuple(links))

    def _links(self, own: Occurrence) -> Iterator[Link]:
        """The partners elsewhere, and those of rows beside."""
        table = own.table
        partners = self._partners_of(own)
        for partner in partners.occurrences:
            if partner.other not in self._shipped:
                continue
            if _is_beside(own, partner):
                yield from self._links_beside(own, partner)
            else:
                semi_join = self._semi_join(table, partner, (own,), is_wanted=True)
                yield _link(partner, semi_join)
        yield from self._links_to_made(own, table)

    def _links_beside(self, own: Occurrence, beside: Partner) -> Iterator[Link]:
        """The partners elsewhere of a row beside."""
        path = (own, beside.other)
        alias = beside.other.table.alias(f"{ALIAS}{len(path) - 1}")
        links: list[Link] = []
        for partner in self._partners_of(beside.other).occurrences:
            if partner.other in path or partner.other not in self._shipped or self._left <= 0:
                continue
            if not _is_beside(beside.other, partner):
                semi_join = self._semi_join(alias, partner, path, is_wanted=True)
                links.append(_link(partner, semi_join))
        links += self._links_to_made(beside.other, alias)
        for link in links:
            there_is = self._semi_join(own.table, beside, (own,), is_wanted=True, alias=alias)
            way = Way(beside.other.table, alias, there_is)
            yield link._replace(semi_join=there_is.where(link.semi_join), way=way)

    def _links_to_made(self, own: Occurrence, target: FromClause) -> Iterator[Link]:
        """What shards make of blocks, of which other shards may have the rows that matter."""
        for made, pairs, _, inside in self._partners_of(own).made:
            if not is_made_beside(own, inside):
                yield Link(made.part.name, pairs, made.has_partner(target, pairs))

    def filters(self, occurrence: Occurrence) -> list[Any]:
        """The filters of an occurrence that have the statement's own parameters."""
        if occurrence not in self._filters:
            found = filters_of(occurrence, self._subqueries)
            self._filters[occurrence] = [
                each for each in found if _has_values(each, self._compiled)
            ]
        return self._filters[occurrence]

    def _conditions(
        self, own: Occurrence, target: FromClause, path: tuple[Occurrence, ...]
    ) -> list[Any]:
        """What a shard can look at by itself of an occurrence's rows.

        :param target: the table, or an alias of it, that the columns are taken from.
        :param path: what led here; none: these are the rows themselves.
        """
        # Conditions that ask for a row of where it came from are left out: it is there.
        around = {each.scope.select for each in path}
        told = [
            each
            for each in self.filters(own)
            if not asks_for_row(each) or around.isdisjoint(iterate(each))
        ]
        if path:
            told = [each for each in told if self._is_certain_of_shipped(own, each)]
        written = [(id(each), self._about(target, own, each)) for each in told]
        found = [condition for _, condition in written if condition is not None]
        asked = {key for key, condition in written if condition is not None}
        return found + self._semi_joins(own, target, (*path, own), asked)

    def _is_certain_of_shipped(self, own: Occurrence, condition: Any) -> bool:
        """Whether no row is shipped at all that fails a filter, or it fails it there as well.

        One with a subquery it might meet there, if rows that the subquery looks at were left since
        the row fails it: as NOT EXISTS.
        """
        if self._subqueries is None or not has_subquery(condition):
            return True
        if list(self._found.get(own.table, ())) != [own]:
            return False  # rows come because of other occurrences, too
        written = self._about(own.table, own, condition)
        return written is not None and self._subqueries.is_as_meant(own.table, written)

    def _about(self, target: FromClause, own: Occurrence, condition: Any) -> Any:
        if self._subqueries is not None and has_subquery(condition):
            return self._subqueries.about(target, own.element, condition)
        return _about(target, condition)

    def _partners_of(self, own: Occurrence) -> Partners:
        if self._made is None:
            return Partners()
        if own not in self._partners:
            self._partners[own] = partners_of(own, self._made)
        return self._partners[own]

    def _semi_joins(
        self,
        own: Occurrence,
        target: FromClause,
        path: tuple[Occurrence, ...],
        told: Collection[int],
    ) -> list[Any]:
        """Where rows lie beside their partners: the conditions that there is one.

        :param told: ids of conditions that are asked as they are.
        """
        partners = self._partners_of(own) if len(path) <= DEPTH_MAX else Partners()
        found = [
            self._semi_join(target, partner, path)
            for partner in partners.occurrences
            if partner.other not in path
            and id(partner.condition) not in told
            and _is_beside(own, partner)
        ]
        found += [
            made.has_partner(target, pairs)
            for made, pairs, condition, inside in partners.made
            if id(condition) not in told and is_made_beside(own, inside)
        ]
        return [each for each in found if each is not None]

    def _semi_join(
        self,
        target: FromClause,
        partner: Partner,
        path: tuple[Occurrence, ...],
        *,
        is_wanted: bool = False,
        alias: FromClause | None = None,
    ) -> Any:
        """The condition that there is a partner; None: any row may be one, as far as is known.

        :param is_wanted: even then.
        :param alias: what the partner is called in it.
        """
        other = partner.other
        if alias is None:
            alias = other.table.alias(f"{ALIAS}{len(path)}")
        filters = self._conditions(other, alias, path)
        if not is_wanted and (not filters or self._left <= 0):
            return None
        self._left -= 1
        equal: list[Any] = [
            BinaryExpression(target.c[mine], alias.c[its], operators.eq)
            for mine, its in partner.pairs
        ]
        found: Any = select(literal_column("1")).select_from(alias).where(*equal, *filters)
        return exists(_compat.without_orm(found.correlate(target)))


def _link(partner: Partner, semi_join: Any) -> Link:
    table = partner.other.table
    pairs = tuple((mine, table.c[its].name) for mine, its in partner.pairs)
    return Link(table.name, pairs, semi_join)


def _is_beside(own: Occurrence, partner: Partner) -> bool:
    """Whether all rows that may be a row's partners are on its shard."""
    other = partner.other
    if own.source is not None and other.source is not None:
        return lies_beside(own.source, other.source, partner.pairs)
    if isinstance(other.distribution, Reference):
        return True
    return isinstance(own.distribution, Global) and isinstance(other.distribution, Global)


def _has_values(condition: Any, compiled: SQLCompiler) -> bool:
    """Whether all parameters of a condition are those of the statement, not copies."""
    return all(
        node in compiled.bind_names
        for node in iterate(condition)
        if isinstance(node, BindParameter)
    )


def _about(target: FromClause, condition: Any) -> Any:
    """A filter with the columns of an occurrence taken from the table, or from another alias."""

    def replace(node: Any, **_: Any) -> Any:
        if isinstance(node, BindParameter):
            return node
        if isinstance(node, ColumnClause) and not node.is_literal and node.table is not None:
            return target.c[node.key]
        return None

    condition = _compat.replaceable(condition)
    about: Any = replacement_traverse(condition, {}, replace)  # type: ignore[call-overload]
    return about
