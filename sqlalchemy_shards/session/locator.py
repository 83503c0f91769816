"""The whereabouts of a session's objects, for statements that name them by primary key only.

Refreshes, expired and deferred loads, and the unit of work's UPDATE and DELETE say nothing but the
primary key. Where that key lacks the shard key, the session still knows it: it has seen the row.
What was seen is remembered through expiry and rollback, as long as the object lives, and believed
as long as it is in the session: a shard key never changes, but the row of an object that was
deleted, expunged or never committed may have given its primary key to another. Objects whose
primary key holds the shard key need none of this, and cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from sqlalchemy import event, inspect
from sqlalchemy.orm import Mapper, Session

from sqlalchemy_shards.cluster.options import key_of_model
from sqlalchemy_shards.errors import RoutingError
from sqlalchemy_shards.models.distribution import Sharded, distribution_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Table
    from sqlalchemy.engine import Dialect
    from sqlalchemy.orm import InstanceState


class SessionLocator:
    """Remembers the shard keys of one session's objects, weakly."""

    def __init__(self, session: Session, dialect: Dialect) -> None:
        self._session = ref(session)
        self._dialect = dialect
        self._states: WeakValueDictionary[tuple[Table, tuple[Any, ...]], InstanceState[Any]] = (
            WeakValueDictionary()
        )
        self._keys: WeakKeyDictionary[InstanceState[Any], dict[Table, tuple[Any, ...]]] = (
            WeakKeyDictionary()
        )

    def key_of(self, table: Any, primary_key: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The shard key of the row with this primary key, None: not known."""
        try:
            state = self._states.get((table, primary_key))
        except TypeError:  # a value that cannot be hashed
            return None
        if state is None or not state.persistent or state.session is not self._session():
            return None
        return self._keys.get(state, {}).get(table)

    def remember(self, state: InstanceState[Any]) -> None:
        """Take note of where an object lives, as far as its attributes are loaded."""
        for table in tables_without_key(state.mapper):
            primary_key = _values(state, table, [each.key for each in table.primary_key.columns])
            distribution = distribution_of(table)
            assert isinstance(distribution, Sharded)
            key = _values(state, table, distribution.key)
            if primary_key is None or key is None:
                continue
            try:
                found = key_of_model(table, key, self._dialect).key
                self._states[table, primary_key] = state
            except (RoutingError, TypeError):
                continue
            self._keys.setdefault(state, {})[table] = found


def tables_without_key(mapper: Mapper[Any]) -> Iterator[Table]:
    """The sharded tables of a mapper whose primary key does not hold their shard key."""
    for table in mapper.tables:
        distribution = distribution_of(table)
        if isinstance(distribution, Sharded):
            primary_key = {column.key for column in getattr(table, "primary_key", ())}
            if not primary_key.issuperset(distribution.key):
                yield table  # type: ignore[misc]


def _values(state: InstanceState[Any], table: Table, keys: Any) -> tuple[Any, ...] | None:
    """The loaded values of columns, None where one is not loaded."""
    values = []
    for key in keys:
        attribute = state.mapper.get_property_by_column(table.c[key]).key
        value = state.dict.get(attribute)
        if value is None:
            return None
        values.append(value)
    return tuple(values)


@event.listens_for(Mapper, "mapper_configured")
def _follow_loads(mapper: Mapper[Any], class_: type[Any]) -> None:
    """Listen to loads of the classes that need it, and of no others."""
    if any(True for _ in tables_without_key(mapper)):
        event.listen(class_, "load", _loaded)


def _loaded(instance: Any, context: Any) -> None:
    remember_in(context.session, instance)


def remember_in(session: Session | None, instance: Any) -> None:
    """Let a session's locator take note of an object, if the session has one."""
    locator = getattr(session, "locator", None)
    if locator is not None:
        locator.remember(inspect(instance))
