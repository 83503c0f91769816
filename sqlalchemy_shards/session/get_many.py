"""Many objects by their primary keys: as `Session.get` finds each, in one round trip per shard.

Invariant: what is returned for a key is what ``get()`` would return for it. Where that cannot be
told from a statement for many keys, ``get()`` is asked: of keys with a NULL, of composite values,
of rows whose key the database calls equal and Python does not, and of objects that are expired and
were not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import inspect, select, tuple_
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.sql.selectable import ForUpdateArg

from sqlalchemy_shards import _compat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Select
    from sqlalchemy.orm import Mapper, Session
    from sqlalchemy.orm.interfaces import ORMOption

    Identity = tuple[Any, ...]

_NO_KEYS: Final = (str, bytes, bytearray, memoryview, Mapping)

KEYS_PER_STATEMENT: Final = 10_000
"""More keys are asked for in several statements, one after another."""

PARAMETERS_MAX: Final = 60_000
"""The protocol's limit is 65,535; keys that are not sent as arrays take one for each value."""


class Reading:
    """One call of ``get_many()``.

    :param options: loader options.
    :param is_anew: also what the session holds is read, and overwritten.
    :param lock: as ``with_for_update=`` of ``get()``.
    :raises ArgumentError: the entity is no mapped class.
    """

    def __init__(
        self,
        session: Session,
        entity: Any,
        *,
        options: Sequence[ORMOption] | None,
        is_anew: bool,
        lock: Any,
        execution_options: Mapping[str, Any],
    ) -> None:
        mapper = inspect(entity, raiseerr=False)
        if mapper is None or not mapper.is_mapper:
            raise ArgumentError(f"Expected mapped class or mapper, got: {entity!r}")
        self._session = session
        self._mapper: Mapper[Any] = mapper
        self._options = tuple(options or ())
        self._is_anew = is_anew
        self._lock = lock or None
        self._execution_options = dict(execution_options)

    def objects(self, keys: Iterable[Any]) -> list[Any]:
        """The object of each key, None where there is none.

        :raises ArgumentError: these are no keys, but one, or text.
        """
        if isinstance(keys, _NO_KEYS) or not isinstance(keys, Iterable):
            raise ArgumentError(
                f"get_many() takes an iterable of primary keys, not a {type(keys).__name__}; "
                "give a list of them: [key]"
            )
        given = [_identity(self._mapper, key) for key in keys]
        found = self._found(dict.fromkeys(each for each in given if type(each) is tuple))
        return [found[each] if type(each) is tuple else self._get(each[0]) for each in given]

    def _get(self, key: Any) -> Any:
        """What ``get()`` says of a key."""
        anew: dict[str, Any] = {"populate_existing": True} if self._is_anew else {}
        return self._session.get(
            self._mapper,
            key,
            options=self._options,
            with_for_update=self._lock,
            execution_options=self._execution_options,
            **anew,
        )

    def _found(self, identities: Iterable[Identity]) -> dict[Identity, Any]:
        """The object of each key, from the session or from the database."""
        found: dict[Identity, Any] = {}
        missing: list[Identity] = []
        is_read = self._is_anew or self._mapper.always_refresh or self._lock is not None
        is_read = is_read or not len(self._session.identity_map)
        for identity in identities:
            if None in identity:
                found[identity] = self._get(identity)
                continue
            held = None if is_read else self._held(identity)
            if held is None or inspect(held).expired:
                missing.append(identity)
            else:
                found[identity] = held if isinstance(held, self._mapper.class_) else None
        size = min(KEYS_PER_STATEMENT, PARAMETERS_MAX // len(self._mapper.primary_key))
        for start in range(0, len(missing), size):
            found.update(self._loaded(missing[start : start + size]))
        return found

    def _held(self, identity: Identity) -> Any:
        key = self._mapper.identity_key_from_primary_key(identity)
        return self._session.identity_map.get(key)

    def _loaded(self, identities: Sequence[Identity]) -> Iterator[tuple[Identity, Any]]:
        """The objects of keys that are asked for at once."""
        loaded = self._session.scalars(
            self._statement(identities), execution_options=self._options_of_all()
        )
        objects = loaded.unique().all()
        here = set(map(id, objects))
        held = [self._held(identity) for identity in identities]
        # A row that no key names has one that the database calls equal to a key.
        are_named = len(here.intersection(map(id, held))) == len(here)
        for identity, instance in zip(identities, held, strict=True):
            if id(instance) in here:
                yield identity, instance
            else:
                is_absent = are_named and instance is None
                yield identity, None if is_absent else self._get(identity)

    def _statement(self, identities: Sequence[Identity]) -> Select[Any]:
        mapper = self._mapper
        columns = [mapper.attrs[name].class_attribute for name in _names(mapper)]
        if len(columns) == 1:
            condition = columns[0].in_([value for (value,) in identities])
        else:
            condition = tuple_(*columns).in_(list(identities))
        statement = select(mapper).where(condition).options(*self._options)
        lock: Any = self._lock
        if lock is None:
            return statement
        if isinstance(lock, ForUpdateArg):
            lock = {name: getattr(lock, name) for name in _OF_LOCKS}
        return statement.with_for_update(**(lock if isinstance(lock, Mapping) else {}))

    def _options_of_all(self) -> dict[str, Any]:
        """Execution options: all shards may be asked, as for one key."""
        options = {"scatter": "allow", **self._execution_options}
        if self._is_anew:
            options["populate_existing"] = True
        if self._lock is not None:
            options.update(_compat.checking_versions())
        return options


_OF_LOCKS: Final = ("read", "nowait", "skip_locked", "key_share", "of")


def _identity(mapper: Mapper[Any], key: Any) -> Identity | list[Any]:
    """The values of a primary key, in the order of its columns; a list: ``get()`` knows better."""
    if type(key) in _SINGLE:
        identity: Identity = (key,)
    elif type(key) is tuple:
        identity = key
    elif hasattr(key, "__composite_values__") or is_dataclass(key):
        return [key]
    elif isinstance(key, Mapping):
        return _of_names(mapper, key)
    else:
        identity = tuple(key) if _is_row(key) else (key,)
    if len(identity) != len(mapper.primary_key):
        raise InvalidRequestError(
            "Incorrect number of values in identifier to formulate primary key for "
            f"session.get_many(); primary key columns are {_listed(mapper.primary_key)}"
        )
    return identity


def _is_row(key: Any) -> bool:
    return isinstance(key, Sequence) and not isinstance(key, (str, bytes, bytearray, memoryview))


_SINGLE: Final = frozenset({int, str, UUID})
"""What nearly all keys are: nothing more is asked of them."""


def _of_names(mapper: Mapper[Any], key: Mapping[str, Any]) -> Identity:
    names = {each.key: each.name for each in mapper.synonyms}
    values = {names.get(name, name): value for name, value in key.items()}
    wanted = _names(mapper)
    if values.keys() != set(wanted):
        raise InvalidRequestError(
            "Incorrect names of values in identifier to formulate primary key for "
            f"session.get_many(); primary key attribute names are {_listed(wanted)} "
            "(synonym names are also accepted)"
        )
    return tuple(values[name] for name in wanted)


def _names(mapper: Mapper[Any]) -> list[str]:
    """The attributes that hold the primary key."""
    return [mapper.get_property_by_column(column).key for column in mapper.primary_key]


def _listed(names: Iterable[Any]) -> str:
    write: Callable[[Any], str] = "'{}'".format
    return ",".join(map(write, names))
