"""The values of one execution, as routing reads them: what the driver will be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY

from sqlalchemy_shards.models.key_types import NotOfFamily
from sqlalchemy_shards.routing.conditions import UnknownValue, UnusableValue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy.sql.compiler import SQLCompiler

    from sqlalchemy_shards.routing.conditions import Parameter

    Processors = Mapping[str, Callable[[Any], Any]]


class ExecutionValues:
    """Reads parameters of one parameter set.

    :param parameters: bind name -> value before bind processing.
    :param processors: bind name -> what the column's type does to a value before it is sent.
    """

    __slots__ = ("parameters", "processors")

    def __init__(self, parameters: Mapping[str, Any], processors: Processors) -> None:
        self.parameters = parameters
        self.processors = processors

    def one(self, parameter: Parameter) -> Any:
        """The value as the column stores it, None for NULL. Raises `UnusableValue`."""
        if parameter.name not in self.parameters:
            raise UnknownValue(parameter.name)
        return self._stored(parameter, self.parameters[parameter.name])

    def many(self, parameter: Parameter) -> Sequence[Any]:
        """The values of an expanding parameter, without NULLs. Raises `UnusableValue`."""
        values = self.parameters.get(parameter.name)
        if not isinstance(values, (list, tuple, set, frozenset)):
            raise UnusableValue(type(values).__name__)
        plain = self.plain(parameter, values)
        if plain is not None:
            return plain
        stored = (self._stored(parameter, value) for value in values)
        return [value for value in stored if value is not None]

    def plain(self, parameter: Parameter, values: Collection[Any]) -> Sequence[Any] | None:
        """Values that are stored as they are, without NULLs; None: they are to be looked at."""
        plain = [value for value in values if value is not None]
        if parameter.slot in self.processors:
            return None
        return plain if set(map(type, plain)) <= {parameter.key_type.plain_type} else None

    def rows(self, parameters: Sequence[Parameter]) -> Sequence[tuple[Any, ...]]:
        """The items of an expanding parameter's rows, None for NULL. Raises `UnusableValue`."""
        rows = self.parameters.get(parameters[0].name)
        if not isinstance(rows, (list, tuple, set, frozenset)):
            raise UnusableValue(type(rows).__name__)
        try:
            return [
                tuple(self._stored(each, row[each.item]) for each in parameters) for row in rows
            ]
        except (TypeError, LookupError):
            raise UnusableValue("row") from None

    def _stored(self, parameter: Parameter, value: Any) -> Any:
        processor = self.processors.get(parameter.slot)
        if processor is not None:
            value = processor(value)
        if value is None:
            return None
        try:
            return parameter.key_type.stored_value(value)
        except NotOfFamily as reason:
            raise UnusableValue(type(value).__name__, str(reason)) from None


def processors_of(
    compiled: SQLCompiler, parameters: Sequence[Parameter | None]
) -> dict[str, Callable[[Any], Any]]:
    """The bind processors of the parameters that routing reads, where there are any."""
    found: dict[str, Callable[[Any], Any]] = {}
    for parameter in parameters:
        bind = compiled.binds.get(parameter.name) if parameter is not None else None
        if parameter is None or bind is None:
            continue
        type_ = _type_of_values(bind.type, parameter)
        processor = type_.dialect_impl(compiled.dialect).bind_processor(compiled.dialect)
        if processor is not None:
            found[parameter.slot] = processor
    return found


def _type_of_values(type_: Any, parameter: Parameter) -> Any:
    """The type of the values that a parameter holds: of an array, its items."""
    if parameter.item is not None:
        return type_.types[parameter.item]
    return type_.item_type if isinstance(type_, ARRAY) else type_
