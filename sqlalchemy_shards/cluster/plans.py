"""What is kept beside each compiled statement: its sources, and its plan for several shards.

Held by SQLAlchemy's own `Compiled` object, which SQLAlchemy caches already: a statement is analysed
once and run often. Nothing here depends on values or on options; what depends on the shard map is
held by that map, and made anew for another one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy_shards import _compat
from sqlalchemy_shards.planning.derived import bind_processors
from sqlalchemy_shards.planning.gathering import plan_gathering
from sqlalchemy_shards.planning.partial import plan_partial
from sqlalchemy_shards.planning.planner import prepare
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.planning.supplying import plan_supply
from sqlalchemy_shards.routing.analysis import analyse
from sqlalchemy_shards.routing.carried_ids import carried_ids
from sqlalchemy_shards.routing.conditions import Parameter, PartEquals, parameters_of

from .dispatch.own_values import key_lists
from .dispatch.values import processors_of
from .dispatch.whereabouts import shows_absence
from .gather.asking import Asking, kinds_of, untyped_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler

    from sqlalchemy_shards.models.key_types import KeyType
    from sqlalchemy_shards.planning.draft import Facts, Prepared
    from sqlalchemy_shards.planning.parts import Gathering
    from sqlalchemy_shards.planning.supplying import Supply
    from sqlalchemy_shards.routing.carried_ids import CarriedIds
    from sqlalchemy_shards.routing.router import Territory
    from sqlalchemy_shards.routing.sources import StatementSources

    from .compiler import ShardsCompiler
    from .dispatch.own_values import KeyList
    from .dispatch.values import Processors
    from .dispatch.work import Given, Surroundings


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


class KeyReader(NamedTuple):
    """How the shard of a read by key is found in the fewest steps.

    :param territory: the one that it was made for; another one needs another reader.
    :param name: the parameter with the key.
    :param kind: the exact type of the values that it can find the shard of.
    :param shard_of: finds it; see `KeyspaceMap.finder`.
    """

    territory: Territory | None
    name: str
    kind: type
    shard_of: Callable[[Any], str]

    @classmethod
    def of(cls, key: SimpleKey, territory: Territory) -> KeyReader:
        """Make one for a statement's key, which has a plain type."""
        keyspace, name, kind, _ = key
        assert kind is not None
        return cls(territory, name, kind, territory.shard_map.keyspaces[keyspace].finder(kind))


NO_READER: Final = KeyReader(None, "", type(None), str)
"""That of a statement that was not read yet."""


class StatementPlan:
    """What is known of one compiled statement."""

    __slots__ = (
        "_gathering",
        "_key_lists",
        "_partial",
        "_prepared",
        "_processors_of_all",
        "_supplies",
        "_untyped",
        "cache",
        "carried_ids",
        "inserted_key",
        "is_loaders",
        "is_plain_read",
        "lacking",
        "processors",
        "reader",
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
        has_kind = self.simple_key is not None and self.simple_key.plain_type is not None
        self.reader = NO_READER if self.is_plain_read and has_kind else None
        self.is_loaders = is_loaders
        self.shows_absence = shows_absence
        self._prepared: Prepared | Refusal | None = None
        self._key_lists: tuple[KeyList, ...] | None = None
        self._processors_of_all: Processors | None = None
        self._gathering: Gathering | Refusal | None = None
        self._partial: dict[tuple[Any, ...], Gathering | None] = {}
        self._supplies: dict[tuple[Any, ...], Supply | Refusal] = {}
        self._untyped: tuple[str, ...] | None = None
        # Tables of which not all shards had all columns of the model when it was planned.
        self.lacking: tuple[Any, ...] = ()

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
            self._note_lacking(compiled)
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
            self._note_lacking(compiled)
        if isinstance(gathering, Refusal):
            raise Refusal(gathering.reason, gathering.advice)
        return gathering

    def _partial_gathering(self, given: Given, around: Surroundings) -> Gathering | None:
        """How it answers from what the shards make of their rows; None: it cannot."""
        compiled: Any = given.context.compiled
        kinds = self._kinds(given)
        if kinds is None:
            return None
        if kinds not in self._partial and len(self._partial) < KINDS_MAX:
            try:
                facts = Asking(given.context, around)
                self._partial[kinds] = plan_partial(compiled, facts)
            except Refusal:
                self._partial[kinds] = None
            self._note_lacking(compiled)
        return self._partial.get(kinds)

    def supply(self, given: Given, around: Surroundings) -> Supply:
        """What shards are to be given of others for an UPDATE or DELETE.

        :raises Refusal: it would not be done as one database would.
        """
        compiled: Any = given.context.compiled
        kinds = self._kinds(given)
        supply = None if kinds is None else self._supplies.get(kinds)
        if supply is None:
            try:
                supply = plan_supply(compiled, self.sources, Asking(given.context, around))
            except Refusal as refusal:
                supply = refusal.with_traceback(None)
            if kinds is not None and len(self._supplies) < KINDS_MAX:
                self._supplies[kinds] = supply
            self._note_lacking(compiled)
        if isinstance(supply, Refusal):
            raise Refusal(supply.reason, supply.advice)
        return supply

    def _kinds(self, given: Given) -> tuple[Any, ...] | None:
        """What the values of its parameters tell of their types; None: it is not known."""
        compiled: Any = given.context.compiled
        if self._untyped is None:
            self._untyped = untyped_parameters(compiled)
        values = _compat.raw_parameters(given.context) if self._untyped else {}
        return kinds_of(self._untyped, values, self.processors_of_all(compiled))

    def _note_lacking(self, compiled: Any) -> None:
        """Note what it was planned without, as it may be there later."""
        self.lacking = self.cache.lacking(compiled.rendered_tables)

    def _planned(self, compiled: Any, around: Surroundings) -> Gathering:
        occurrences = self.sources.occurrences
        # They hold much of what the ORM made of the statement, and are not needed again.
        self.sources = replace(self.sources, occurrences=())
        return plan_gathering(
            compiled,
            types_of=around.facts.columns_of,
            depending=around.facts.functions.depending,
            occurrences=occurrences,
            sources_of=lambda derived: around.plans.plan_of(derived).sources,
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
        if (
            plan is None
            or plan.cache is not self  # it may have been compiled for another cluster
            or (plan.lacking and len(self.lacking(plan.lacking)) < len(plan.lacking))
        ):
            plan = compiled.plan = self._analysed(compiled)
        return plan

    def lacking(self, tables: Iterable[Any]) -> tuple[Any, ...]:
        """Those of which some shards lack a column of the model, as far as anybody has looked."""
        facts = self._facts
        return () if facts is None else tuple(t for t in tables if facts.lacks_columns(t))

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
    return SimpleKey(keyspace, parameter.name, key_type.plain_type, key_type)


def _parameters(sources: StatementSources) -> Iterator[Parameter | None]:
    written = () if sources.written is None else (sources.written.root,)
    for root in filter(None, (*sources.roots, *written)):
        yield from parameters_of(root.condition)
    if sources.inserted is not None:
        yield from sources.inserted.parameters
        for row in sources.inserted.rows:
            yield from row
    for part in sources.changed_key:
        if isinstance(part.value, Parameter):
            yield part.value
