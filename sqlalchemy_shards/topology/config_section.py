"""Reading the tables of a configuration file: every fault is noted, none ends the reading.

A `Section` is one table and its path. Each value is asked for once, under the type it must have; a
value that is missing or wrong becomes a fault and the default is returned. `close()` makes a fault
of each key that nobody asked for. No fault shows a password or a value out of the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.masking import mask_password
from sqlalchemy_shards.topology.names import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")

_REFERENCE: Final = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)\}|)")
_URL: Final = re.compile(r"[\w+.%-]+://[^\n]*|[\w+.%-]+:[^\n]*@[^\n]*")
_TYPE_NAMES: Final = (
    (bool, "true or false"),
    (str, "a string"),
    (int, "a whole number"),
    (float, "a number"),
    (dict, "a table"),
    (list, "a list"),
)


@dataclass(slots=True)
class Faults:
    """Every fault of one file, and the secrets that none of them may show."""

    environment: Mapping[str, str] = field(repr=False)
    found: list[str] = field(default_factory=list)
    unresolved: set[str] = field(default_factory=set)
    """Paths of strings with a reference that could not be resolved."""
    _used: dict[str, str] = field(default_factory=dict, repr=False)

    def add(self, path: str, fault: str) -> None:
        """Note what is wrong with the value at ``path``."""
        path, fault = _masked(path), _masked(self._without_secrets(fault))
        self.found.append(f"{path}: {fault}" if path else fault)

    def add_error(self, path: str, error: ConfigurationError) -> None:
        """Note the faults of an error that a value at ``path`` caused."""
        for fault in error.faults or (error.problem,):
            self.add(path, fault)

    def expanded(self, value: Any, path: str) -> Any:
        """Return a TOML value with the environment's values for ``${NAME}`` in its strings."""
        if isinstance(value, str):
            return _REFERENCE.sub(lambda match: self._value_of(match, path), value)
        if isinstance(value, dict):
            return {key: self.expanded(item, join(path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expanded(item, f"{path}[{n}]") for n, item in enumerate(value)]
        return value

    def _value_of(self, match: re.Match[str], path: str) -> str:
        if match[0] == "$$":
            return "$"
        name = match[1]
        if name is None:
            self.unresolved.add(path)
            self.add(path, "a lone '$': write '$$' for a dollar, '${NAME}' for a reference")
        elif name not in self.environment:
            self.unresolved.add(path)
            self.add(path, f"the environment variable {name!r} is not set")
        else:
            self._used[name] = self.environment[name]
            return self.environment[name]
        return match[0]

    def _without_secrets(self, fault: str) -> str:
        for name, secret in sorted(self._used.items(), key=lambda item: -len(item[1])):
            fault = fault.replace(repr(secret), repr(f"${{{name}}}"))
            if len(secret) > 3:  # shorter ones would be found in our own words
                fault = fault.replace(secret, f"${{{name}}}")
        return fault


class Section:
    """One table of the file."""

    def __init__(self, table: Any, path: str, faults: Faults) -> None:
        self.path = path
        self.faults = faults
        self._known: list[str] = []
        self._table: dict[str, Any] = table if isinstance(table, dict) else {}
        if not isinstance(table, dict):
            faults.add(path, f"must be a table, not {type_name(table)}")

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def path_of(self, key: str) -> str:
        """Return the path of a key for a fault."""
        return join(self.path, key)

    def fault(self, key: str, fault: str) -> None:
        """Note what is wrong with the value of a key."""
        self.faults.add(self.path_of(key), fault)

    def value(self, key: str, types: tuple[type[T], ...], default: T | None = None) -> T | None:
        """Return the value of a key, of one of these exact types."""
        self._known.append(key)
        if key not in self._table:
            return default
        value = self._table[key]
        if type(value) in types:
            return value  # type: ignore[no-any-return]
        expected = " or ".join(dict.fromkeys(type_name(of()) for of in types))
        self.fault(key, f"must be {expected}, not {type_name(value)}")
        return default

    def anything(self, key: str) -> Any:
        """Return the value of a key, whatever it is, or None."""
        self._known.append(key)
        return self._table.get(key)

    def required(self, key: str, kind: type[T]) -> T | None:
        """Return the value of a key that must be there."""
        value = self.value(key, (kind,))
        if key not in self._table:
            self.fault(key, "is missing")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """Return one of some words; the first is the default."""
        word = self.value(key, (str,), choices[0]) or ""
        if word in choices:
            return word
        expected = ", ".join(repr(choice) for choice in choices)
        self.fault(key, f"{word!r} is none of {expected}{did_you_mean(word, choices)}")
        return choices[0]

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Return every value of this table as a section."""
        for key, value in self._table.items():
            self._known.append(key)
            yield key, Section(value, self.path_of(key), self.faults)

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return every key and value of this table, for the caller to check."""
        self._known += self._table
        return self._table.items()

    def section(self, key: str) -> Section:
        """Return the table under a key, empty if there is none."""
        self._known.append(key)
        return Section(self._table.get(key, {}), self.path_of(key), self.faults)

    def tried(self, key: str, make: Callable[[], T]) -> T | None:
        """Return what ``make`` returns; the faults of its ConfigurationError become faults here."""
        try:
            return make()
        except ConfigurationError as error:
            self.faults.add_error(self.path_of(key) if key else self.path, error)
            return None

    def close(self) -> None:
        """Make a fault of each key that was not asked for."""
        for key in self._table:
            if key not in self._known:
                self.fault(key, f"is not a known setting{did_you_mean(key, self._known)}")


def join(path: str, key: str) -> str:
    """Return the path of a key below another path, quoted where TOML would quote it."""
    part = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else repr(key)
    return f"{path}.{part}" if path else part


def _masked(text: str) -> str:
    """Mask what resembles a database URL, to the end of its line: a password may have any form."""
    return _URL.sub(lambda match: mask_password(match[0]), text)


def type_name(value: object) -> str:
    """Return what a TOML value is, for a sentence."""
    for kind, name in _TYPE_NAMES:
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__}"
