"""Compares what the shards say with what the source file says. Nothing here is taken on trust."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from sqlalchemy_shards.cli.demo.models import Base, PostOffice, State
from sqlalchemy_shards.cli.demo.steps import RUPEES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.orm import sessionmaker

    from sqlalchemy_shards import Cluster, ShardedSession
    from sqlalchemy_shards.cli.demo.data import Record
    from sqlalchemy_shards.cli.demo.steps import Steps, Transfer


@dataclass(frozen=True, slots=True)
class Check:
    """Two things that must be equal.

    :param expected: by the source file.
    :param found: on the shards.
    """

    name: str
    expected: Any
    found: Any

    @property
    def passed(self) -> bool:
        """Whether they are."""
        return bool(self.expected == self.found)


def expected_rows(cluster: Cluster, records: Sequence[Record]) -> dict[str, int]:
    """Return how many post offices belong on each shard."""
    counts = Counter(cluster.shard_for(PostOffice, record.pincode) for record in records)
    return {shard: counts[shard] for shard in cluster.shards}


def check_totals(records: Sequence[Record], found: tuple[int, int]) -> Iterator[Check]:
    """The number of post offices, and the sum of their PIN codes."""
    yield Check("post offices in all", len(records), found[0])
    yield Check("sum of all PIN codes", sum(record.pincode for record in records), found[1])


def check_shards(
    cluster: Cluster, records: Sequence[Record], found: Mapping[str, int]
) -> Iterator[Check]:
    """The rows of each shard are those whose key belongs there."""
    for shard, count in expected_rows(cluster, records).items():
        yield Check(f"post offices on {shard}", count, found[shard])


def check_states(
    cluster: Cluster, session_factory: sessionmaker[ShardedSession], records: Sequence[Record]
) -> Iterator[Check]:
    """The reference table is whole on every shard, and each state has its post offices."""
    by_state = Counter(record.state for record in records)
    states = sorted(state for state in by_state if state is not None)
    count = select(func.count(PostOffice.number))
    with session_factory() as session:
        for shard in cluster.shards:
            copy = session.scalars(
                select(State.name).order_by(State.name), execution_options={"shard": shard}
            )
            yield Check(f"states on {shard}", states, list(copy))
        found = {
            state: session.scalar(count.where(PostOffice.state_name == state)) for state in states
        }
        none = session.scalar(count.where(PostOffice.state_name.is_(None)))
    yield Check("post offices of each state", {state: by_state[state] for state in states}, found)
    yield Check("post offices without a state", by_state[None], none)


def check_rows(
    session_factory: sessionmaker[ShardedSession], records: Sequence[Record]
) -> Iterator[Check]:
    """Every row, field by field."""
    names = ("pincode", "number", "name", "district", "state_name", "latitude", "longitude")
    of_record = attrgetter(*names[:4], "state", *names[5:])
    expected = Counter(map(of_record, records))
    fields = select(*[getattr(PostOffice, name) for name in names])
    with session_factory() as session:
        expected.subtract(tuple(row) for row in session.execute(fields))
    yield Check("rows that differ in any field", 0, sum(map(abs, expected.values())))


def check_queries(
    steps: Steps,
    records: Sequence[Record],
    *,
    of_pincode: Sequence[PostOffice],
    of_state: Sequence[PostOffice],
) -> Iterator[Check]:
    """The two lists are the file's, in the file's own order once it is sorted."""
    wanted = [record for record in records if record.pincode == steps.pincode]
    yield Check(
        f"the post offices of {steps.pincode}",
        sorted((each.name, each.number) for each in wanted),
        sorted((each.name, each.number) for each in of_pincode),
    )
    in_order = sorted(
        (each.name, each.pincode, each.number) for each in records if each.state == steps.state
    )
    yield Check(
        f"the post offices of {steps.state}, in order",
        in_order,
        [(each.name, each.pincode, each.number) for each in of_state],
    )


def check_transfer(cluster: Cluster, seen: Transfer) -> Iterator[Check]:
    """The money was moved, none was made, and both shards committed as one."""
    payer, payee = seen.before
    yield Check("rupees of the payer", seen.before[payer] - RUPEES, seen.after[payer])
    yield Check("rupees of the payee", seen.before[payee] + RUPEES, seen.after[payee])
    yield Check("rupees in all, before and after", seen.sum_before, seen.sum_after)
    both = sorted(set(seen.shards.values()))
    yield Check(
        "shards that committed the transfer as one",
        " and ".join(both),
        "; ".join(" and ".join(sorted(commit.participants)) for commit in seen.commits),
    )
    yield Check("transactions left in doubt", 0, len(cluster.in_doubt()))


def check_cluster(cluster: Cluster) -> Check:
    """The same as ``shards check``."""
    failures = cluster.check(Base.metadata).failures
    return Check("faults that cluster.check() finds", [], [str(each) for each in failures])
