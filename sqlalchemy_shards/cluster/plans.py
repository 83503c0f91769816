"""What is kept beside each compiled statement: its sources, and its plan for several shards.

Held by SQLAlchemy's own `Compiled` object, which SQLAlchemy caches already: a statement is analysed
once and run often. Nothing here depends on values, on options or on the shard map.
"""

from __future__ import annotations

from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.key_types import KeyFamily
from sqlalchemy_shards.planning.derived import bind_processors
from sqlalchemy_shards.planning.gathering import plan_gathering
from sqlalchemy_shards.planning.partial import plan_partial
from sqlalchemy_shards.planning.planner import prepare
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.planning.splitting import NotSplittable
from sqlalchemy_shards.routing.analysis import analyse
from sqlalchemy_shards.routing.carried_ids import carried_ids
from sqlalchemy_shards.routing.conditions import Parameter, PartEquals, parameters_of

from .asking import Asking, kinds_of, untyped_parameters
from .own_values import key_lists
from .values import processors_of
from .whereabouts import shows_absence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler

    from sqlalchemy_shards.models.key_types import KeyType
    from sqlalchemy_shards.planning.draft import Facts, Prepared
    from sqlalchemy_shards.planning.parts import Gathering
    from sqlalchemy_shards.routing.carried_ids import CarriedIds
    from sqlalchemy_shards.routing.sources import StatementSources

    from .compiler import ShardsCompiler
    from .own_values import KeyList
    from .values import Processors
    from .work import Given, Surroundings


KINDS_MAX: Final = 8
"""For how many kinds of values a statement is planned whose parameters tell types by their values.
With others it is answered from rows of its tables."""


class SimpleKey(NamedTuple):
    """The key of a statement that is one parameter, compared or inserted: the quick way.

    :param plain_type: values of exactly this Python type are stored as they are; None: of none.
    """

    keyspace: str
    name: str
    plain_type: type | None
    key_type: KeyType


class StatementPlan:
    """What is known of one compiled statement."""

    __slots__ = (
        "_gathering",
        "_key_lists",
        "_partial",
        "_prepared",
        "_processors_of_all",
        "_untyped",
        "cache",
        "carried_ids",
        "inserted_key",
        "is_loaders",
        "is_plain_read",
        "processors",
        "shows_absence",
        "simple_key",
        "sources",
    )

    def __init__(
        self,
        cache: PlanCache,
        sources: StatementSources,
        processors: Processors,
        *,
        carried_ids: CarriedIds | None,
        is_loaders: bool,
        shows_absence: bool,
    ) -> None:
        self.cache = cache
        self.sources = sources
        self.processors = processors
        self.carried_ids = carried_ids
        # The quick way looks at the key only.
        self.simple_key = None if carried_ids else _simple_key(sources, processors)
        self.inserted_key = _inserted_key(sources, processors)
        self.is_plain_read = sources.is_plain
        self.is_loaders = is_loaders
        self.shows_absence = shows_absence
        self._prepared: Prepared | Refusal | None = None
        self._key_lists: tuple[KeyList, ...] | None = None
        self._processors_of_all: Processors | None = None
        self._gathering: Gathering | Refusal | None = None
        self._partial: dict[tuple[Any, ...], Gathering | None] = {}
        self._untyped: tuple[str, ...] | None = None

    def prepared(self, compiled: SQLCompiler, facts: Facts) -> Prepared:
        """The plan for several shards, made when it is first needed.

        :raises Refusal: several shards cannot answer.
        """
        prepared = self._prepared  # looked at once: another thread may change it meanwhile
        if prepared is None:
            try:
                prepared = prepare(self.sources, compiled, facts)
            except Refusal as refusal:
                prepared = refusal.with_traceback(None)  # it would hold what planning has made
            self._prepared = prepared
        if isinstance(prepared, Refusal):
            raise Refusal(prepared.reason, prepared.advice)
        return prepared

    def refuse_merge(self, refusal: Refusal) -> None:
        """Remember what only the rows' types could tell: they cannot be merged."""
        self._prepared = refusal

    def key_lists(self, compiled: SQLCompiler) -> tuple[KeyList, ...]:
        """The lists of keys that each shard needs only its own values of."""
        if self._key_lists is None:
            self._key_lists = key_lists(self.sources, compiled)
        return self._key_lists

    def processors_of_all(self, compiled: SQLCompiler) -> Processors:
        """The bind processors of all parameters, for SQL that is rendered once more."""
        if self._processors_of_all is None:
            self._processors_of_all = bind_processors(compiled)
        return self._processors_of_all

    def gathering(self, given: Given, around: Surroundings) -> Gathering:
        """How the workspace answers, planned when it is first needed.

        :raises Refusal: it cannot.
        """
        compiled: Any = given.context.compiled
        partial = self._partial_gathering(given, around)
        if partial is not None:
            return partial
        gathering = self._gathering
        if gathering is None:
            try:
                gathering = self._planned(compiled, around)
            except Refusal as refusal:
                gathering = refusal.with_traceback(None)
            self._gathering = gathering
        if isinstance(gathering, Refusal):
            raise Refusal(gathering.reason, gathering.advice)
        return gathering

    def _partial_gathering(self, given: Given, around: Surroundings) -> Gathering | None:
        """How it answers from what the shards make of their rows; None: it cannot."""
        compiled: Any = given.context.compiled
        if self._untyped is None:
            self._untyped = untyped_parameters(compiled)
        values = _compat.raw_parameters(given.context) if self._untyped else {}
        kinds = kinds_of(self._untyped, values, self.processors_of_all(compiled))
        if kinds is None:
            return None
        if kinds not in self._partial and len(self._partial) < KINDS_MAX:
            try:
                facts = Asking(given.context, around)
                self._partial[kinds] = plan_partial(compiled, self.sources, facts)
            except NotSplittable:
                self._partial[kinds] = None
        return self._partial.get(kinds)

    def _planned(self, compiled: Any, around: Surroundings) -> Gathering:
        return plan_gathering(
            compiled,
            types_of=around.facts.columns_of,
            depending=around.facts.functions.depending,
        )


class PlanCache:
    """Compiled statement -> `StatementPlan`. Safe over threads: two may analyse, both the same.

    :param facts: asked for the order of a shard key of text that is compared by ``<`` and the like.
    """

    def __init__(
        self, dialect: Dialect, *, undeclared_is_global: bool, facts: Facts | None = None
    ) -> None:
        self._dialect = dialect
        self._facts = facts
        self.undeclared_is_global = undeclared_is_global

    def plan_of(self, compiled: ShardsCompiler) -> StatementPlan:
        """The plan of a compiled statement, analysed when it is first seen."""
        plan = compiled.plan
        if plan is None or plan.cache is not self:  # it may have been compiled for another cluster
            plan = compiled.plan = self._analysed(compiled)
        return plan

    def _analysed(self, compiled: Any) -> StatementPlan:
        sources = analyse(
            compiled,
            self._dialect,
            undeclared_is_global=self.undeclared_is_global,
            rendered=compiled.rendered_tables,
            # Under a schema_translate_map the column may be another one at each execution.
            orders_by_code_point=None
            if self._facts is None or compiled.schema_translate_map
            else self._facts.orders_by_code_point,
        )
        return StatementPlan(
            self,
            sources,
            processors_of(compiled, list(_parameters(sources))),
            carried_ids=carried_ids(compiled),
            is_loaders=_compat.is_loaders(compiled),
            shows_absence=shows_absence(sources, compiled),
        )


def _simple_key(sources: StatementSources, processors: Processors) -> SimpleKey | None:
    if len(sources.roots) != 1 or sources.reads_global or sources.kind.value == "insert":
        return None
    if sources.changed_key:
        return None
    if sources.unreadable is not None or sources.writes_reference or sources.locks_copies:
        return None
    (root,) = sources.roots
    condition = root.condition
    if not isinstance(condition, PartEquals) or root.width != 1:
        return None
    if not isinstance(condition.parameter, Parameter) or condition.parameter.compared_as:
        return None
    return _as_simple_key(root.keyspace, condition.parameter, processors)


def _inserted_key(sources: StatementSources, processors: Processors) -> SimpleKey | None:
    if sources.inserted is None or len(sources.inserted.parameters) != 1:
        return None
    if sources.inserted.anchor is not None:
        return None  # the row is to be remembered
    (parameter,) = sources.inserted.parameters
    if parameter is None:
        return None
    return _as_simple_key(sources.inserted.keyspace, parameter, processors)


def _as_simple_key(keyspace: str, parameter: Parameter, processors: Processors) -> SimpleKey | None:
    if parameter.name in processors:
        return None
    key_type = parameter.key_type
    is_limited = key_type.length is not None or key_type.scale is not None
    plain_type = None if is_limited else _PLAIN_TYPES.get(key_type.family)
    return SimpleKey(keyspace, parameter.name, plain_type, key_type)


_PLAIN_TYPES: Final[Mapping[KeyFamily, type]] = MappingProxyType(
    {
        KeyFamily.INTEGER: int,
        KeyFamily.TEXT: str,
        KeyFamily.UUID: UUID,
        KeyFamily.DATE: date,
        KeyFamily.BOOLEAN: bool,
    }
)


def _parameters(sources: StatementSources) -> Iterator[Parameter | None]:
    for root in sources.roots:
        yield from parameters_of(root.condition)
    if sources.inserted is not None:
        yield from sources.inserted.parameters
        for row in sources.inserted.rows:
            yield from row
    for part in sources.changed_key:
        if isinstance(part.value, Parameter):
            yield part.value
