"""What each shard is sent: rows of its own, values of its own, or nothing; and what is refused."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from sqlalchemy_shards import create_cluster, errors
from tests.arrays import items_of
from tests.databases import own_urls
from tests.observing import told
from tests.routing.golden import NAMES, Case, cases, meant
from tests.routing.world import GLOBAL_SHARD, SHARDS, keyspaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers


@pytest.fixture(scope="module")
def cluster(servers: PostgresServers) -> Iterator[Cluster]:
    """Six empty databases: no statement is run."""
    with ExitStack() as stack:
        urls = stack.enter_context(own_urls(servers, "golden", SHARDS, spread=True))
        cluster = create_cluster(urls, keyspaces=keyspaces(), global_shard=GLOBAL_SHARD)
        stack.callback(cluster.dispose)
        yield cluster


class Stopped(Exception):
    """The statement was dispatched, and is not run."""


GOLDEN = list(cases("sent"))


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case.form}: {case.statement}")
@pytest.mark.filterwarnings("ignore:Column .* is marked as a member of the primary key")
def test_each_shard_is_sent_what_is_its_own(cluster: Cluster, case: Case) -> None:
    statement, parameters = case.made()
    refusal = getattr(errors, case.shards, None)

    if refusal is not None:
        with pytest.raises(refusal) as caught:
            sent(cluster, statement, parameters)
        assert type(caught.value) is refusal
    else:
        assert sent(cluster, statement, parameters) == expected(case)


def sent(cluster: Cluster, statement: Any, parameters: Any) -> dict[str, list[str]]:
    """Shard -> the values of the parameters that it would be given, and of lists in them."""
    found: dict[str, list[str]] = {}

    def stop(decided: Any) -> None:
        for work in decided.works:
            sets = work.parameters if isinstance(work.parameters, list) else [work.parameters]
            values = [str(i) for each in sets for value in each.values() for i in items_of(value)]
            found[work.shard] = sorted(values)
        raise Stopped

    with (
        cluster.engine.connect() as connection,
        told(connection, stop),
        pytest.raises(Stopped),
    ):
        connection.execute(statement, parameters)
    return found


def expected(case: Case) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in case.shards.split(";"):
        shards, _, values = eval(f"f{part!r}", dict(NAMES)).partition("=")
        found |= {name: sorted(values.split()) for name in meant(shards, case.keyspace)}
    return found
