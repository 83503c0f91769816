"""Every row of the failure table happens, and ends as the table says.

The table is that of `docs/decisions/0019-what-fails-when.md`: its sections are the arrows, its rows
the faults, its columns the moments. It is read here, so that it and the tests are one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.arrows import ARROWS, Arrow, Fault, When
from tests.faults.trial import try_fault

if TYPE_CHECKING:
    from tests.faults.world import World

RECORD = Path(__file__).parents[2] / "docs" / "decisions" / "0019-what-fails-when.md"
EVERYTHING = [
    (arrow, fault, when)
    for arrow in ARROWS
    for fault in arrow.faults
    for when in When
    if fault is not Fault.OTHER_SERVER or arrow.other
]

# What a killed backend leaves is between a killed server and a lost connection; a client that is
# dead, or that gives up by its own clock, meets nothing of PostgreSQL or SQLAlchemy that differs.
ALIKE = (Fault.BACKEND, Fault.CLIENT, Fault.HANG)


def cells() -> dict[tuple[str, str, str], str]:
    """(arrow, fault, moment) -> what the table says of it."""
    found = {}
    for section in re.split(r"^### ", RECORD.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        arrow = section.partition("\n")[0].strip()
        rows = [_columns(line) for line in section.splitlines() if line.startswith("|")]
        _, *moments = rows[0]
        for fault, *said in rows[2:]:
            for moment, cell in zip(moments, said, strict=True):
                found[arrow, fault, moment] = cell
    return found


def test_the_table_has_a_cell_for_each_fault_at_each_arrow() -> None:
    expected = {(arrow.name, fault.value, when.value) for arrow, fault, when in EVERYTHING}

    assert set(cells()) == expected


@pytest.mark.parametrize(
    ("arrow", "fault", "when"),
    [
        pytest.param(
            *case,
            id=f"{case[0].name}, {case[1].value} {case[2].value}",
            marks=pytest.mark.slow if case[1] in ALIKE else (),
        )
        for case in EVERYTHING
    ],
)
def test_a_fault_ends_as_the_table_says(
    world: World, arrow: Arrow, fault: Fault, when: When
) -> None:
    said = cells()[arrow.name, fault.value, when.value]

    verdict = try_fault(world, arrow, fault, when)

    assert str(verdict) in said.split(" or ")


def _columns(line: str) -> list[str]:
    return [column.strip().strip("`") for column in line.strip().strip("|").split("|")]
