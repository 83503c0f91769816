"""In what shards differ, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy_shards.cluster.readiness.report import some

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT_SHOWN: Final = 100
"""Longer values, and those of several lines, are shown where they begin to differ."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that some shards have otherwise.

    :param shards: those that differ.
    :param against: from the other shards, or from the models.
    :param subject: what it is about, such as "column users.email".
    :param aspect: what about it, such as "default"; None: itself.
    :param found: what these shards have; None: nothing.
    :param expected: what the other shards, or the models, have; None: nothing.
    """

    shards: tuple[str, ...]
    against: Literal["shards", "models"]
    subject: str
    aspect: str | None
    found: str | None
    expected: str | None

    @property
    def sentence(self) -> str:
        """What differs, without the shards."""
        among_shards = self.against == "shards"
        elsewhere = "elsewhere" if among_shards else "in the models"
        if self.aspect is None and self.found is None:
            return f"{self.subject} is missing"
        if self.aspect is None and self.expected is None:
            where = "the other shards" if among_shards else "the models"
            return f"{self.subject} is there, and not {'on' if among_shards else 'in'} {where}"
        found, expected = _shown(self.found or "none", self.expected or "none")
        about = "" if self.aspect is None else f": {self.aspect}"
        return f"{self.subject}{about} is {found}, {elsewhere} {expected}"

    def __str__(self) -> str:
        return f"{some(self.shards)}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class DriftReport:
    """In what the shards of a cluster differ; ``str()`` has a line for each difference.

    :param cluster: its name.
    :param shards: those that were looked at, in the cluster's order.
    :param differences: first those between shards, then those from the models.
    :param not_seen: shards that were not looked at, or not compared with the models, and why.
    :param notes: what is no fault, and worth knowing.
    """

    cluster: str
    shards: tuple[str, ...]
    differences: tuple[Difference, ...] = ()
    not_seen: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether every shard was looked at, and none differs."""
        return not self.differences and not self.not_seen

    @property
    def differing(self) -> tuple[str, ...]:
        """The shards that differ in anything, in the cluster's order."""
        found = {shard for each in self.differences for shard in each.shards}
        return tuple(shard for shard in self.shards if shard in found)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "cluster": self.cluster,
            "is_clean": self.is_clean,
            "shards": list(self.shards),
            "differences": [
                {
                    "shards": list(each.shards),
                    "against": each.against,
                    "subject": each.subject,
                    "aspect": each.aspect,
                    "found": each.found,
                    "expected": each.expected,
                }
                for each in self.differences
            ],
            "not_seen": dict(self.not_seen),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        not_seen = [f"{shard}: not looked at: {why}" for shard, why in self.not_seen.items()]
        return "\n".join([*map(str, self.differences), *not_seen, *self.notes])


def _shown(found: str, expected: str) -> tuple[str, str]:
    """Two values that differ, on one line each."""
    if max(len(found), len(expected)) <= TEXT_SHOWN and "\n" not in found + expected:
        return found, expected
    mine, others = found.splitlines(), expected.splitlines()
    same = 0
    while same < min(len(mine), len(others)) and mine[same] == others[same]:
        same += 1

    def line(lines: list[str]) -> str:
        if same >= len(lines):
            return f"of {len(lines)} lines"
        return f"{_cut(lines[same].strip())!r} in line {same + 1}"

    return line(mine), line(others)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}..."
