"""What a generated SELECT can name: fields of known kinds, of sources that are in scope."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Float,
    Integer,
    Interval,
    Numeric,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tests.properties.world import (
    Country,
    Document,
    Event,
    Flag,
    Note,
    Order,
    Page,
    Sample,
    Store,
    User,
    Vehicle,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODELS = (
    User,
    Order,
    Event,
    Note,
    Store,
    Document,
    Page,
    Country,
    Flag,
    Sample,
    Vehicle,
    User,
    Order,
    Order,
)

TIES: dict[type[Any], tuple[str, tuple[str, ...]]] = {
    User: ("default", ("id",)),
    Order: ("default", ("user_id",)),
    Note: ("default", ("user_id",)),
    Sample: ("default", ("user_id",)),
    Vehicle: ("default", ("owner_id",)),
    Document: ("pairs", ("tenant", "weight")),
    Page: ("pairs", ("tenant", "weight")),
}
"""Keyspace and shard key, of tables that are co-located with another."""

SHARD_KEYS: dict[type[Any], tuple[str, ...]] = {
    **{model: key for model, (_, key) in TIES.items()},
    Event: ("year",),
    Store: ("region",),
}

KINDS: dict[str, str] = {
    **dict.fromkeys("small score amount size rank number wheels year".split(), "int"),
    **dict.fromkeys("id user_id owner_id document_id".split(), "int"),
    **dict.fromkeys("name code title body region tenant country_code kind".split(), "text"),
    "large": "big",
    "price": "num",
    "weight": "num",
    "cost": "num",
    "ratio": "float",
    "born": "date",
    "seen": "time",
    "at": "moment",
    "token": "uuid",
    "active": "bool",
    "info": "json",
    "tags": "array",
    "took": "interval",
}
"""Attributes -> the kind of their values."""

TYPES: dict[str, Any] = {
    "int": BigInteger,
    "big": BigInteger,
    "num": Numeric,
    "text": Text,
    "float": Float(53),
    "date": Date,
    "time": DateTime,
    "moment": DateTime(timezone=True),
    "uuid": Uuid,
    "bool": Boolean,
    "json": JSONB,
    "array": ARRAY(Text),
    "interval": Interval,
    "small": Integer,
}

NUMBERS = ("int", "num", "big")
ORDERED = ("int", "num", "text", "big", "date", "time", "moment", "uuid", "bool", "interval")
COMPARED = (*ORDERED, "float", "json", "array")
"""Kinds with equality."""

UNSTABLE = ("num", "float")
"""Kinds of which values may be equal and look different."""


@dataclass(frozen=True)
class Field:
    """An expression and the kind of its values.

    :param place: the column of the SELECT that shows it, if one does.
    """

    expression: Any
    kind: str
    place: int | None = None


@dataclass
class Source:
    """What stands in a FROM list.

    :param keys: expressions that together tell its rows apart; None: none are known.
    :param model: of a table.
    """

    element: Any
    fields: list[Field]
    keys: list[Any] | None = None
    model: type[Any] | None = None
    get: Callable[[str], Any] | None = None


@dataclass
class Scope:
    """The sources of one SELECT, and those of the SELECTs around it."""

    sources: list[Source] = field(default_factory=list)
    outer: Scope | None = None

    @property
    def fields(self) -> list[Field]:
        """All fields of its own sources."""
        return [each for source in self.sources for each in source.fields]

    def tiebreak(self) -> list[Any]:
        """Expressions that tell all rows apart that differ."""
        found: list[Any] = []
        for source in self.sources:
            keys = source.keys
            found += [f.expression for f in source.fields] if keys is None else keys
        return found

    def shard_keys(self) -> list[list[Any]]:
        """The shard keys of its sources that have one."""
        return [
            [source.get(name) for name in SHARD_KEYS[source.model]]
            for source in self.sources
            if source.model in SHARD_KEYS and source.get is not None
        ]

    def around(self) -> list[Any]:
        """Elements of all SELECTs around this one."""
        found: list[Any] = []
        scope = self.outer
        while scope is not None:
            found += [source.element for source in scope.sources]
            scope = scope.outer
        return found


@dataclass
class Query:
    """A SELECT that can still be ordered and cut.

    :param columns: names and kinds of its columns.
    :param candidates: what it may be ordered by.
    :param tiebreak: what orders it totally.
    :param is_open: columns may be added, as sort keys are.
    """

    statement: Any
    columns: list[tuple[str, str]]
    candidates: list[Field]
    tiebreak: list[Any]
    is_open: bool = False
    keys: list[str] | None = None


def of_kind(fields: Sequence[Field], kinds: Sequence[str]) -> list[Field]:
    """Those of some kinds."""
    return [each for each in fields if each.kind in kinds]
