"""What a check of a cluster found, as data and as text."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")


class Status(enum.Enum):
    """How a finding came out; only ``FAILED`` makes a report unhealthy."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, on one shard or on all of them together.

    :param shard: its name; None: it is about the cluster as a whole.
    :param subject: what was looked at, such as "reachable", "identity" or "tables"; the runbook
        has a section for each.
    :param found: what was seen.
    :param advice: what to do, where it is not ok.
    """

    shard: str | None
    subject: str
    status: Status
    found: str
    advice: str | None = None

    def __str__(self) -> str:
        where = "cluster" if self.shard is None else self.shard
        advice = "" if self.advice is None else f"; {self.advice}"
        return f"{where}: {self.subject}: {self.status.value}: {self.found}{advice}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of a cluster found; ``str()`` has a line for each finding.

    :param cluster: its name.
    :param findings: first those of the cluster, then shard by shard, in the cluster's order.
    """

    cluster: str
    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing failed; warnings are allowed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that need something done."""
        return self._with(Status.FAILED)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that may become failures, or that only some applications mind."""
        return self._with(Status.WARNING)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "cluster": self.cluster,
            "is_healthy": self.is_healthy,
            "findings": [
                {
                    "shard": each.shard,
                    "subject": each.subject,
                    "status": each.status.value,
                    "found": each.found,
                    "advice": each.advice,
                }
                for each in self.findings
            ],
        }

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))

    def _with(self, status: Status) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.status is status)


def some(texts: Sequence[str], separator: str = ", ", shown_max: int = 5) -> str:
    """Return texts joined, or the first of them and how many more there are.

    >>> some(["a", "b", "c"], shown_max=2)
    'a, b and 1 more'
    """
    more = len(texts) - shown_max
    return separator.join(texts[:shown_max]) + (f" and {more} more" if more > 0 else "")


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    >>> listed(["s0", "s1", "s2"])
    's0, s1 and s2'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def shards_by(values: Mapping[str, T]) -> dict[T, list[str]]:
    """Return for each value the shards that have it.

    :param values: that of each shard.
    """
    shards: dict[T, list[str]] = {}
    for shard, value in values.items():
        shards.setdefault(value, []).append(shard)
    return shards


def told_by_shard(shards: Mapping[str, Sequence[str]]) -> str:
    """Return which shards have which value.

    >>> told_by_shard({"15": ["s0", "s1"], "16": ["s2"]})
    '15 on s0 and s1, 16 on s2'
    """
    return ", ".join(f"{value} on {listed(names)}" for value, names in shards.items())
