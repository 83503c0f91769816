"""A run over shards that migrates all of them or none, in this process."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy_shards.errors import TransactionUnfinished
from sqlalchemy_shards.migrations.atomic.run import AtomicRun
from sqlalchemy_shards.migrations.turns.run import RUN_KEY
from sqlalchemy_shards.migrations.turns.turn import TurnOptions, log_what_keeps
from sqlalchemy_shards.migrations.workers.worker import perform

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.migrations.atomic.ending import Ending
    from sqlalchemy_shards.migrations.workers.order import Order


def migrate_together(
    order: Order, tell: Callable[[str, int, str], None] = log_what_keeps
) -> Ending:
    """Go through the shards, and tell how it has ended, whatever it was.

    Their number at once, a canary and what is to be done after a failure have no meaning here.

    :param tell: is told of what keeps a shard: its name, the number of the try, and a sentence.
    """
    job = order.job
    run = AtomicRun(order.shards, TurnOptions(UUID(job.run), job.bounds, tell))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransactionUnfinished)  # the ending tells of it
        try:
            perform(job, job.settings.config(**{RUN_KEY: run}))
        except KeyboardInterrupt as error:  # in an event loop a turn ends with CancelledError
            return replace(run.ending, error=error)
        except Exception as error:
            return replace(run.ending, error=run.ending.error or error)
    return run.ending
