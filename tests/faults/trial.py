"""One fault at one arrow: what it left, what the caller was told, and who finished it."""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards.errors import ShardsError, TransactionUnfinished
from tests.faults.arrows import Arrow, Fault, When, raise_all, recover
from tests.faults.client import client
from tests.faults.proxy import Fate, Moment
from tests.faults.world import DEADLINE_SECONDS, HASTY, PATIENT, RESIGNED, START, World, cluster_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy_shards import Cluster

_TIMEOUTS = {Fault.HANG: HASTY, Fault.SERVER: RESIGNED, Fault.OTHER_SERVER: RESIGNED}
COMMITTED, ABORTED = "committed", "aborted"


@dataclass(frozen=True)
class Verdict:
    """What became of the transaction.

    :param by: who finished it; ``"the servers"``: nobody had to.
    :param told: what the caller was told; None: nobody was there to be told.
    """

    outcome: str
    by: str
    told: str | None

    def __str__(self) -> str:
        said = f", {self.told}" if self.told else ""
        return f"{self.outcome} by {self.by}{said}"


def try_fault(world: World, arrow: Arrow, fault: Fault, when: When) -> Verdict:
    """Let a fault happen at an arrow, let recovery finish what it left, and tell what was seen."""
    with arrow.surroundings(world):
        if fault is Fault.CLIENT:
            _kill_client(world, arrow, when)
            told = None
        else:
            told = _tell_caller(world, arrow, fault, when)
        world.revive()
    world.wait_for_idle()
    left = world.prepared()
    first, last = ("recovery", "the next recovery")
    if arrow.action is not recover:
        first, last = ("the servers" if told is None else "commit()"), "recovery"
    return Verdict(recovered_outcome(world), last if left else first, told)


def told_by(action: Callable[[], object]) -> str:
    """What a caller hears: the name of the error or warning, or nothing."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", TransactionUnfinished)
        try:
            result = action()
        except (DBAPIError, ShardsError) as error:
            return type(error).__name__
    if result is False:
        return "reported"
    return type(heard[0].message).__name__ if heard else ""


def raise_all_and_tell(cluster: Cluster) -> str:
    """Add 1 to every account, and return what `told_by` says of it."""
    return told_by(lambda: raise_all(cluster))


def recovered_outcome(world: World) -> str:
    """Finish what is left, and tell what all shards agree on."""
    with cluster_of(world.direct) as cluster:
        report = cluster.recover()
        again = cluster.recover()
    amounts = set(world.amounts().values())
    assert report.is_clean
    assert again.finished == ()
    assert world.prepared() == {}
    assert len(amounts) == 1, f"half a transaction: {world.amounts()}"
    return ABORTED if amounts == {START} else COMMITTED


def _kill_client(world: World, arrow: Arrow, when: When) -> None:
    points = {When.BEFORE: arrow.before, When.AFTER: arrow.after}
    with client(world.urls, arrow.preparation, arrow.action, dies_at=points.get(when)) as process:
        process.go()
        process.result()
        if when is When.DURING:
            trap = world.proxies[arrow.target].trap(
                arrow.pattern, _then(process.kill, Fate.CLOSE), moment=Moment.REPLY
            )
        process.go()
        if when is When.DURING:
            trap.wait()
        else:
            process.wait_for_death()


def _tell_caller(world: World, arrow: Arrow, fault: Fault, when: When) -> str:
    with cluster_of(world.urls, _TIMEOUTS.get(fault, PATIENT)) as cluster:
        arrow.preparation(cluster)
        struck = _arm(world, cluster, arrow, fault, when)
        with _healed(world, arrow, struck if fault is Fault.HANG else None):
            told = told_by(lambda: arrow.action(cluster))
        assert struck.wait(DEADLINE_SECONDS), "the fault did not happen"
    return told


def _arm(world: World, cluster: Cluster, arrow: Arrow, fault: Fault, when: When) -> threading.Event:
    proxy = world.proxies[arrow.target]
    if fault in (Fault.LOST, Fault.HANG) and when is not When.AFTER:
        fate = Fate.CLOSE if fault is Fault.LOST else Fate.HANG
        moment = Moment.REQUEST if when is When.BEFORE else Moment.REPLY
        return proxy.trap(arrow.pattern, fate, moment=moment).struck
    victim = arrow.other if fault is Fault.OTHER_SERVER else arrow.target
    assert victim is not None
    strike = {
        Fault.BACKEND: lambda: world.kill_backend(victim),
        # The link that carries this out is still there then.
        Fault.SERVER: lambda: world.kill_server(victim, is_noticed=when is not When.DURING),
        Fault.OTHER_SERVER: lambda: world.kill_server(victim, is_noticed=True),
        Fault.LOST: proxy.close_links,
        Fault.HANG: proxy.hang_links,
    }[fault]
    if when is When.DURING:
        fate = Fate.PASS if fault is Fault.OTHER_SERVER else Fate.CLOSE
        return proxy.trap(arrow.pattern, _then(strike, fate), moment=Moment.REPLY).struck
    struck = threading.Event()

    def reached(_: str) -> None:
        if not struck.is_set():
            strike()
            struck.set()

    cluster.hooks.fail_points = {arrow.before if when is When.BEFORE else arrow.after: reached}
    return struck


@contextmanager
def _healed(world: World, arrow: Arrow, struck: threading.Event | None) -> Iterator[None]:
    """Where a caller would wait for ever, let the network break what hangs after a while."""
    if struck is None or not arrow.is_patient:
        yield
        return

    def heal() -> None:
        struck.wait(20)
        threading.Event().wait(0.05)
        world.proxies[arrow.target].heal()

    thread = threading.Thread(target=heal)
    thread.start()
    yield
    thread.join()


def _then(action: Callable[[], object], fate: Fate) -> Callable[[], Fate]:
    def strike() -> Fate:
        action()
        return fate

    return strike
