"""What ``alembic -x`` says to us: which shards are meant, and where scripts go.

Other ``-x`` arguments are the application's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic.util import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ONE: Final = "shard"
_SEVERAL: Final = "shards"
_DIRECTORY: Final = "sql_directory"
_ATOMIC: Final = "atomic"
_OURS: Final = (_ONE, _SEVERAL, _DIRECTORY, _ATOMIC)


class SelectionError(CommandError):
    """What ``-x`` says to us cannot be meant."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What one command of Alembic's is about.

    :param shards: in the order in which they have their turns.
    :param sql_directory: where ``--sql`` writes a file for each shard; None: one script.
    :param atomic: whether all of them are to be changed, or none.
    """

    shards: tuple[str, ...]
    sql_directory: Path | None = None
    atomic: bool = False


def read_selection(
    arguments: Iterable[str], known: Sequence[str], *, is_offline: bool = False
) -> Selection:
    """Read what stands behind each ``-x``.

    :param known: the names of all shards; they are meant where none is named.
    :param is_offline: whether the command has ``--sql``.
    :raises SelectionError: with what is wrong.
    """
    values: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in _OURS:
            continue
        if name in values:
            raise SelectionError(f"-x {name}= is given twice{_instead(name)}")
        if not value.strip():
            raise SelectionError(f"-x {name}= names nothing; {_example(name)}")
        values[name] = value.strip()
    if _ONE in values and _SEVERAL in values:
        raise SelectionError(f"-x {_ONE}= and -x {_SEVERAL}= are both given; give one of them")
    directory = values.get(_DIRECTORY)
    if directory is not None and not is_offline:
        raise SelectionError(f"-x {_DIRECTORY}= is for --sql; nothing is written without it")
    atomic = values.get(_ATOMIC)
    if atomic not in (None, "1"):
        raise SelectionError(f"-x {_ATOMIC}={atomic} means nothing; {_example(_ATOMIC)}")
    if atomic and is_offline:
        raise SelectionError(f"-x {_ATOMIC}=1 is not for --sql; a script commits shard by shard")
    shards = _shards(values, known)
    return Selection(shards, None if directory is None else Path(directory), atomic is not None)


def _shards(values: dict[str, str], known: Sequence[str]) -> tuple[str, ...]:
    if _ONE in values:
        named = [values[_ONE]]
    elif _SEVERAL in values:
        named = [name.strip() for name in values[_SEVERAL].split(",")]
    else:
        return tuple(known)
    for name in named:
        if name not in known:
            raise SelectionError(f"there is no shard {name!r}; there are: {', '.join(known)}")
        if named.count(name) > 1:
            raise SelectionError(f"the shard {name!r} is named twice; name it once")
    return tuple(named)


def _instead(name: str) -> str:
    return f"; name several with -x {_SEVERAL}=s0,s1" if name == _ONE else "; give it once"


def _example(name: str) -> str:
    example = {_ONE: "s0", _SEVERAL: "s0,s1", _DIRECTORY: "DIRECTORY", _ATOMIC: "1"}[name]
    return f"write -x {name}={example}"
