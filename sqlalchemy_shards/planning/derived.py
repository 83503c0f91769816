"""A statement that was derived from another one, compiled once, run with the other's values.

It shares the parameters of the statement it comes from, so that their values are found by identity;
nothing of the original compiled statement is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import UpdateBase

from sqlalchemy_shards import _compat

from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import BindParameter


class Derived:
    """A derived statement and how its parameters get their values.

    :param compiled: the derived statement.
    :param original: what it was derived from.
    :param names: the original's parameters and their names.
    :param own: parameters that the original does not have; their values are given by name.
    :raises Refusal: it has others that the original does not have, but for those that types make.
    """

    def __init__(
        self, compiled: SQLCompiler, names: Mapping[Any, str], own: Sequence[Any] = ()
    ) -> None:
        self.compiled: Any = compiled
        given = {*names, *own}
        made = {bind: name for bind, name in compiled.bind_names.items() if bind not in given}
        if any(not _is_constant(bind, compiled) for bind in made):
            raise Refusal("its subqueries make parameters of their own when they are compiled")
        self.own = tuple(compiled.bind_names[bind] for bind in own if bind in compiled.bind_names)
        self._names = tuple(
            (name, names[bind]) for bind, name in compiled.bind_names.items() if bind in names
        )
        self._constants = {name: bind.value for bind, name in made.items()}
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
        found.update(self._constants)
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


def _is_constant(bind: BindParameter[Any], compiled: Any) -> bool:
    """Whether a parameter was made by a type's `bind_expression()`, the same each time."""
    is_of_type = bind in compiled.wrapped_binds
    return is_of_type and bind.callable is None and not bind.required and not bind.expanding


def check_compiled_alike(statement: Any, compiled: SQLCompiler) -> None:
    """Refuse a statement that by itself is not the SQL that was made of it.

    :raises Refusal: something else had a part in it, which would be missing.
    """
    if compiled_with(statement, compiled).string != compiled.string:
        raise Refusal("options such as with_loader_criteria() reach into its subqueries")


def inherited_value(
    bind: BindParameter[Any], original: SQLCompiler, values: Mapping[str, Any]
) -> Any:
    """The value of a derived statement's parameter, where others of its own may be among them.

    :param values: the original's, before bind processing, by name.
    :raises Refusal: it has none.
    """
    name = original.bind_names.get(bind)
    if name is None and not bind.unique and bind.key in values:
        name = bind.key
    if name is not None:
        return values[name]
    if bind.required:
        raise Refusal(f"it has a parameter {bind.key!r} without a value")
    return bind.effective_value


def compiled_with(statement: Any, original: SQLCompiler, dialect: Dialect | None = None) -> Any:
    """A statement, compiled as another one was.

    :param dialect: if not with the other's.
    """
    translation: Any = original.schema_translate_map
    keys = original.column_keys if isinstance(statement, UpdateBase) else None
    return statement.compile(
        dialect=dialect or original.dialect,
        **({"schema_translate_map": translation} if translation else {}),
        **({"column_keys": keys} if keys else {}),
    )


def names_with(names: Mapping[Any, str], compiled: SQLCompiler) -> Mapping[Any, str]:
    """The original's parameters and their names, with the copies of them in another statement.

    What an UPDATE sets is given the type of its column, in a copy, each time it is compiled.
    """
    by_key = {bind.key: name for bind, name in names.items()}
    copies = {bind: by_key[bind.key] for bind in compiled.bind_names if bind.key in by_key}
    return {**copies, **names}


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
    """SQL text and driver parameters of a compiled statement, with lists as arrays if they can be.

    :param processors: its `bind_processors`.
    :param parameters: the values of its parameters, not processed yet.
    """
    statement, values, escaped = compiled.string, parameters, compiled.escaped_bind_names or {}
    names = compiled.bind_names.values()
    is_expanded = compiled.post_compile_params or compiled.literal_execute_params
    if is_expanded or escaped or not parameters.keys() >= set(names):
        state = compiled.expanded(parameters)
        statement, values, names = state.statement, state.parameters, state.parameters.keys()
        processors = {**processors, **state.processors}
    sql = _compat.translated_statement(context, compiled, statement)
    return sql, {
        escaped.get(name, name): processors[name](values[name])
        if name in processors
        else values[name]
        for name in names
    }
