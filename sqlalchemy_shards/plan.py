"""The one noun that planning and execution share: what runs where, and how it becomes one result.

Frozen data: no callables, no connections, no values of parameters.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias


class Tier(enum.Enum):
    """How much work stands between the shards' rows and the answer."""

    NO_QUERY = "no query"
    SINGLE_SHARD = "single shard"
    SCATTER = "scatter and merge"
    GATHER = "gather"
    EVERY_COPY = "every copy"


class Aggregate(enum.Enum):
    """Aggregates whose partial results can be put together exactly.

    `ANY_VALUE` stands for columns, too, that are the same in all rows of a group.
    """

    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    BOOL_AND = "bool_and"
    EVERY = "every"
    BOOL_OR = "bool_or"
    BIT_AND = "bit_and"
    BIT_OR = "bit_or"
    BIT_XOR = "bit_xor"
    ANY_VALUE = "any_value"


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of ORDER BY, as a column that the shards return.

    :param column: index of the column in the shards' rows.
    :param nulls_first: where NULLs go, PostgreSQL's default already resolved.
    :param is_byte_order: if it is text: its collation orders by code point.
    """

    column: int
    descending: bool
    nulls_first: bool
    is_byte_order: bool


@dataclass(frozen=True, slots=True)
class Window:
    """LIMIT and OFFSET of the whole result, by the names of their parameters."""

    limit: str | None = None
    offset: str | None = None


@dataclass(frozen=True, slots=True)
class Concatenate:
    """The shards' rows one after another, in no order."""

    window: Window = Window()


@dataclass(frozen=True, slots=True)
class OrderedMerge:
    """The shards' rows, each shard's in order, merged into one order.

    :param visible: how many columns the statement asked for; those behind them are sort keys.
    """

    keys: tuple[SortKey, ...]
    visible: int
    window: Window = Window()


@dataclass(frozen=True, slots=True)
class TextKey:
    """One key of ORDER BY, as a column of text that stands for a value of another type.

    :param type_sql: the type that it is read as.
    :param collation: None: that of the database, or none.
    """

    column: int
    type_sql: str
    collation: str | None
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class ForeignOrder:
    """The shards' rows, each shard's first ones, put in an order that PostgreSQL alone knows.

    :param visible: how many columns the statement asked for; those behind them are sort keys.
    """

    keys: tuple[TextKey, ...]
    visible: int
    window: Window = Window()


@dataclass(frozen=True, slots=True)
class AggregateRow:
    """One row per shard, put together column by column."""

    functions: tuple[Aggregate, ...]
    window: Window = Window()


@dataclass(frozen=True, slots=True)
class GroupKey:
    """A column by which rows are grouped, as the shards return it.

    :param is_exact_text: if it is text: only the same characters are equal.
    :param is_enum: its type is an enum.
    """

    is_exact_text: bool = False
    is_enum: bool = False


@dataclass(frozen=True, slots=True)
class GroupedMerge:
    """The shards' groups, those with equal keys made one.

    :param columns: what each column of the shards' rows is.
    :param visible: how many columns the statement asked for; those behind them are keys of groups
        or of the order.
    :param order: of the groups; none: they come in no order.
    """

    columns: tuple[GroupKey | Aggregate, ...]
    visible: int
    order: tuple[SortKey, ...] = ()
    window: Window = Window()


@dataclass(frozen=True, slots=True)
class SumOfCounts:
    """No rows: the numbers of rows that were changed add up; returned rows are concatenated."""


@dataclass(frozen=True, slots=True)
class GivenOrder:
    """The numbers of inserted rows add up; returned rows come in the order of the rows given.

    Rows that were left out, as ON CONFLICT may do, leave no trace: then shard by shard.

    :param places: for each shard, the places of its rows in the VALUES list, or of its
        parameter sets.
    """

    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class FirstCopy:
    """The same on every shard: one shard's rows and row count are the answer."""


class ShippedRows(enum.Enum):
    """Which rows of a relation are shipped."""

    ALL = "all rows"
    MATCHING = "the rows that may matter"
    GROUPS = "one row per group"
    DISTINCT = "distinct rows"
    TOTALS = "one row per shard"
    FIRST = "the first rows"


@dataclass(frozen=True, slots=True)
class Shipped:
    """One relation that is shipped.

    :param origin: what it is read from: a table, or several.
    :param shards: those that ship; of a reference table, one.
    """

    origin: str
    columns: tuple[str, ...]
    rows: ShippedRows
    shards: tuple[str, ...]


class KeyChoice(enum.Enum):
    """How keys come to the shards whose rows they choose, or why they do not."""

    SHIPPED_FIRST = "the shard with the keys ships first"
    ASKED_FIRST = "the keys are asked for first"
    TOO_MANY = "there are too many keys"
    TOO_FEW_ROWS = "too few rows could be left out"


@dataclass(frozen=True, slots=True)
class KeyList:
    """Shards that could ship only rows with one of some keys.

    :param origin: what their rows are read from.
    :param keys_origin: what the keys are read from.
    :param keys_shards: the shards that have the keys.
    :param expected_rows: what one shard expects to ship without them.
    :param expected_keys: how many keys are expected, of all shards; None: they come anyway.
    :param expected_with_keys: what one shard expects to ship with them.
    """

    origin: str
    shards: tuple[str, ...]
    keys_origin: str
    keys_shards: tuple[str, ...]
    expected_rows: int
    choice: KeyChoice = KeyChoice.SHIPPED_FIRST
    expected_keys: int | None = None
    expected_with_keys: int | None = None

    @property
    def is_given(self) -> bool:
        """Whether the keys are given to the shards."""
        return self.choice in (KeyChoice.SHIPPED_FIRST, KeyChoice.ASKED_FIRST)


@dataclass(frozen=True, slots=True)
class Gather:
    """The shards ship relations, and PostgreSQL runs the statement over them.

    :param head: what it runs, where that is another statement.
    """

    shipped: tuple[Shipped, ...]
    key_lists: tuple[KeyList, ...] = ()
    head: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """The rows that the SELECT of an INSERT gives are read, and inserted where they belong.

    :param into: all copies of a reference table, the shards of the rows' keys, or one shard.
    """

    into: str


Merge: TypeAlias = (
    "Concatenate | OrderedMerge | ForeignOrder | AggregateRow | GroupedMerge | SumOfCounts"
    " | GivenOrder | FirstCopy | Gather | Moved"
)


@dataclass(frozen=True, slots=True)
class Scatter:
    """How a statement is answered by several shards.

    :param merge: how their results become one.
    :param is_rewritten: the shards run another statement than the one given: with the limit pushed
        down and sort keys added.
    """

    merge: Merge
    is_rewritten: bool = False
