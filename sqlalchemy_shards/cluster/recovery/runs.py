"""Recoveries one after the other: what each does and tells, and when the next one comes.

Who waits in between is not here: a thread (`recovery_worker`) or a task (`async_recovery_worker`).

- Nothing that goes wrong in a run ends them: it is logged and told, and tried again later.
- Several at once, in one process or many, do no harm: what each does is settled by the decision
  shards. So there is no lock between them, which would have to lie on a shard that may be down;
  they only keep out of step, by pauses of random length.
"""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.events import RecoveryFailed
from sqlalchemy_shards.transactions.refusals import first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.transactions.reports import RecoveryReport

EVERY: Final = timedelta(minutes=1)
OLDER_THAN: Final = timedelta(minutes=1)
BACK_OFF_MAX: Final = 8
"""How many times longer than usual the pause becomes while nothing can be done."""
STOP_SECONDS: Final = 15.0
"""How long stopping waits: longer than a run is held up by a shard that hangs."""

_log = logging.getLogger(__name__)


class RecoveryRuns:
    """The recoveries of one worker.

    :raises ConfigurationError: ``every`` or ``older_than`` is no time.
    """

    def __init__(
        self, cluster: Cluster, every: timedelta | float, older_than: timedelta | float
    ) -> None:
        self._cluster = cluster
        self._every = _seconds("every", every)
        self._older_than = timedelta(seconds=_seconds("older_than", older_than))
        self._slower = 1
        self._told = ""

    def first_pause(self) -> float:
        """Seconds until the first run: not at once, since many processes start together."""
        self._slower = 1
        return random.uniform(0, min(self._every, 1.0))

    def run(self, is_stopping: Callable[[], bool]) -> float:
        """Recover; return the seconds until the next run.

        :param is_stopping: whether nobody wants to know any more what went wrong.
        """
        answered = self._run_once(is_stopping)
        self._slower = 1 if answered else min(2 * self._slower, BACK_OFF_MAX)
        return self._every * self._slower * random.uniform(0.8, 1.2)

    def _run_once(self, is_stopping: Callable[[], bool]) -> bool:
        """Recover; return whether any shard answered."""
        try:
            report = self._cluster.recover(self._older_than)
            self._tell(report)
        except Exception as error:
            if not is_stopping():
                _log.exception("the recovery of the cluster %r failed", self._cluster.name)
                self._publish_failure(error)
            return False
        return len(report.unreachable) < len(self._cluster.shards)

    def _publish_failure(self, error: Exception) -> None:
        name = self._cluster.name
        try:
            self._cluster.hooks.publish(RecoveryFailed(name, f"{type(error).__name__}: {error}"))
        except Exception:
            _log.exception("a listener to the recovery of the cluster %r failed", name)

    def _tell(self, report: RecoveryReport) -> None:
        """Log what was done, and what is left whenever that has changed."""
        name = self._cluster.name
        if report.finished:
            _log.info("recovery of %r finished %d parts", name, len(report.finished))
        left = _summary(report)
        if left != self._told:
            _log.log(logging.WARNING if left else logging.INFO, "recovery of %r: %s", name, left)
        self._told = left


def _summary(report: RecoveryReport) -> str:
    parts = [
        f"{shard!r} does not answer ({first_line(error)})"
        for shard, error in report.unreachable.items()
    ]
    parts += [
        f"{gid} on {shard!r} could not be finished ({first_line(error)})"
        for (gid, shard), error in report.failures.items()
    ]
    parts += [f"{gid} on {shard!r} is not understood" for shard, gid in report.not_understood]
    return "; ".join(parts)


def _seconds(name: str, value: timedelta | float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    seconds = value.total_seconds() if isinstance(value, timedelta) else value if is_number else -1
    if not 0 <= seconds < float("inf") or (name == "every" and not seconds):
        raise ConfigurationError(
            f"{name}={value!r} is no time", "give a timedelta, or seconds above 0"
        )
    return float(seconds)
