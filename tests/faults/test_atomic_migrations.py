"""Migrations of all shards or none: whatever breaks at any arrow, none is half done.

They end as any transaction over several shards, as the table of
`docs/decisions/0019-what-fails-when.md` has it; and what the run says of its end is true.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards.migrations.atomic.ending import Outcome
from tests.faults.arrows import Arrow, Fault, When
from tests.faults.migrating import (
    AFTER,
    BEFORE,
    Migrate,
    arrows_of,
    begin,
    done,
    end,
    states,
    write_scripts,
)
from tests.faults.test_failure_table import cells
from tests.faults.trial import COMMITTED, try_fault
from tests.faults.world import SHARDS, cluster_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.world import World

pytestmark = pytest.mark.slow

EVERYTHING = os.environ.get("SHARDS_FAULT_MIGRATIONS") == "all"
QUICK = (Fault.CLIENT, Fault.LOST)
"""Faults that are tried in each run, at each arrow."""
CRASHES = [
    (name, Fault.SERVER, When.DURING)
    for name in ("statement", "prepare", "decision", "commit prepared")
]
CASES = [
    pytest.param(*case, id=f"{case[0]}, {case[1].value} {case[2].value}")
    for arrow in arrows_of(Path())
    for fault in arrow.faults
    for when in When
    if fault is not Fault.OTHER_SERVER or arrow.other
    if EVERYTHING or fault in QUICK or (arrow.name, fault, when) in CRASHES
    for case in [(arrow.name, fault, when)]
]
TRUE_OF = {
    Outcome.MIGRATED: {COMMITTED},
    Outcome.UNFINISHED: {COMMITTED},
    Outcome.NOTHING_MIGRATED: {"aborted"},
    Outcome.UNKNOWN: {COMMITTED, "aborted"},
}


@pytest.fixture
def scripts(world: World, tmp_path: Path) -> Iterator[Path]:
    """A script directory, for shards without a trace of its migrations."""
    write_scripts(tmp_path)
    begin(world)
    yield tmp_path
    end(world)


@pytest.mark.parametrize(("name", "fault", "when"), CASES)
def test_a_fault_leaves_all_shards_migrated_or_none(
    world: World, scripts: Path, name: str, fault: Fault, when: When
) -> None:
    [arrow] = [each for each in arrows_of(scripts) if each.name == name]
    said = cells()[name, fault.value, when.value].split(" or ")

    verdict = try_fault(world, arrow, fault, when)

    is_committed = verdict.outcome == COMMITTED
    assert states(world) == [AFTER if is_committed else BEFORE] * len(SHARDS)
    assert done(world) == [is_committed] * len(SHARDS)
    assert str(verdict) in said
    assert_told_truly(arrow, verdict.outcome)
    assert_same_command_finishes(world, scripts)


def assert_told_truly(arrow: Arrow, outcome: str) -> None:
    assert isinstance(arrow.action, Migrate)
    if arrow.action.told is not None:
        assert outcome in TRUE_OF[arrow.action.told]


def assert_same_command_finishes(world: World, scripts: Path) -> None:
    with cluster_of(world.direct) as cluster:
        Migrate(scripts)(cluster)
    assert states(world) == [AFTER] * len(SHARDS)
    assert world.prepared() == {}
