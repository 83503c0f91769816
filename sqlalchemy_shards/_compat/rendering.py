"""What a compiler writes: SELECTs, one within another, and lists of values at each execution."""

from __future__ import annotations

from abc import abstractmethod
from copy import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from sqlalchemy.sql.compiler import ExpandedState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import ColumnElement
    from sqlalchemy.sql.selectable import FromClause, Select


class NotesSelects:
    """What a compiler tells of each SELECT that it writes, before it writes what is in it."""

    @abstractmethod
    def note_select(
        self,
        final: Select[Any],
        froms: Sequence[FromClause],
        names: Mapping[str, ColumnElement[Any]],
    ) -> None:
        """Take note of a SELECT.

        :param final: after the ORM has worked on it.
        :param froms: its FROM list, without what it correlates to.
        :param names: what a name given as a string stands for.
        """

    def _setup_select_stack(self, select: Any, compile_state: Any, *arguments: Any) -> Any:
        parent: Any = super()
        froms = parent._setup_select_stack(select, compile_state, *arguments)
        self.note_select(select, froms, compile_state._label_resolve_dict[0])
        return froms


class KeepsOutermost:
    """A compiler that keeps what the outermost SELECT became.

    ``from_statement()`` puts a state of its own before it, which knows nothing of its columns.
    """

    stack: list[Any]
    outermost: Any = None
    """The state of the SELECT; None: the statement is none."""

    def _setup_select_stack(self, select: Any, compile_state: Any, *arguments: Any) -> Any:
        parent: Any = super()
        if not self.stack:
            self.outermost = compile_state
        return parent._setup_select_stack(select, compile_state, *arguments)


VARIANTS_MAX: Final = 16
"""Of a statement with lists, for how many choices of those in their own forms its SQL is kept."""


class ListForm(NamedTuple):
    """How a list of values is written in SQL of its own form, the same whatever is in it.

    :param parameters: the first has the name of the list's parameter.
    :param sql: what stands in place of ``IN (...)``.
    :param negated: what stands in place of ``NOT IN (...)``.
    """

    parameters: tuple[str, ...]
    sql: str
    negated: str


class ExpandsLists:
    """A compiler that may write a list of values in another way than as one parameter for each.

    SQLAlchemy writes lists at each execution, into SQL that was compiled before.
    """

    long_list: int
    """How many values a list has at least that is written in its own form unasked."""

    _variants: dict[frozenset[str], Any]

    @abstractmethod
    def list_form(self, name: str) -> ListForm:
        """The form of a list that `list_values` named."""

    @abstractmethod
    def list_values(
        self, parameters: Mapping[str, Any], *, least: int
    ) -> Mapping[str, tuple[Any, ...]]:
        """The lists of an execution that have a form of their own, and its parameters' values.

        :param parameters: bind name -> value before bind processing; of a list, all its values.
        :param least: how many values a list has at least.
        """

    def expanded(self, values: Mapping[str, Any]) -> ExpandedState:
        """What ``construct_expanded_state()`` gives, with each list in its own form if it can be.

        :param values: bind name -> value before bind processing.
        """
        compiler: Any = self
        parameters = compiler.construct_params(values, escape_names=False, _no_postcompile=True)
        return self._expanded(parameters, least=1)

    def _process_parameters_for_postcompile(
        self, parameters: Any, _populate_self: bool = False
    ) -> ExpandedState:
        if not _populate_self:
            return self._expanded(parameters, least=self.long_list)
        parent: Any = super()
        return cast("ExpandedState", parent._process_parameters_for_postcompile(parameters, True))

    def _expanded(self, parameters: Any, *, least: int) -> ExpandedState:
        values = self.list_values(parameters, least=least)
        variant: Any = self._variant(frozenset(values)) if values else self
        state: Any
        if values and not (variant.post_compile_params or variant.literal_execute_params):
            state = ExpandedState(variant.string, parameters, {}, None, {})
        else:
            parent: Any = super(ExpandsLists, variant)
            state = parent._process_parameters_for_postcompile(parameters)
        for name, given in values.items():
            for parameter, value in zip(self.list_form(name).parameters, given, strict=True):
                # Its own name keeps the list, for whoever reads what was given.
                state.parameters.setdefault(parameter, value)
                state.processors[parameter] = _always(value)
        return cast("ExpandedState", state)

    def _variant(self, names: frozenset[str]) -> Any:
        """The same compiled statement, with lists in their own forms."""
        variant = self._variants.get(names)
        if variant is None:
            variant = copy(cast("Any", self))
            for name in names:
                form = self.list_form(name)
                place = list_marker(variant, name)
                text = variant.string.replace(f"NOT IN {place}", form.negated)
                variant.string = text.replace(f"IN {place}", form.sql)
            binds = {variant.binds[name] for name in names}
            variant.post_compile_params = variant.post_compile_params - binds
            if len(self._variants) < VARIANTS_MAX:
                self._variants[names] = variant
        return variant


def list_marker(compiled: SQLCompiler, name: str) -> str:
    """What stands in the compiled SQL for a list whose values nothing is done to in SQL."""
    escaped_names: Mapping[str, str] = compiled.escaped_bind_names or {}
    return f"(__[POSTCOMPILE_{escaped_names.get(name, name)}])"


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value
