"""Statements that set something for the rest of the transaction, and touch no table.

``SET LOCAL name = value``, ``SELECT set_config('name', value, true)``, ``SET TRANSACTION ...`` and
``SET CONSTRAINTS ALL ...`` mean every shard of the transaction, now and later, as they mean the
whole database on one PostgreSQL. They are recognised by their SQL text, which must be one of these
forms from its first character to its last: what is not recognised names no shard, and is refused.

The role is none of these settings: it decides who may finish a prepared transaction. Taken on
shards that an option names, it is told to nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy_shards.sql_text import Uncuttable, tokens_of

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*"
_STRING: Final = r"'(?:[^'\\]|'')*'"
_PARAMETER: Final = r"%\((?:[^()]+)\)s"
_CAST: Final = r"(?:\s*::\s*[A-Za-z ]+)?"
_ARGUMENT: Final = rf"(?:{_STRING}|{_PARAMETER}){_CAST}"
_VALUE: Final = rf"(?:{_ARGUMENT}|-?\d+{_CAST}|CAST\s*\(\s*{_ARGUMENT}\s+AS\s+[A-Za-z ]+\))"

_SET_LOCAL: Final = re.compile(
    rf"SET\s+LOCAL\s+(?:(?P<name>{_NAME})\s*(?:=|\bTO\b)|TIME\s+ZONE\b)(?P<value>[^;\\$]+)", re.I
)
_SET_TRANSACTION: Final = re.compile(
    r"SET\s+TRANSACTION\s+(?:ISOLATION|READ|NOT|DEFERRABLE)\b[A-Za-z\s,]*"
    r"|SET\s+CONSTRAINTS\s+ALL\s+(?:DEFERRED|IMMEDIATE)",
    re.I,
)
_SET_CONFIG: Final = re.compile(
    rf"(?:pg_catalog\s*\.\s*)?set_config\s*\(\s*(?P<name>{_ARGUMENT})\s*,\s*{_VALUE}\s*,"
    rf"\s*(?P<is_local>true|{_PARAMETER}){_CAST}\s*\)(?:\s+AS\s+(?P<label>\w+|\"[^\"%]+\"))?",
    re.I,
)
_SELECT: Final = re.compile(r"SELECT\s+", re.I)
_COMMA: Final = re.compile(r"\s*,\s*")

_OF_THE_ROLE: Final = frozenset({"role", "session_authorization"})
_SETS_ROLE: Final = re.compile(
    r"^\s*set\s+(?:(?:local|session)\s+)?(?:role|session_authorization|session\s+authorization)\b"
    r"|\bset_config\s*\(\s*'\s*(?:role|session_authorization)\b",
    re.I,
)
_SETS: Final = re.compile(r"\bset_config\s*\(|^\s*(?:RE)?SET\b", re.I)


@dataclass(frozen=True, slots=True)
class Setting:
    """A statement that sets something for the rest of the transaction.

    :param columns: names of the columns that it returns.
    """

    columns: tuple[str, ...] = ()


def setting_of(sql: str, parameters: Any) -> Setting | None:
    """Read a statement; None: it is no setting, or not certainly one.

    :param parameters: the driver's, by name.

    >>> setting_of("SET LOCAL app.tenant = 'a'", {})
    Setting(columns=())
    >>> setting_of("SELECT set_config('app.tenant', %(t)s, true)", {"t": "a"})
    Setting(columns=('set_config',))
    >>> setting_of("SET app.tenant = 'a'", {})
    """
    text = sql.strip().removesuffix(";").rstrip()
    if _SET_TRANSACTION.fullmatch(text):
        return Setting()
    found = _SET_LOCAL.fullmatch(text)
    if found is not None:
        is_plain = _stays_one_value(found["value"])
        return Setting() if is_plain and _may_be_set(found["name"]) else None
    return _set_config(text, parameters if isinstance(parameters, Mapping) else {})


def sets_something(sql: str) -> bool:
    """Whether a statement looks as if it set something, for however long."""
    return _SETS.search(sql) is not None


def sets_role(sql: str) -> bool:
    """Whether a statement looks as if it changed the role that statements run as."""
    return _SETS_ROLE.search(sql) is not None


def _set_config(text: str, parameters: Mapping[str, Any]) -> Setting | None:
    start = _SELECT.match(text)
    if start is None:
        return None
    columns, position = [], start.end()
    while True:
        call = _SET_CONFIG.match(text, position)
        if call is None or not _is_local(call["is_local"], parameters):
            return None
        if not _may_be_set(_value(call["name"], parameters)):
            return None
        columns.append((call["label"] or "set_config").strip('"'))
        position = call.end()
        if position == len(text):
            return Setting(tuple(columns))
        comma = _COMMA.match(text, position)
        if comma is None:
            return None
        position = comma.end()


def _is_local(word: str, parameters: Mapping[str, Any]) -> bool:
    return word.lower() == "true" or _value(word, parameters) is True


def _value(argument: str, parameters: Mapping[str, Any]) -> Any:
    if argument.startswith("%("):
        return parameters.get(argument[2 : argument.index(")")])
    return argument[1 : argument.rindex("'")].replace("''", "'")


def _may_be_set(name: Any) -> bool:
    return name is None or (isinstance(name, str) and name.strip().lower() not in _OF_THE_ROLE)


def _stays_one_value(value: str) -> bool:
    """Whether what it opens is closed in it, quotes and comments."""
    try:
        return bool(tokens_of(value))
    except Uncuttable:
        return False
