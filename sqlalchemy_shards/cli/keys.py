"""Shard keys as they are typed on a command line."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class KeyType(str, Enum):
    """The Python type of a part of a shard key: it decides the bytes that are hashed."""

    INT = "int"
    STR = "str"
    UUID = "uuid"
    DATE = "date"
    DATETIME = "datetime"
    DECIMAL = "decimal"
    BOOL = "bool"
    BYTES = "bytes"


def parse_key(
    parts: Sequence[str], types: Sequence[KeyType]
) -> tuple[tuple[Any, ...], tuple[KeyType, ...]]:
    """Return a shard key and the types of its parts.

    :param types: of each part, or one for all; none: an int if it looks like one, else text.
    :raises typer.BadParameter: a part is not of its type, or the numbers do not fit.
    """
    if len(types) not in (0, 1, len(parts)):
        raise typer.BadParameter(
            f"{len(types)} types for {len(parts)} parts: give one for all, or one for each"
        )
    chosen = types if len(types) == len(parts) else list(types) * len(parts)
    if not types:
        chosen = [_guessed(part) for part in parts]
    key = tuple(_parsed(part, type_) for part, type_ in zip(parts, chosen, strict=True))
    return key, tuple(chosen)


def _guessed(text: str) -> KeyType:
    return KeyType.INT if re.fullmatch(r"-?[0-9]+", text) else KeyType.STR


def _parsed(text: str, type_: KeyType) -> Any:
    try:
        return _PARSERS[type_](text)
    except (ValueError, ArithmeticError):
        raise typer.BadParameter(f"{text!r} is not of the type {type_.value}") from None


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _datetime(text: str) -> datetime:
    return datetime.fromisoformat(text.removesuffix("Z") + "+00:00" * text.endswith("Z"))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("\\x"))


_PARSERS: Final[Mapping[KeyType, Callable[[str], Any]]] = {
    KeyType.INT: int,
    KeyType.STR: str,
    KeyType.UUID: UUID,
    KeyType.DATE: date.fromisoformat,
    KeyType.DATETIME: _datetime,
    KeyType.DECIMAL: Decimal,
    KeyType.BOOL: _bool,
    KeyType.BYTES: _bytes,
}
