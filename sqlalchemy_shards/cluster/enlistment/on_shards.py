"""Work on several shards at once within a transaction, and what an error there means for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy_shards.cluster.explain.observing import RUN, observed
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.errors import ShardsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.dispatch.work import Work
    from sqlalchemy_shards.cluster.explain.observing import Observer
    from sqlalchemy_shards.connections.fan_out import Outcome

    from .enlisted import EnlistedShard

T = TypeVar("T")


def on_shards(
    connection: ClusterConnection,
    works: Sequence[Work],
    perform: Callable[[Work, EnlistedShard], T],
    *,
    step: str = RUN,
) -> list[T]:
    """Enlist the shard of each work and perform it there; the results are in the works' order.

    :param step: what it is called where it is observed.

    Each error is noted for the shard that it came from. The first is raised, the others beside it.
    """

    def driver(work: Work) -> Any:
        enlisted = connection.enlisted.get(work.shard)
        return None if enlisted is None else enlisted.driver

    perform = _observed(perform, step, connection.observer)
    try:
        outcomes = connection.cluster.fan_out.run(
            [
                Branch(
                    work.shard,
                    lambda w=work: perform(w, connection.enlist(w.shard)),  # type: ignore[misc]
                    lambda w=work: driver(w),  # type: ignore[misc]
                )
                for work in works
            ],
            deadline_seconds=connection.cluster.timeouts.statement_seconds,
        )
    except BaseException as error:
        # Interrupted: some shards may have run it, so the transaction cannot go on.
        connection.note_error(works[0].shard, error, is_shared=True)
        raise
    errors = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in errors:
        connection.note_error(outcome.shard, outcome.error, is_shared=True)  # type: ignore[arg-type]
    if errors:
        raise _first_with_others(errors)
    return [outcome.result() for outcome in outcomes]


@contextmanager
def failing_alike(connection: ClusterConnection, shard: str) -> Iterator[None]:
    """Let an error fail the transaction, as it would on one PostgreSQL; a refusal does not.

    :param shard: where the error is said to be from.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, ShardsError):
            connection.note_error(shard, error, is_shared=True)
        raise


def _observed(
    perform: Callable[[Work, EnlistedShard], T], step: str, observer: Observer | None
) -> Callable[[Work, EnlistedShard], T]:
    if observer is None:
        return perform
    return lambda work, enlisted: observed(
        observer, step, work.shard, lambda: perform(work, enlisted)
    )


def _first_with_others(errors: Sequence[Outcome[Any]]) -> BaseException:
    """The first shard's error, with those of the other shards beside it."""
    first: Any = errors[0].error
    if len(errors) > 1:
        first.shard_errors = {each.shard: each.error for each in errors}
    return first  # type: ignore[no-any-return]
