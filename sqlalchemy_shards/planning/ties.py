"""Parts of a gather that hang on other parts: which of their rows matter follows from the others'.

A *tie* says: a row of one part matters, in one occurrence of its table, only if it equals some row
of the other part. Where all rows of the other part lie on one shard, this shard looks itself; to
other shards the keys that it has shipped are given, as one array.

SQL before:  SELECT ... FROM products
SQL after:   SELECT ... FROM products
             WHERE products.id = ANY (CAST(CAST(:shards_keys_0_0 AS text[]) AS bigint[]))
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Text, and_, any_, bindparam, cast, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.types import NullType, UserDefinedType

from sqlalchemy_shards import _compat

from .narrowing import condition_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Column, Table
    from sqlalchemy.sql.elements import BindParameter
    from sqlalchemy.sql.selectable import FromClause, Select

    from sqlalchemy_shards.catalog.columns import ColumnType

    from .narrowing import Link, Need
    from .parts import Part


class Key(NamedTuple):
    """A column by whose values rows are chosen.

    :param column: of the table whose rows are compared with the values.
    :param place: which column of the other part holds the values.
    :param parameter: stands for them: an array of text.
    :param condition: that a row has one of them.
    """

    column: Column[Any]
    place: int
    parameter: BindParameter[Any]
    condition: Any


class Tie(NamedTuple):
    """Rows of one part that matter only if they equal rows of another one.

    :param part: index of the part.
    :param need: number of the occurrence of its table.
    :param other: index of the other part.
    :param semi_join: the condition, for where all rows of the other part lie.
    :param keys: the columns that are equal; none: their values cannot be given elsewhere.
    :param condition: that a row has keys, or the row beside it has that is another one's partner.
    """

    part: int
    need: int
    other: int
    semi_join: Any
    keys: tuple[Key, ...]
    condition: Any


class Ties:
    """What hangs on what, among parts.

    :param tables: those whose rows the first parts are.
    :param needs: what the rows of each of these must meet.
    :param parts: all of them.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        needs: Sequence[Sequence[Need]],
        parts: Sequence[Part],
    ) -> None:
        self._tables = tables
        self._needs = needs
        self.all: tuple[Tie, ...] = tuple(self._found(parts))

    def _found(self, parts: Sequence[Part]) -> Iterator[Tie]:
        tables, count = self._tables, 0
        names = [part.name for part in parts]
        for index, needs in enumerate(self._needs):
            for number, need in enumerate(needs):
                for link in need.links:
                    other = names.index(link.partner)
                    at = index if link.way is None else tables.index(link.way.table)
                    keys = _keys(count, tables[at], parts[at], parts[other], link)
                    condition: Any = and_(true(), *(key.condition for key in keys))
                    if link.way is not None:
                        condition = link.way.exists.where(condition)
                    yield Tie(index, number, other, link.semi_join, keys, condition)
                    count += 1

    def is_narrowed(self, part: int, ties: Sequence[Tie]) -> bool:
        """Whether rows of a part need not be shipped if it hangs on others by these ties."""
        told = {tie.need for tie in ties}
        needs = self._needs[part]
        return all(need.conditions or number in told for number, need in enumerate(needs))

    def needs_all_rows(self, part: int) -> list[bool]:
        """For each occurrence of a part's table, whether any row may matter, without its ties."""
        return [not need.conditions for need in self._needs[part]]

    def rows_of_need(self, index: int, need: int, part: Part) -> Select[Any]:
        """Read of a part the rows that matter in one occurrence of its table."""
        return self._where(index, part, condition_of([self._needs[index][need]]))

    def values_compared(self, number: int) -> Select[Any]:
        """The different values that are compared with the keys of a tie.

        Of all rows: a condition leaves rows where they are, and seldom values.
        """
        return select(*(key.column for key in self.all[number].keys)).distinct()

    def rows(
        self, index: int, part: Part, beside: Sequence[Tie], lists: Sequence[Tie]
    ) -> Select[Any]:
        """Read of a part the rows that matter, as far as a shard can be told.

        :param beside: ties to parts whose rows all lie on the shard.
        :param lists: ties to parts whose keys are given.
        """
        further: defaultdict[int, list[Any]] = defaultdict(list)
        for tie in beside:
            further[tie.need].append(tie.semi_join)
        for tie in lists:
            further[tie.need].append(tie.condition)
        return self._where(index, part, condition_of(self._needs[index], further))

    def _where(self, index: int, part: Part, condition: Any) -> Select[Any]:
        rows = select(*_compat.column_list(part.rows)).select_from(self._tables[index])
        return _compat.without_orm(rows if condition is None else rows.where(condition))


def _keys(number: int, at: Table, own: Part, other: Part, link: Link) -> tuple[Key, ...]:
    """The columns of a link whose values can be given as keys.

    :param at: the table whose rows have the partner: a part's own, or one beside it.
    :param own: the part that has rows of that table.
    """
    found: list[Key] = []
    columns: FromClause = at if link.way is None else link.way.alias
    for mine, its in link.pairs:
        column = at.c[mine].name
        if its not in other.columns or column not in own.columns:
            continue
        place = other.columns.index(its)
        type_, own_type = other.types[place], own.types[own.columns.index(column)]
        is_collated_otherwise = type_.collation not in (None, own_type.collation)
        if type_.base.endswith("[]") or is_collated_otherwise:
            continue
        parameter: BindParameter[Any] = bindparam(
            f"shards_keys_{number}_{len(found)}", type_=NullType()
        )
        values = cast(cast(parameter, ARRAY(Text)), _ArrayOf(type_))
        is_one: Any = BinaryExpression(columns.c[mine], any_(values), operators.eq)
        found.append(Key(at.c[mine], place, parameter, is_one))
    return tuple(found)


class _ArrayOf(UserDefinedType[Any]):
    """An array of values of a type that the catalog names."""

    cache_ok = False

    def __init__(self, type_: ColumnType) -> None:
        self._sql = type_.sql

    def get_col_spec(self, **_: Any) -> str:
        return f"{self._sql}[]".replace("%", "%%")
