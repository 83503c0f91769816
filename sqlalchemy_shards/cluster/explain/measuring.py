"""Runs a statement and takes note of what each of its steps took.

Answers are looked at when the clock has stopped: to count bytes takes time of its own.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .measured import PLAN, READ, Measured, MeasuredStep
from .observing import KEYS, MERGE, SHIP, SHIP_AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection, CursorResult

    from sqlalchemy_shards.cluster.dispatch.work import Dispatch

ROWS_PER_READ: Final = 1000
_COUNTED: Final = (KEYS, SHIP, SHIP_AGAIN)


class _Step(NamedTuple):
    name: str
    shard: str | None
    seconds: float
    answer: _Answer


class Measuring:
    """An observer of one statement.

    :param shards: all of the cluster, in its order.
    """

    def __init__(self, shards: Sequence[str]) -> None:
        self.decided: list[Dispatch] = []
        self._shards = shards
        self._steps: list[_Step] = []
        self._began = 0.0

    def on_dispatch(self, decided: Dispatch) -> None:
        """What was decided; more than once where it was mistaken about the rows."""
        if not self.decided:
            self.on_step(PLAN, None, perf_counter() - self._began, None)
        self.decided.append(decided)

    def on_step(self, name: str, shard: str | None, seconds: float, answer: Any) -> None:
        """A step was done."""
        self._steps.append(
            _Step(name, shard, seconds, _Answer(answer, is_shipped=name in _COUNTED))
        )

    def run(
        self,
        connection: Connection,
        statement: Any,
        parameters: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Measured:
        """Run a statement, and read all of its rows."""
        options = {**options, "preserve_rowcount": True}
        self._began = perf_counter()
        with connection.execute(statement, dict(parameters), execution_options=options) as result:
            rows = self._read(result) if result.returns_rows else None
            seconds = perf_counter() - self._began
            if rows is None and result.rowcount >= 0:
                rows = result.rowcount
        return Measured(tuple(self._measured()), rows, seconds)

    def _read(self, result: CursorResult[Any]) -> int:
        """Read all rows: how many."""
        began, count, before = perf_counter(), 0, len(self._steps)
        while rows := result.fetchmany(ROWS_PER_READ):
            count += len(rows)
        # A server-side cursor is asked for more rows meanwhile: steps of their own.
        taken = sum(step.seconds for step in self._steps[before:])
        last = self.decided[-1]
        name = READ if last.merge is None or last.gather is not None else MERGE
        self.on_step(name, None, perf_counter() - began - taken, range(count))
        return count

    def _measured(self) -> Iterator[MeasuredStep]:
        """The steps, those of one name and shard added up."""
        for name in dict.fromkeys(step.name for step in self._steps):
            for shard in (None, *self._shards):
                own = [step for step in self._steps if (step.name, step.shard) == (name, shard)]
                if own:
                    yield _added_up(own)


class _Answer:
    """What a step gave, as far as it can be counted.

    :param answer: a driver's cursor, rows, or what has no rows.
    :param is_shipped: it is what has counted shipped rows.
    """

    def __init__(self, answer: Any, *, is_shipped: bool) -> None:
        self._size: int | None = answer.size if is_shipped else None
        self._result = getattr(answer, "pgresult", None)  # it outlasts the cursor
        count = len(answer) if isinstance(answer, (list, range)) else -1
        count = answer.count if is_shipped else getattr(answer, "rowcount", count)
        self.rows = count if count >= 0 else None

    @property
    def bytes(self) -> int | None:
        """Of all values, as the server sent them; None: not known."""
        if self._size is not None:
            return self._size
        result = self._result
        if result is None or not result.nfields or self.rows is None:
            return None
        return sum(
            len(result.get_value(row, column) or b"")
            for row in range(result.ntuples)
            for column in range(result.nfields)
        )


def _added_up(steps: Sequence[_Step]) -> MeasuredStep:
    rows = [step.answer.rows for step in steps if step.answer.rows is not None]
    counts = [step.answer.bytes for step in steps if step.answer.rows != 0 or len(steps) == 1]
    known = [count for count in counts if count is not None]
    return MeasuredStep(
        steps[0].name,
        steps[0].shard,
        sum(rows) if rows else None,
        sum(known) if known and len(known) == len(counts) else None,
        sum(step.seconds for step in steps),
    )
