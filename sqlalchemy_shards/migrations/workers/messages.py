"""What a runner and its workers tell each other: one line of JSON for each message.

A worker is given a `Job`, then one shard after the other; when the runner says no more, or is gone,
its input ends. All other messages go from workers to the runner. None holds a row's values.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal
from uuid import uuid4

from sqlalchemy_shards.migrations.turns.bounds import Bounds
from sqlalchemy_shards.migrations.turns.origin import INTERRUPTIONS
from sqlalchemy_shards.migrations.workers.alembic_settings import AlembicSettings
from sqlalchemy_shards.transactions.refusals import first_line

Command = Literal["upgrade", "downgrade", "stamp"]


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker does on each shard that it is given.

    :param revisions: the target; several for ``stamp`` only.
    :param is_purging: ``stamp`` empties the version table first.
    :param run: names the run in the ledgers of all shards.
    :param bounds: how long migrations wait.
    """

    command: Command
    revisions: tuple[str, ...]
    settings: AlembicSettings = field(default_factory=AlembicSettings)
    is_purging: bool = False
    run: str = field(default_factory=lambda: str(uuid4()))
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class Take:
    """A worker's next shard."""

    shard: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded ``env.py`` and waits for its first shard.

    :param cluster: the name of the cluster of ``env.py``.
    :param shards: its shards, and where they are.
    """

    cluster: str
    shards: dict[str, str]


@dataclass(frozen=True, slots=True)
class Began:
    """A shard's turn has come, and what it needs is known.

    :param before: the heads in its version table.
    :param steps: the revisions that will be applied, in their order.
    """

    shard: str
    before: tuple[str, ...]
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Applied:
    """A revision was applied; not necessarily committed yet."""

    shard: str
    revision: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A shard cannot be migrated just now, and is tried again.

    :param attempt: how often it was tried.
    :param reason: what it waits for.
    """

    shard: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """A shard is where it should be.

    :param after: the heads in its version table.
    """

    shard: str
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A shard could not be migrated.

    :param shard: None: it was no shard's turn.
    :param error: what happened, in one line.
    :param revision: which revision was being applied.
    :param after: the heads in its version table; None: it cannot be told.
    """

    shard: str | None
    error: str
    revision: str | None = None
    after: tuple[str, ...] | None = None
    is_interrupted: bool = False


Message = Job | Take | Ready | Began | Applied | Waiting | Done | Failed

_KINDS: Final = {
    kind.__name__: kind for kind in (Job, Take, Ready, Began, Applied, Waiting, Done, Failed)
}


_SPEAKING: Final = frozenset({"psycopg", "sqlalchemy_shards", "alembic"})
"""Packages whose errors are sentences."""


def encode(message: Message) -> str:
    r"""Return a message as one line.

    >>> encode(Take("s1"))
    '{"message": "Take", "shard": "s1"}\n'
    """
    return json.dumps({"message": type(message).__name__, **asdict(message)}) + "\n"


def decode(line: str) -> Message:
    r"""Return the message of a line.

    >>> decode('{"message": "Take", "shard": "s1"}\n')
    Take(shard='s1')
    """
    fields = {name: _frozen(value) for name, value in json.loads(line).items()}
    kind = _KINDS[fields.pop("message")]
    if kind is Job:
        fields["settings"] = AlembicSettings(
            **{name: _frozen(value) for name, value in fields["settings"].items()}
        )
        fields["bounds"] = Bounds(**fields["bounds"])
    message: Message = kind(**fields)
    return message


def in_one_line(error: BaseException) -> str:
    """What an error says, without further lines, and without a statement and its parameters."""
    if isinstance(error, INTERRUPTIONS):
        return "interrupted"
    said = getattr(error, "orig", None) or error
    faults = "; ".join(getattr(error, "faults", ()))
    text = f"{first_line(said)} {faults}".rstrip()
    is_known = type(said).__module__.partition(".")[0] in _SPEAKING
    return text if is_known or not str(said) else f"{type(said).__name__}: {text}"


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
