"""How far a shard is, by its revisions and those of the script directory. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from alembic.util import to_tuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from alembic.script import ScriptDirectory


class Standing(str, Enum):
    """Where a shard stands."""

    AT_HEAD = "at head"
    BEHIND = "behind"
    AHEAD = "ahead"
    """It has a revision that the scripts do not know."""
    OTHER_BRANCH = "other branch"
    """It is behind, and has revisions that most shards have not, which have some that it lacks."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A shard's distance from the heads of the scripts.

    :param behind: how many revisions it lacks; None: it has one that the scripts do not know.
    :param unknown: the revisions that the scripts do not know.
    """

    standing: Standing
    behind: int | None
    unknown: tuple[str, ...] = ()


class Revisions:
    """The revisions of a script directory, each with those that come before it.

    :param before: revision -> those that it comes after, by order or by dependency.
    """

    def __init__(self, before: Mapping[str, Iterable[str]]) -> None:
        self._before = {revision: frozenset(known) for revision, known in before.items()}

    @classmethod
    def of(cls, script: ScriptDirectory) -> Revisions:
        """Read a script directory."""
        return cls(
            {
                each.revision: [
                    *to_tuple(each.down_revision, ()),
                    *(
                        known.revision
                        for name in to_tuple(each.dependencies, ())
                        for known in script.get_revisions(name)
                        if known is not None
                    ),
                ]
                for each in script.walk_revisions()
            }
        )

    def reached(self, current: Iterable[str]) -> frozenset[str]:
        """The known revisions that a shard has gone through."""
        reached: set[str] = set()
        left = [revision for revision in current if revision in self._before]
        while left:
            revision = left.pop()
            if revision not in reached:
                reached.add(revision)
                left += self._before[revision] & self._before.keys()
        return frozenset(reached)

    def distances(self, current: Mapping[str, Iterable[str]]) -> dict[str, Distance]:
        """How far shards are.

        :param current: shard -> what its version table tells.
        """
        reached = {shard: self.reached(revisions) for shard, revisions in current.items()}
        usual = _most_common(reached.values())
        return {
            shard: self._distance(frozenset(current[shard]), reached[shard], usual)
            for shard in current
        }

    def _distance(
        self, current: frozenset[str], reached: frozenset[str], usual: frozenset[str]
    ) -> Distance:
        unknown = tuple(sorted(current - self._before.keys()))
        if unknown:
            return Distance(Standing.AHEAD, None, unknown)
        behind = len(self._before) - len(reached)
        if not behind:
            return Distance(Standing.AT_HEAD, 0)
        is_aside = bool(reached - usual and usual - reached)
        return Distance(Standing.OTHER_BRANCH if is_aside else Standing.BEHIND, behind)


def _most_common(reached: Iterable[frozenset[str]]) -> frozenset[str]:
    """What most shards have gone through; of several, the most."""
    counts = Counter(reached)
    return max(
        counts, key=lambda each: (counts[each], len(each), sorted(each)), default=frozenset()
    )
