"""What it takes to understand an expression of one scope: its columns and its values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.sql.elements import (
    BindParameter,
    Cast,
    ColumnClause,
    False_,
    Grouping,
    True_,
    TypeCoerce,
)

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.generated_id import carries_bucket
from sqlalchemy_shards.models.key_types import KeyFamily, key_type_of

from .conditions import Constant, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Dialect

    from sqlalchemy_shards.models.key_types import KeyType

    from .scopes import Place, Scope, Source

_NUMBERS: Final = frozenset({KeyFamily.INTEGER, KeyFamily.NUMERIC})


class KeyPart(NamedTuple):
    """A column that is a part of a source's shard key, or equals one."""

    part: int
    family: KeyFamily


@dataclass(frozen=True, slots=True)
class Surrounding:
    """What is the same for all expressions of a statement.

    :param bind_names: bind parameter -> its name in the compiled statement.
    :param orders_by_code_point: whether a text column certainly sorts as Python strings do.
    """

    sources: list[Source]
    bind_names: Mapping[Any, str]
    dialect: Dialect
    orders_by_code_point: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Reading:
    """A scope's expressions, read as conditions.

    :param equal: column -> the columns that equal it in every row that matters.
    :param looks_outside: conditions on rows of enclosing scopes are wanted, not of this one.
    """

    scope: Scope
    around: Surrounding
    equal: Mapping[Any, Sequence[Any]] = field(default_factory=dict)
    looks_outside: bool = False

    @property
    def sources(self) -> list[Source]:
        """All sources of the statement."""
        return self.around.sources

    def inside(self, select: Scope, equal: Mapping[Any, Sequence[Any]]) -> Reading:
        """The same for the expressions of a subquery, about the rows outside it."""
        return replace(self, scope=select, equal=equal, looks_outside=True)

    def means_the_same(self, column: Any, select: Scope) -> bool:
        """Whether a column inside a subquery is the one that it is outside.

        It is not where the subquery has the same table in its own FROM list.
        """
        return self.scope.holder_of(column) is select.holder_of(column)

    def equal_classes(self) -> Iterable[Sequence[Any]]:
        """The columns that are equal to each other, each class of them once."""
        return {id(each): each for each in self.equal.values()}.values()

    def equal_pairs_inside(self, select: Scope) -> Iterator[tuple[Any, Any]]:
        """Columns that are known to be equal, and still are inside a subquery."""
        for columns in self.equal_classes():
            yield from pairwise(each for each in columns if self.means_the_same(each, select))

    def places(self, expression: Any) -> tuple[Place, ...]:
        """The places of a plain column."""
        return self.scope.places(expression)

    def part_of(self, source: int, expression: Any) -> KeyPart | None:
        """Which part of the source's shard key a plain column is, or equals."""
        for place in self._places_of(source, expression):
            if place.part is not None:
                return KeyPart(place.part, self.sources[source].families[place.part])
        return None

    def is_generated_id_of(self, source: int, expression: Any) -> bool:
        """Whether a plain column holds ids that carry the bucket of the source's key."""
        table = self.sources[source].table
        return any(
            place.part is None and carries_bucket(table.c[place.column].type)
            for place in self._places_of(source, expression)
        )

    def _places_of(self, source: int, expression: Any) -> Iterator[Place]:
        if not isinstance(expression, ColumnClause):
            return
        for column in (expression, *self.equal.get(expression, ())):
            for place in self.places(column):
                is_wanted = place.is_shown if self.looks_outside else place.is_direct
                if place.source == source and is_wanted:
                    yield place

    def parameter(self, expression: Any, family: KeyFamily) -> Parameter | Constant | None:
        """The value that an expression is, if it compares with the family without being changed.

        A whole number and a number with a point compare exactly; no other two families do.
        """
        if isinstance(expression, (True_, False_)) and family is KeyFamily.BOOLEAN:
            return Constant(isinstance(expression, True_))
        bind, key_type = self._bind(expression)
        if bind is None or key_type is None or _compat.is_expanding(bind):
            return None
        name = self.around.bind_names.get(bind)
        if name is None:
            return None
        return compared_with(Parameter(name, key_type), family)

    def items_parameter(
        self, bind: BindParameter[Any], type_: Any, family: KeyFamily, item: int | None = None
    ) -> Parameter | None:
        """A parameter that holds several values of a type, likewise.

        :param item: which item of its rows is compared, where it holds rows.
        """
        name = self.around.bind_names.get(bind)
        key_type = key_type_of(type_, self.around.dialect)
        if name is None or key_type is None:
            return None
        return compared_with(Parameter(name, key_type, item=item), family)

    def _bind(self, expression: Any) -> tuple[BindParameter[Any] | None, KeyType | None]:
        """The bind parameter that an expression is, and the type that its value has in the end."""
        expression = ungrouped(expression)
        if isinstance(expression, TypeCoerce):
            expression = expression.typed_expression
        if isinstance(expression, BindParameter):
            return expression, key_type_of(expression.type, self.around.dialect)
        if isinstance(expression, Cast):
            inner, inner_type = self._bind(expression.clause)
            cast_type = key_type_of(expression.type, self.around.dialect)
            if inner_type is not None and cast_type is not None:
                # A cast within the family changes no value that the type can hold.
                is_same = inner_type.family is cast_type.family
                return (inner, cast_type) if is_same else (None, None)
        return None, None


def compared_with(parameter: Parameter, family: KeyFamily) -> Parameter | None:
    """A parameter as it is compared with a column of a family; None: that may change values."""
    given = parameter.key_type.family
    if given is family:
        return parameter
    return replace(parameter, compared_as=family) if {given, family} == _NUMBERS else None


def ungrouped(expression: Any) -> Any:
    """An expression without the parentheses around it."""
    while isinstance(expression, Grouping):
        expression = expression.element
    return expression
