"""What a row of a table must meet to be shipped, from the occurrences of the table.

A row matters if it matters in any occurrence. In one occurrence it must meet the filters and have
its partners. That it has a partner can be told on its own shard if all rows that may be partners
lie there: they lie beside it by the shard key, or are those of a reference table, which is on every
shard. For other partners a *link* is kept: which rows they are is known in an execution only.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, exists, literal_column, or_
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ColumnClause
from sqlalchemy.sql.visitors import iterate, replacement_traverse

from sqlalchemy_shards.models.distribution import (
    Global,
    Reference,
    Sharded,
    anchor_of,
    distribution_of,
    identity_of,
    key_columns,
)
from sqlalchemy_shards.models.key_types import key_type_of_column

from .partners import partners_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import FromClause

    from .filters import Occurrence
    from .partners import Partner

DEPTH_MAX: Final = 3
"""A partner's own partners are asked for so many steps away."""

SEMI_JOINS_MAX: Final = 8
"""No more of them stand in what must be met in one occurrence."""

ALIAS: Final = "shards_partner_"
"""How the names of partners begin in the SQL that ships rows."""


NOTHING: Final[Mapping[int, Sequence[Any]]] = MappingProxyType({})


class Link(NamedTuple):
    """A partner whose rows may lie on another shard.

    :param partner: the table that the partner's rows are of.
    :param pairs: keys of the columns that equal each other: one's own, and the partner's.
    :param semi_join: the condition that a row has the partner, for where all its rows lie.
    """

    partner: Table
    pairs: tuple[tuple[str, str], ...]
    semi_join: Any


class Need(NamedTuple):
    """What a row must meet to matter in one occurrence of its table.

    :param conditions: what its shard can look at by itself.
    """

    conditions: tuple[Any, ...]
    links: tuple[Link, ...] = ()


def needs_of(
    found: Mapping[Table, Sequence[Occurrence]], compiled: SQLCompiler, *, has_partners: bool
) -> Mapping[Table, tuple[Need, ...]]:
    """What rows of each table must meet, for each of its occurrences.

    :param has_partners: these are all occurrences of all tables, so that partners can be found
        among them.
    """
    writer = _Writer(compiled, has_partners=has_partners)
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

    def __init__(self, compiled: SQLCompiler, *, has_partners: bool) -> None:
        self._compiled = compiled
        self._has_partners = has_partners
        self._partners: dict[Occurrence, list[Partner]] = {}
        self._left = SEMI_JOINS_MAX

    def need(self, own: Occurrence) -> Need:
        """What rows must meet in one occurrence."""
        table, self._left = own.table, SEMI_JOINS_MAX
        filters = [_about(table, each) for each in self.filters(own)]
        beside = self._semi_joins(own, table, (own,))
        links = [
            Link(
                partner.other.table,
                partner.pairs,
                self._semi_join(table, partner, (own,), is_wanted=True),
            )
            for partner in self._partners_of(own)
            if not self._lies_beside(own, partner)
        ]
        return Need((*filters, *beside), tuple(links))

    def filters(self, occurrence: Occurrence) -> list[Any]:
        """The filters of an occurrence that have the statement's own parameters."""
        return [each for each in occurrence.filters if _has_values(each, self._compiled)]

    def _partners_of(self, own: Occurrence) -> list[Partner]:
        if not self._has_partners:
            return []
        if own not in self._partners:
            self._partners[own] = partners_of(own)
        return self._partners[own]

    def _semi_joins(
        self, own: Occurrence, target: FromClause, path: tuple[Occurrence, ...]
    ) -> list[Any]:
        """Where rows lie beside their partners: the conditions that there is one."""
        found = [
            self._semi_join(target, partner, path)
            for partner in (self._partners_of(own) if len(path) <= DEPTH_MAX else ())
            if partner.other not in path and self._lies_beside(own, partner)
        ]
        return [each for each in found if each is not None]

    def _semi_join(
        self,
        target: FromClause,
        partner: Partner,
        path: tuple[Occurrence, ...],
        *,
        is_wanted: bool = False,
    ) -> Any:
        """The condition that there is a partner; None: any row may be one, as far as is known.

        :param is_wanted: even then.
        """
        other = partner.other
        alias = other.table.alias(f"{ALIAS}{len(path)}")
        filters = [_about(alias, each) for each in self.filters(other)]
        filters += self._semi_joins(other, alias, (*path, other))
        if not is_wanted and (not filters or self._left <= 0):
            return None
        self._left -= 1
        equal: list[Any] = [
            BinaryExpression(target.c[mine], alias.c[its], operators.eq)
            for mine, its in partner.pairs
        ]
        found = exists(literal_column("1")).select_from(alias).where(*equal, *filters)
        return found.correlate(target)

    def _lies_beside(self, own: Occurrence, partner: Partner) -> bool:
        """Whether all rows that may be a row's partners are on its shard."""
        one, other = distribution_of(own.table), distribution_of(partner.other.table)
        if isinstance(other, Reference):
            return True
        if isinstance(one, Sharded) and isinstance(other, Sharded):
            return self._is_same_key(own.table, partner, one, other) or _is_same_anchor(
                own.table, partner, one, other
            )
        return isinstance(one, Global) and isinstance(other, Global)

    def _is_same_key(self, table: Table, partner: Partner, one: Sharded, other: Sharded) -> bool:
        """Whether what is equal is the whole shard key of both."""
        if one.beside or other.beside or one.keyspace != other.keyspace:
            return False
        keys = [key_columns(table, one), key_columns(partner.other.table, other)]
        families = [
            [key_type_of_column(column, self._compiled.dialect).family for column in key]
            for key in keys
        ]
        return families[0] == families[1] and set(partner.pairs).issuperset(
            zip(one.key, other.key, strict=True)
        )


def _is_same_anchor(table: Table, partner: Partner, one: Sharded, other: Sharded) -> bool:
    """Whether what is equal names one row, beside which both rows lie, or which is one of them."""
    if anchor_of(table, one) is not anchor_of(partner.other.table, other):
        return False
    named = [identity_of(table, one), identity_of(partner.other.table, other)]
    return bool(named[0]) and set(partner.pairs).issuperset(zip(*named, strict=True))


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

    about: Any = replacement_traverse(condition, {}, replace)  # type: ignore[call-overload]
    return about
