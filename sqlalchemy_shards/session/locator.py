"""The whereabouts of a session's objects, for statements that name them by primary key only.

Refreshes, expired and deferred loads, and the unit of work's UPDATE and DELETE say nothing but the
primary key. Where that key lacks the shard key, the session still knows it: it has seen the row.
What was seen is remembered through expiry and rollback, as long as the object lives.

Invariants:

- The identity map says which object a primary key names, as it does for SQLAlchemy itself: an
  object that was deleted, expunged or never committed is not there, and its key not believed.
- An answer is a hint. A shard key may be stale where somebody else has given the row another, so
  whoever asks looks on all shards where the row is not found (`cluster.dispatch`).
- Objects whose primary key holds the shard key need none of this, and cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from sqlalchemy import event, inspect
from sqlalchemy.orm import LoaderCallableStatus, Mapper, Session, object_session
from sqlalchemy.orm.exc import UnmappedColumnError

from sqlalchemy_shards.cluster.options import key_of_model
from sqlalchemy_shards.errors import RoutingError
from sqlalchemy_shards.models.distribution import Sharded, distribution_of, key_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Table
    from sqlalchemy.engine import Dialect
    from sqlalchemy.orm import InstanceState

    Key = tuple[Any, ...]


class Part(NamedTuple):
    """One table of a mapper whose primary key lacks the shard key.

    :param key: names of the attributes that hold the shard key.
    :param order: for each column of the mapper's primary key, its position in the table's.
    """

    table: Table
    key: tuple[str, ...]
    order: tuple[int, ...]


class SessionLocator:
    """Remembers the shard keys of one session's objects, weakly."""

    def __init__(self, session: Session, dialect: Dialect) -> None:
        self._session = ref(session)
        self._dialect = dialect
        self._parts: dict[Mapper[Any], tuple[Part, ...]] = {}
        self._mappers: dict[Table, dict[Mapper[Any], Part]] = {}
        self._keys: WeakKeyDictionary[InstanceState[Any], tuple[Key | None, ...]] = (
            WeakKeyDictionary()
        )

    def key_of(self, table: Any, primary_key: Key) -> Key | None:
        """The shard key of the row with this primary key, None: not known."""
        for mapper, part in self._mappers.get(table, {}).items():
            key = self._key_of_object(mapper, part, primary_key)
            if key is not None:
                try:
                    return key_of_model(table, key, self._dialect).key
                except RoutingError:
                    return None
        return None

    def remember(self, state: InstanceState[Any]) -> None:
        """Take note of where an object lives, as far as its attributes are loaded."""
        parts = self._parts_of(state.mapper)
        if not parts:
            return
        keys = tuple(_values(state, part.key) for part in parts)
        if None in keys:
            known = self._keys.get(state, keys)
            keys = tuple(new or old for new, old in zip(keys, known, strict=True))
        self._keys[state] = keys

    def _parts_of(self, mapper: Mapper[Any]) -> tuple[Part, ...]:
        parts = self._parts.get(mapper)
        if parts is None:
            parts = self._parts[mapper] = tuple(parts_of(mapper))
            for part in parts:
                self._mappers.setdefault(part.table, {})[mapper] = part
        return parts

    def _key_of_object(self, mapper: Mapper[Any], part: Part, primary_key: Key) -> Key | None:
        session = self._session()
        if session is None:
            return None
        identity = mapper.identity_key_from_primary_key(tuple(primary_key[i] for i in part.order))
        try:
            instance = session.identity_map.get(identity)
        except TypeError:  # a value that cannot be hashed
            return None
        if instance is None:
            return None
        state: InstanceState[Any] = inspect(instance)
        parts = self._parts_of(state.mapper)
        known = self._keys.get(state)
        if known is None:
            self.remember(state)
            known = self._keys.get(state, ())
        for each, key in zip(parts, known, strict=False):
            if each.table is part.table:
                return key
        return None


def parts_of(mapper: Mapper[Any]) -> Iterator[Part]:
    """The tables of a mapper that name no shard by their primary key, as the mapper sees them."""
    for table in mapper.tables:
        distribution = distribution_of(table)
        if not isinstance(distribution, Sharded):
            continue
        primary_key = list(getattr(table, "primary_key", ()))
        if {column.key for column in primary_key}.issuperset(distribution.key):
            continue
        key = _attributes(mapper, key_columns(table, distribution))
        own, identity = _attributes(mapper, primary_key), _attributes(mapper, mapper.primary_key)
        if key is not None and own is not None and sorted(own) == sorted(identity or ()):
            yield Part(table, key, tuple(own.index(name) for name in identity or ()))  # type: ignore[arg-type]


def _attributes(mapper: Mapper[Any], columns: Sequence[Any]) -> tuple[str, ...] | None:
    """The attributes that hold columns, None where one is not mapped."""
    try:
        return tuple(mapper.get_property_by_column(column).key for column in columns)
    except UnmappedColumnError:
        return None


def _values(state: InstanceState[Any], attributes: tuple[str, ...]) -> Key | None:
    """The values of attributes that are stored in the row, None where one is not loaded."""
    committed, loaded, values = state.committed_state, state.dict, []
    for name in attributes:
        value = committed.get(name, LoaderCallableStatus.NO_VALUE)
        if value is LoaderCallableStatus.NO_VALUE:
            value = loaded.get(name)
        if value is None:
            return None
        values.append(value)
    return tuple(values)


@event.listens_for(Mapper, "mapper_configured")
def _follow_loads(mapper: Mapper[Any], class_: type[Any]) -> None:
    """Listen to loads of the classes that need it, and of no others."""
    if any(True for _ in parts_of(mapper)):
        event.listen(class_, "load", _loaded)
        event.listen(class_, "refresh", _refreshed)


def _loaded(instance: Any, context: Any) -> None:
    # merge() has no context.
    remember_in(object_session(instance) if context is None else context.session, instance)


def _refreshed(instance: Any, context: Any, attributes: Any) -> None:
    del attributes  # whichever: the others are as they were
    _loaded(instance, context)


def remember_in(session: Session | None, instance: Any) -> None:
    """Let a session's locator take note of an object, if the session has one."""
    locator = getattr(session, "locator", None)
    if locator is not None:
        locator.remember(inspect(instance))
