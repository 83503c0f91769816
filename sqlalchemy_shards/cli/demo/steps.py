"""Runs the demo's queries and its transfer, and notes what each did: code, result, time, plan."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import event, func, select

from sqlalchemy_shards.cli.demo import queries
from sqlalchemy_shards.cli.demo.load import pincodes_of
from sqlalchemy_shards.cli.demo.models import Account, PostOffice
from sqlalchemy_shards.events import DistributedCommit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy.orm import ORMExecuteState, sessionmaker

    from sqlalchemy_shards import Cluster, Explanation, ShardedSession
    from sqlalchemy_shards.cli.demo.data import Record

RUPEES: Final = 250
T = TypeVar("T")

_SHOWN_PINCODE: Final = 110001
_SHOWN_STATE: Final = "KERALA"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done.

    :param code: the lines that did it, with the values of their parameters before them.
    :param seconds: how long it took, the first time and, where it was done again, the second.
    :param lines: its result, for a person.
    :param plans: where each statement went.
    """

    title: str
    code: str
    seconds: tuple[float, ...]
    lines: tuple[str, ...]
    plans: tuple[Explanation, ...]
    value: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is known of a transfer: shard by PIN code, rupees before and after, its commits."""

    shards: Mapping[int, str]
    before: Mapping[int, int]
    after: Mapping[int, int]
    sum_before: int
    sum_after: int
    commits: tuple[DistributedCommit, ...]


class Steps:
    """The steps, one method each.

    :param records: what the shards were filled with; decides which values are shown.
    """

    def __init__(
        self,
        cluster: Cluster,
        session_factory: sessionmaker[ShardedSession],
        records: Sequence[Record],
    ) -> None:
        self._cluster = cluster
        self._sessions = session_factory
        pincodes = Counter(record.pincode for record in records)
        states = Counter(record.state for record in records if record.state is not None)
        self.pincode = _this_or_most_common(_SHOWN_PINCODE, pincodes)
        self.state = _this_or_most_common(_SHOWN_STATE, states)
        self.payer, self.payee = self._on_different_shards(pincodes_of(records))

    def one_pincode(self) -> Step:
        """The offices of one PIN code."""
        arguments = {"pin": self.pincode}
        offices, seconds, plans = self._ask(queries.offices_of_pincode, arguments)
        shard = self._cluster.shard_for(PostOffice, self.pincode)
        return Step(
            "One PIN code lives on one shard",
            shown_code(queries.offices_of_pincode, arguments),
            seconds,
            (f"{_counted(offices)}, all on {shard}", *_some(offices)),
            plans,
            offices,
        )

    def one_state(self) -> Step:
        """The offices of one state, from all shards."""
        arguments = {"state": self.state}
        offices, seconds, plans = self._ask(queries.offices_of_state, arguments)
        spread = Counter(self._cluster.shard_for(PostOffice, each.pincode) for each in offices)
        origin = ", ".join(f"{spread[name]:,} from {name}" for name in self._cluster.shards)
        return Step(
            "One state's offices come from all shards, merged in order",
            shown_code(queries.offices_of_state, arguments),
            seconds,
            (f"{_counted(offices)}: {origin}", *_some(offices)),
            plans,
            offices,
        )

    def totals(self) -> Step:
        """Count and sum over all shards."""
        (count, total), seconds, plans = self._ask(queries.totals, {})
        return Step(
            "Totals add up over all shards",
            shown_code(queries.totals, {}),
            seconds,
            (f"{count:,} post offices; their PIN codes add up to {total:,}",),
            plans,
            (count, total),
        )

    def transfer(self) -> Step:
        """Move money between two shards."""
        arguments = {"payer": self.payer, "payee": self.payee, "rupees": RUPEES}
        commits: list[DistributedCommit] = []
        self._cluster.hooks.listen(DistributedCommit, commits.append)
        before, sum_before = self._accounts()
        with self._watched() as plans_of:
            began = perf_counter()
            queries.transfer(self._sessions, **arguments)
            seconds = perf_counter() - began
        commits_seen = tuple(commits)
        after, sum_after = self._accounts()
        shards = {pin: self._cluster.shard_for(Account, pin) for pin in before}
        seen = Transfer(shards, before, after, sum_before, sum_after, commits_seen)
        return Step(
            "A transfer between two shards: both or neither",
            shown_code(queries.transfer, arguments),
            (seconds,),
            tuple(_transfer_lines(seen)),
            plans_of(),
            seen,
        )

    def per_shard(self) -> Step:
        """Rows of each shard."""
        counts: dict[str, int] = {}
        plans: tuple[Explanation, ...] = ()
        seconds = 0.0
        for shard in self._cluster.shards:
            arguments = {"shard": shard}
            counts[shard], times, plans = self._ask(queries.offices_on_shard, arguments, times=1)
            seconds += sum(times)
        return Step(
            "Rows per shard",
            shown_code(queries.offices_on_shard, {}),
            (seconds,),
            (),
            plans,
            counts,
        )

    def _ask(
        self, query: Callable[..., Any], arguments: Mapping[str, Any], *, times: int = 2
    ) -> tuple[Any, tuple[float, ...], tuple[Explanation, ...]]:
        """Run a query, each time in a session of its own."""
        seconds = []
        with self._watched() as plans_of:
            for _ in range(times):
                with self._sessions() as session:
                    began = perf_counter()
                    value = query(session, **arguments)
                    seconds.append(perf_counter() - began)
        plans = plans_of()
        return value, tuple(seconds), plans[: len(plans) // times]

    @contextmanager
    def _watched(self) -> Iterator[Callable[[], tuple[Explanation, ...]]]:
        """Yield what explains the statements that sessions execute inside the block."""
        seen: list[ORMExecuteState] = []
        listener = seen.append
        event.listen(self._sessions, "do_orm_execute", listener)
        try:
            yield lambda: tuple(self._explained(state) for state in seen)
        finally:
            event.remove(self._sessions, "do_orm_execute", listener)

    def _explained(self, state: ORMExecuteState) -> Explanation:
        shard = state.execution_options.get("shard")
        options = {} if shard is None else {"shard": shard}
        parameters: Any = state.parameters or {}
        return self._cluster.explain(state.statement, parameters, **options)

    def _accounts(self) -> tuple[dict[int, int], int]:
        """Rupees of the two accounts, and of all."""
        with self._sessions() as session:
            two = {pin: session.get_one(Account, pin).rupees for pin in (self.payer, self.payee)}
            return two, session.scalar(select(func.sum(Account.rupees))) or 0

    def _on_different_shards(self, pincodes: Sequence[int]) -> tuple[int, int]:
        payer = pincodes[0]
        home = self._cluster.shard_for(Account, payer)
        return payer, next(pin for pin in pincodes if self._cluster.shard_for(Account, pin) != home)


def _this_or_most_common(value: T, counts: Counter[T]) -> T:
    return value if value in counts else counts.most_common(1)[0][0]


def shown_code(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the source of a function's body, after assignments of its arguments."""
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    first = definition.body[1]  # behind the docstring
    body = textwrap.dedent("\n".join(source.splitlines()[first.lineno - 1 :]))
    names = ", ".join(arguments)
    values = ", ".join(map(repr, arguments.values()))
    return f"{names} = {values}\n{body}" if arguments else body


def _counted(offices: Sequence[PostOffice]) -> str:
    return f"{len(offices):,} post office{'' if len(offices) == 1 else 's'}"


def _some(offices: Sequence[PostOffice]) -> Iterator[str]:
    """The first offices and the last."""
    shown = [*offices[:3], *offices[3:][-1:]]
    for index, office in enumerate(shown):
        if index == 3 and len(offices) > 4:
            yield "  …"
        yield f"  {office.pincode} {office.name}, {office.district or '(no district)'}"


def _transfer_lines(seen: Transfer) -> Iterator[str]:
    for pin, shard in seen.shards.items():
        yield (f"account {pin} on {shard}: {seen.before[pin]:,} → {seen.after[pin]:,} rupees")
    for commit in seen.commits:
        shards = " and ".join(commit.participants)
        yield f"committed on {shards} in {commit.seconds * 1000:.1f} ms by two-phase commit"
        yield f"  {commit.gid}"
