"""What every partitioner is, and what its makers share: the transform, the key, the description.

A partitioner is immutable, compares by value, pickles (with a ``transform`` that is a module's
function), and gives the same bucket for the same key in every process and release. Values that
PostgreSQL holds equal go to the same bucket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from sqlalchemy_shards.errors import (
    ConfigurationError,
    MissingShardKey,
    RoutingError,
    ShardsError,
)
from sqlalchemy_shards.topology.canonical import Kind, comparable, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    Transform: TypeAlias = Callable[..., Any]

BUCKETS_MAX: Final = 65_536
"""Buckets that one keyspace may have: the shard map holds an entry for each."""

ITEMS_SHOWN_MAX: Final = 5
"""Bounds or labels that a description shows; of more it shows all but one, and their number."""


@runtime_checkable
class Partitioner(Protocol):
    """What a partitioner of one's own must have; it must be pure, and never change its mind."""

    @property
    def bucket_count(self) -> int:
        """How many buckets there are; they are numbered from 0. At most `BUCKETS_MAX`."""
        ...

    def bucket_of(self, key: tuple[Any, ...]) -> int:
        """Return the bucket of a key, given as the tuple of its parts.

        :raises RoutingError: if the key has none: `MissingShardKey` for None, `UnknownShard` for a
            value that maps to no bucket, itself for a wrong type.
        """
        ...

    def bucket_label(self, bucket: int) -> str:
        """Return what a person calls this bucket; no two buckets share a label."""
        ...

    def describe(self) -> str:
        """Return one line about the partitioner."""
        ...


def transformed(transform: Transform, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the key that ``transform`` makes of another one.

    :raises MissingShardKey: if a part is None; the transform is not asked.
    :raises RoutingError: if the transform fails or returns None.
    """
    if any(part is None for part in key):
        raise MissingShardKey("the shard key is None", "give the row or statement a value for it")
    try:
        result = transform(*key)
    except ShardsError:
        raise
    except Exception as error:
        raise RoutingError(
            f"the transform {_name(transform)!r} failed with {type(error).__name__}",
            "make it accept every shard key that the application uses",
        ) from error
    if result is None:
        raise RoutingError(
            f"the transform {_name(transform)!r} returned None",
            "make it return a value for every shard key",
        )
    return result if type(result) is tuple else (result,)


def one_part(key: tuple[Any, ...], kind: Kind, partitioner: str) -> Any:
    """Return the only part of the key, in the shape in which it is compared.

    :raises RoutingError: if there are several, or it is of another kind.
    """
    if len(key) != 1:
        raise RoutingError(
            f"a {partitioner} partitioner takes a shard key of one part, this one has {len(key)}",
            "use a CompositePartitioner, or a transform= that makes one value of the parts",
        )
    value = key[0]
    if kind_of(value) != kind:
        raise RoutingError(
            f"the shard key is of the kind {kind_of(value)!r}, "
            f"but its {partitioner} partitioner is for {kind!r}",
            "give the value in the type of the shard key's column",
        )
    return comparable(value)


def configured(values: Sequence[Any], what: str, advice: str) -> tuple[Kind, tuple[Any, ...]]:
    """Return the kind that all values have, and the values in the shape in which they are compared.

    :raises ConfigurationError: if they have several, or one of them cannot be a shard key.
    """
    try:
        kinds = list(dict.fromkeys(kind_of(value) for value in values))
        keys = tuple(comparable(value) for value in values)
    except RoutingError as error:
        raise ConfigurationError(f"the {what} cannot be used: {error.problem}", advice) from None
    if len(kinds) > 1:
        raise ConfigurationError(
            f"the {what} are of several types: {', '.join(kinds)}",
            advice,
        )
    return kinds[0], keys


def after(transform: Transform | None) -> str:
    """Return the end of a description that names the transform, if there is one."""
    return "" if transform is None else f", after {_name(transform)}"


def shown(value: Any) -> str:
    """Return a configured value as a person would write it."""
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return repr(value) if isinstance(value, str | bytes) else str(value)


def some(texts: Sequence[str]) -> list[str]:
    """Return the texts, or the first of them and their number where they are many."""
    if len(texts) <= ITEMS_SHOWN_MAX:
        return list(texts)
    return [*texts[: ITEMS_SHOWN_MAX - 1], f"... ({len(texts)} in all)"]


def _name(transform: Transform) -> str:
    return getattr(transform, "__qualname__", type(transform).__qualname__)
