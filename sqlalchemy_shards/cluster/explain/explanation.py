"""What a statement does, as data and as a readable tree: told before it does it, or measured."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import takewhile
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from typing_extensions import assert_never

from sqlalchemy_shards.plan import (
    Aggregate,
    AggregateRow,
    Concatenate,
    FirstCopy,
    ForeignOrder,
    Gather,
    GivenOrder,
    GroupedMerge,
    GroupKey,
    KeyChoice,
    Moved,
    OrderedMerge,
    SumOfCounts,
    Tier,
    Window,
)

from .observing import AT_WORKSPACE, KEYS, MERGE, RUN, SHIP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy_shards.cluster.dispatch.work import Dispatch
    from sqlalchemy_shards.plan import KeyList, Merge, Shipped, SortKey, TextKey

    from .measured import Measured, MeasuredStep


WIDTH: Final = 100
"""How long lines of the tree may be."""


@dataclass(frozen=True, slots=True)
class ShardStep:
    """What one shard runs.

    :param name: what the step is called where it is measured.
    """

    shard: str
    sql: str
    name: str = RUN


_OF_BRANCHES: Final = frozenset({KEYS, RUN, SHIP, AT_WORKSPACE, MERGE})
"""Steps that belong to what was planned; others have branches of their own."""

_SET_OPERATION: Final = re.compile(r" ((?:UNION|INTERSECT|EXCEPT)(?: ALL)? SELECT )")


class ExplainedBranch(NamedTuple):
    """A branch of the tree.

    :param text: what it says; empty: its details say it all.
    :param details: what was measured.
    :param is_sql: the text is a statement.
    """

    title: str
    text: str
    details: tuple[str, ...] = ()
    is_sql: bool = False

    def lines(self, width: int = WIDTH) -> list[str]:
        """Its lines; a long statement has one for each clause, below the title."""
        if not self.text:
            return [f"{self.title}: {'; '.join(self.details)}"]
        own = [f"{self.title}: {' '.join(self.text.split())}"]
        if len(own[0]) > width:
            own = _wrapped(own[0], width)
            if self.is_sql:
                own = [f"{self.title}:", *_clauses(self.text, width)]
        return [*own, *(f"  · {detail}" for detail in self.details)]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a statement runs and how its result is made; ``str()`` is a readable tree.

    :param tier: how much work stands between the shards' rows and the answer.
    :param shards: the shards, in the cluster's order; none: the answer has no rows.
    :param reason: why these.
    :param steps: what each shard runs; parameters are shown by name.
    :param merge: how the shards' answers become one, None where one shard answers alone.
    :param obstacle: why the shards alone cannot answer, None where they can.
    :param workspace: where shipped rows are brought, None where none are.
    :param measured: what it took, where it was run (``analyze=True``).
    :param supplied: what is shipped to the shards that write.
    :param answers: subqueries that are answered before they write.
    """

    tier: Tier
    shards: tuple[str, ...]
    reason: str
    steps: tuple[ShardStep, ...]
    merge: Merge | None
    workspace: str | None = None
    obstacle: str | None = None
    measured: Measured | None = None
    supplied: tuple[Shipped, ...] = ()
    answers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        shipped = self.merge.shipped if isinstance(self.merge, Gather) else self.supplied
        key_lists = self.merge.key_lists if isinstance(self.merge, Gather) else ()
        return {
            "tier": self.tier.value,
            "shards": list(self.shards),
            "reason": self.reason,
            **({"obstacle": self.obstacle} if self.obstacle else {}),
            "steps": [{"shard": step.shard, "sql": step.sql} for step in self.steps],
            "merge": None if self.merge is None else spoken_merge(self.merge),
            **({"answers": list(self.answers)} if self.answers else {}),
            **({"ships": [_shipment(each) for each in shipped]} if shipped else {}),
            **({"key_lists": [_key_list(each) for each in key_lists]} if key_lists else {}),
            **({"workspace": self.workspace} if self.workspace else {}),
            **({"measured": self.measured.as_dict()} if self.measured else {}),
        }

    def branches(self) -> list[ExplainedBranch]:
        """What hangs below the first line of its tree."""
        left = _Unshown(self.measured.steps if self.measured else ())
        first = [ExplainedBranch("why", self.obstacle)] if self.obstacle else []
        for name in takewhile(lambda name: name not in _OF_BRANCHES, left.names()):
            first.append(ExplainedBranch(name, "", left.taken([name])))
        planned = [*self._shipments(), *self._statements(left), *self._end(left)]
        others = [ExplainedBranch(name, "", left.taken([name])) for name in left.names()]
        total = [] if self.measured is None else [ExplainedBranch("in all", str(self.measured))]
        return [*first, *planned, *others, *total]

    def _shipments(self) -> Iterator[ExplainedBranch]:
        for number, sql in enumerate(self.answers, 1):
            yield ExplainedBranch(f"answer {number}, before", sql, is_sql=True)
        for each in self.supplied:
            yield ExplainedBranch(f"ships {each.origin}, before", _spoken_shipment(each))
        if isinstance(self.merge, Gather):
            for each in self.merge.shipped:
                yield ExplainedBranch(f"ships {each.origin}", _spoken_shipment(each))
            for keys in self.merge.key_lists:
                yield ExplainedBranch(f"keys of {keys.keys_origin}", _spoken_key_list(keys))

    def _statements(self, left: _Unshown) -> Iterator[ExplainedBranch]:
        """Each statement once, with all shards that run it."""
        shards_of: dict[tuple[str, str], list[str]] = {}
        for step in self.steps:
            shards_of.setdefault((step.name, step.sql), []).append(step.shard)
        for (name, sql), shards in shards_of.items():
            details = left.taken([name], shards)
            title = ", ".join(shards)
            title = f"{title} for keys" if name == KEYS else title
            yield ExplainedBranch(title, sql, details, is_sql=True)

    def _end(self, left: _Unshown) -> Iterator[ExplainedBranch]:
        """How the answers become one."""
        if self.merge is None:
            return
        told = spoken_merge(self.merge)
        if isinstance(self.merge, Gather):
            details = left.taken([AT_WORKSPACE])
            yield ExplainedBranch("workspace", f"on {self.workspace}, {told}", details)
        else:
            yield ExplainedBranch("merge", told, left.taken([AT_WORKSPACE, MERGE]))

    def __str__(self) -> str:
        shards = ", ".join(self.shards)
        lines = [f"{self.tier.value}: {shards or 'no shard'}, because {self.reason}"]
        branches = self.branches()
        for index, branch in enumerate(branches):
            is_last = index == len(branches) - 1
            first, *more = branch.lines()
            lines.append(f"{'└─' if is_last else '├─'} {first}")
            lines += [f"{'  ' if is_last else '│ '} {line}" for line in more]
        return "\n".join(lines)


class _Unshown:
    """The measured steps that no branch has shown yet."""

    def __init__(self, steps: Sequence[MeasuredStep]) -> None:
        self._steps = list(steps)

    def names(self) -> list[str]:
        return list(dict.fromkeys(step.name for step in self._steps))

    def taken(self, names: Sequence[str], shards: Iterable[str] | None = None) -> tuple[str, ...]:
        """Lines about the steps of these names, of all shards or of some; each is shown once."""
        wanted = None if shards is None else set(shards)
        own = [
            step
            for step in self._steps
            if step.name in names and (wanted is None or step.shard in wanted)
        ]
        self._steps = [step for step in self._steps if step not in own]
        if len(own) == 1 and shards is not None:
            return (str(own[0]),)
        several = len({step.name for step in own}) > 1
        return tuple(
            f"{step.shard or step.name}: {step}" if step.shard or several else str(step)
            for step in own
        )


def explanation_of(
    decided: Dispatch, workspace: str, measured: Measured | None = None
) -> Explanation:
    """Tell of a decision.

    :param workspace: where it is, in words.
    """
    merge = decided.merge
    tier = Tier.SCATTER
    if not decided.works:
        tier = Tier.NO_QUERY
    elif merge is None:
        tier = Tier.SINGLE_SHARD
    elif isinstance(merge, FirstCopy):
        tier = Tier.EVERY_COPY
    elif isinstance(merge, Gather):
        tier = Tier.GATHER
    name = SHIP if tier is Tier.GATHER else RUN
    asking = decided.gather.asking if decided.gather else ()
    steps = [(KEYS, work) for work in asking] + [(name, work) for work in decided.works]
    return Explanation(
        tier=tier,
        shards=decided.route.shards,
        reason=decided.route.reason.value,
        steps=tuple(ShardStep(work.shard, str(work.sql), name) for name, work in steps),
        merge=merge,
        workspace=workspace if tier is Tier.GATHER else None,
        obstacle=decided.obstacle,
        measured=measured,
        supplied=() if decided.supply is None else decided.supply.shipped,
        answers=() if decided.supply is None else decided.supply.asked,
    )


def spoken_merge(merge: Merge) -> str:
    """A merge in words."""
    match merge:
        case Concatenate(window):
            return "rows one after another" + _spoken_window(window)
        case OrderedMerge(keys, _, window):
            return f"k-way merge by {_spoken_sort_keys(keys)}" + _spoken_window(window)
        case ForeignOrder(keys, _, window):
            told = f"put in order by PostgreSQL by {_spoken_sort_keys(keys)}"
            return told + _spoken_window(window)
        case AggregateRow(functions, window):
            return f"one row: {_spoken_columns(functions)}" + _spoken_window(window)
        case GroupedMerge(columns, visible, order, window):
            return (
                f"groups with equal keys made one: {_spoken_columns(columns[:visible])}"
                + _spoken_order(order)
                + _spoken_window(window)
            )
        case SumOfCounts():
            return "row counts add up"
        case Gather(shipped, _, head):
            origins = ", ".join(each.origin for each in shipped)
            if head is None:
                return f"PostgreSQL runs the statement over the shipped rows of {origins}"
            told = ", ".join(f"{each.rows.value} of {each.origin}" for each in shipped)
            return f"PostgreSQL puts together {told}: {head}"
        case GivenOrder():
            return "row counts add up, returned rows in the order given"
        case Moved(into):
            return f"the rows of the SELECT are read, and inserted into {into}"
        case FirstCopy():
            return "the first shard's answer stands for all"
        case _:
            assert_never(merge)


def _spoken_shipment(shipped: Shipped) -> str:
    columns, shards = ", ".join(shipped.columns), ", ".join(shipped.shards)
    return f"{shipped.rows.value}, with {columns}, from {shards}"


def _spoken_key_list(keys: KeyList) -> str:
    shards, keys_shards = ", ".join(keys.shards), ", ".join(keys.keys_shards)
    rows = f"an estimated {keys.expected_rows:,} each"
    chosen = f"choose the rows of {keys.origin} that {shards} ship"
    expected = f"an estimated {keys.expected_keys or 0:,}"
    match keys.choice:
        case KeyChoice.SHIPPED_FIRST:
            return f"those from {keys_shards} {chosen}, else {rows}"
        case KeyChoice.ASKED_FIRST:
            left = (
                f"then an estimated {keys.expected_with_keys:,} each, else {keys.expected_rows:,}"
            )
            return f"{keys_shards} are asked for them first, {expected}; they {chosen}: {left}"
        case KeyChoice.TOO_MANY | KeyChoice.TOO_FEW_ROWS:
            told = f"not given to {shards}, which ship {rows} of {keys.origin}"
            return f"{told}: {keys.choice.value}, {expected}"
        case _:
            assert_never(keys.choice)


def _key_list(keys: KeyList) -> dict[str, Any]:
    return {**asdict(keys), "choice": keys.choice.value}


_SPOKEN = {
    Aggregate.COUNT: "counts add up",
    Aggregate.SUM: "sums add up",
    Aggregate.MIN: "the least",
    Aggregate.MAX: "the greatest",
    Aggregate.BOOL_AND: "whether all are true",
    Aggregate.EVERY: "whether all are true",
    Aggregate.BOOL_OR: "whether any is true",
    Aggregate.BIT_AND: "the bits of all",
    Aggregate.BIT_OR: "the bits of any",
    Aggregate.BIT_XOR: "the bits of an odd number",
    Aggregate.ANY_VALUE: "the same in all",
}


def _spoken_columns(columns: Sequence[GroupKey | Aggregate]) -> str:
    return ", ".join(
        "key" if isinstance(column, GroupKey) else _SPOKEN[column] for column in columns
    )


def _spoken_sort_keys(keys: Sequence[SortKey | TextKey]) -> str:
    return ", ".join(
        f"sort key {index}{' descending' if key.descending else ''}"
        for index, key in enumerate(keys)
    )


def _spoken_order(order: Sequence[SortKey]) -> str:
    names = ", ".join(
        f"column {key.column + 1}{' descending' if key.descending else ''}" for key in order
    )
    return f", sorted by {names}" if names else ""


def _spoken_window(window: Window) -> str:
    parts = []
    if window.offset is not None:
        parts.append("OFFSET")
    if window.limit is not None:
        parts.append("LIMIT")
    return f", {' and '.join(parts)} applied afterwards" if parts else ""


def _shipment(shipped: Shipped) -> dict[str, Any]:
    return {
        "origin": shipped.origin,
        "rows": shipped.rows.value,
        "columns": list(shipped.columns),
        "shards": list(shipped.shards),
    }


def _clauses(sql: str, width: int) -> Iterator[str]:
    """A statement as SQLAlchemy breaks it into lines, none of them too long."""
    for line in _SET_OPERATION.sub(r"\n\1", sql).splitlines():
        yield from (f"  {part}" for part in _wrapped(line.strip(), width - 2))


def _wrapped(line: str, width: int) -> list[str]:
    return wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
