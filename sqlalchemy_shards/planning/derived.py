"""A statement that was derived from another one, compiled once, run with the other's values.

It shares the parameters of the statement it comes from, so that their values are found by identity;
nothing of the original compiled statement is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards import _compat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler


class NotRewritable(Exception):
    """The reason why no other statement can be derived from this one."""


class Derived:
    """A derived statement and how its parameters get their values.

    :param compiled: the derived statement.
    :param original: what it was derived from.
    :param names: the original's parameters and their names.
    :param own: parameters that the original does not have; their values are given by name.
    :raises NotRewritable: it has others that the original does not have.
    """

    def __init__(
        self, compiled: SQLCompiler, names: Mapping[Any, str], own: Sequence[Any] = ()
    ) -> None:
        self.compiled: Any = compiled
        if any(bind not in names and bind not in own for bind in compiled.bind_names):
            raise NotRewritable(
                "its subqueries make parameters of their own when they are compiled"
            )
        self.own = tuple(compiled.bind_names[bind] for bind in own if bind in compiled.bind_names)
        self._names = tuple(
            (name, names[bind]) for bind, name in compiled.bind_names.items() if bind not in own
        )
        self._processors = bind_processors(compiled)

    @property
    def sql(self) -> str:
        """Its SQL, with names where values go."""
        return " ".join(self.compiled.string.split())

    def values(
        self, values: Mapping[str, Any], own: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bind name -> value before bind processing, from the original's values."""
        found = {name: values[original] for name, original in self._names}
        found.update((name, (own or {}).get(name)) for name in self.own)
        return found

    def render(
        self,
        context: DefaultExecutionContext,
        values: Mapping[str, Any],
        own: Mapping[str, Any] | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """SQL text and driver parameters for one execution.

        :param values: the original's values, by the original's names.
        :param own: values of the parameters that only this statement has.
        """
        return render(self.compiled, self._processors, context, self.values(values, own))


def check_compiled_alike(statement: Any, compiled: SQLCompiler) -> None:
    """Refuse a statement that by itself is not the SQL that was made of it.

    :raises NotRewritable: something else had a part in it, which would be missing.
    """
    if compiled_with(statement, compiled).string != compiled.string:
        raise NotRewritable("options such as with_loader_criteria() reach into its subqueries")


def compiled_with(statement: Any, original: SQLCompiler) -> Any:
    """A statement, compiled as another one was."""
    translation: Any = original.schema_translate_map
    return statement.compile(
        dialect=original.dialect,
        **({"schema_translate_map": translation} if translation else {}),
    )


def bind_processors(compiled: SQLCompiler) -> Mapping[str, Callable[[Any], Any]]:
    """What is done to parameters, by name, before they are sent; lists excepted."""
    dialect = compiled.dialect
    return {
        name: processor
        for bind, name in compiled.bind_names.items()
        if (processor := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
    }


def render(
    compiled: Any,
    processors: Mapping[str, Callable[[Any], Any]],
    context: DefaultExecutionContext,
    parameters: Mapping[str, Any],
) -> tuple[str, dict[str, Any]]:
    """SQL text and driver parameters of a compiled statement.

    :param processors: its `bind_processors`.
    :param parameters: the values of its parameters, not processed yet.
    """
    statement, values, escaped = compiled.string, parameters, compiled.escaped_bind_names or {}
    names = compiled.bind_names.values()
    is_expanded = compiled.post_compile_params or compiled.literal_execute_params
    if is_expanded or escaped or not parameters.keys() >= set(names):
        state = compiled.construct_expanded_state(parameters)
        statement, values, names = state.statement, state.parameters, state.parameters.keys()
        processors = {**processors, **state.processors}
    sql = _compat.translated_statement(context, compiled, statement)
    return sql, {
        escaped.get(name, name): processors[name](values[name])
        if name in processors
        else values[name]
        for name in names
    }
