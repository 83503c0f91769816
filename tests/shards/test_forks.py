"""Processes that share a cluster, as servers have them that load an application and then fork."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from sqlalchemy_shards import ShardedSession, create_cluster
from tests.shards.shop import CUSTOMERS, DECLARED, SHARDS, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards import Cluster

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

CHILDREN = 3


def in_child(work: Callable[[], Any]) -> int:
    """Begin ``work`` in a forked child, which ends with 0 if all went well; return its pid."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:
        sys.__stderr__.write(f"in the child: {error!r}\n")  # type: ignore[union-attr]
        os._exit(1)
    os._exit(0)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def use(cluster: Cluster, number: int) -> None:
    """A write of two shards, an ordered scatter, and a gather."""
    m = DECLARED
    keys = [number * 100 + each for each in range(8)]
    with ShardedSession(cluster) as session:
        session.add_all([m.Customer(id=key, name="child's") for key in keys])
        session.commit()
        everyone = session.scalars(select(m.Customer.id).order_by(m.Customer.id)).all()
        assert set(keys) <= set(everyone)
        numbered = func.row_number().over(order_by=m.Label.customer_id)
        found = session.scalars(select(numbered).where(m.Label.id == 1)).all()
        assert sorted(found) == list(range(1, len(CUSTOMERS) + 1))


def backends(cluster: Cluster) -> dict[str, int]:
    """The server process behind the connection of each shard's pool."""
    with ShardedSession(cluster) as session:
        connection: Any = session.connection().connection.driver_connection
        return {name: connection.shard(name).info.backend_pid for name in SHARDS}


def backends_of_engines(cluster: Cluster) -> dict[str, int]:
    """The same, of a child that goes to the shards' own engines first."""
    found = {}
    for name in SHARDS:
        with cluster.shards[name].engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            found[name] = driver.info.backend_pid
    return found


@pytest.mark.parametrize("disposes", ["never", "in the child", "in the child, closing"])
def test_children_of_a_parent_that_used_its_cluster_use_it_side_by_side(
    spread_shop: World, disposes: str
) -> None:
    """As gunicorn with ``preload_app``, with and without SQLAlchemy's advice for forks."""
    cluster = spread_shop.cluster
    assert cluster is not None
    use(cluster, 1)  # pools, plans, catalogs and the workspace are those of the parent
    before = backends(cluster)

    def work(number: int) -> None:
        if disposes != "never":
            cluster.engine.dispose(close=disposes.endswith("closing"))
            assert not set(backends_of_engines(cluster).values()) & set(before.values())
        assert not set(backends(cluster).values()) & set(before.values())
        use(cluster, number)

    children = [in_child(lambda number=number: work(number)) for number in range(2, 2 + CHILDREN)]
    codes = [exit_code(child) for child in children]
    after = backends(cluster)
    use(cluster, 9)

    assert codes == [0] * CHILDREN
    assert after == before
    assert len(spread_shop.rows("SELECT id FROM customers WHERE name = 'child''s'")) == 8 * 5


PRELOADED = """
import os, sys
from sqlalchemy_shards import ShardedSession, create_cluster
from tests.shards.shop import DECLARED, SHARDS
from tests.shards.test_forks import backends, use

urls = dict(zip(SHARDS, sys.argv[1:]))
cluster = create_cluster(urls, name="shop")
use(cluster, 1)
before = backends(cluster)
child = os.fork()
if child == 0:
    use(cluster, 2)
    sys.exit(0)  # with all that an interpreter does at its end, as gunicorn's workers do
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert backends(cluster) == before
use(cluster, 3)
cluster.dispose()
"""


def test_a_child_that_ends_in_order_leaves_the_parents_connections_alone(
    spread_shop: World,
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PRELOADED, *spread_shop.urls.values()],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_spawned_process_makes_a_cluster_of_its_own(spread_shop: World) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=use_spawned, args=(spread_shop.urls,))
    process.start()
    process.join()

    assert process.exitcode == 0
    assert len(spread_shop.rows("SELECT id FROM customers WHERE name = 'child''s'")) == 8


def use_spawned(urls: dict[str, str]) -> None:
    cluster = create_cluster(urls, name="shop")
    use(cluster, 2)
    cluster.dispose()
