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

from sqlalchemy import Text, any_, bindparam, cast, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.types import NullType, UserDefinedType

from sqlalchemy_shards import _compat

from .narrowing import condition_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Table
    from sqlalchemy.sql.elements import BindParameter
    from sqlalchemy.sql.selectable import Select

    from sqlalchemy_shards.catalog.columns import ColumnType

    from .narrowing import Link, Need
    from .parts import Part


class Key(NamedTuple):
    """A column by whose values rows are chosen.

    :param place: which column of the other part holds the values.
    :param parameter: stands for them: an array of text.
    :param condition: that a row has one of them.
    """

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
    """

    part: int
    need: int
    other: int
    semi_join: Any
    keys: tuple[Key, ...]


class Ties:
    """What hangs on what, among parts that are rows of tables.

    :param tables: those of the parts.
    :param needs: what the rows of each part must meet.
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
        for index, needs in enumerate(self._needs):
            for number, need in enumerate(needs):
                for link in need.links:
                    other = tables.index(link.partner)
                    keys = _keys(count, tables[index], parts[index], parts[other], link)
                    yield Tie(index, number, other, link.semi_join, keys)
                    count += 1

    def is_narrowed(self, part: int, ties: Sequence[Tie]) -> bool:
        """Whether rows of a part need not be shipped if it hangs on others by these ties."""
        told = {tie.need for tie in ties}
        needs = self._needs[part]
        return all(need.conditions or number in told for number, need in enumerate(needs))

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
            further[tie.need] += [key.condition for key in tie.keys]
        condition = condition_of(self._needs[index], further)
        rows = select(*_compat.column_list(part.rows)).select_from(self._tables[index])
        return rows if condition is None else rows.where(condition)


def _keys(number: int, table: Table, own: Part, other: Part, link: Link) -> tuple[Key, ...]:
    found: list[Key] = []
    for mine, its in link.pairs:
        name, column = link.partner.c[its].name, table.c[mine]
        if name not in other.columns or column.name not in own.columns:
            continue
        place = other.columns.index(name)
        type_, own_type = other.types[place], own.types[own.columns.index(column.name)]
        is_collated_otherwise = type_.collation not in (None, own_type.collation)
        if type_.base.endswith("[]") or is_collated_otherwise:
            continue
        parameter: BindParameter[Any] = bindparam(
            f"shards_keys_{number}_{len(found)}", type_=NullType()
        )
        values = cast(cast(parameter, ARRAY(Text)), _ArrayOf(type_))
        is_one: Any = BinaryExpression(column, any_(values), operators.eq)
        found.append(Key(place, parameter, is_one))
    return tuple(found)


class _ArrayOf(UserDefinedType[Any]):
    """An array of values of a type that the catalog names."""

    cache_ok = False

    def __init__(self, type_: ColumnType) -> None:
        self._sql = type_.sql

    def get_col_spec(self, **_: Any) -> str:
        return f"{self._sql}[]".replace("%", "%%")
