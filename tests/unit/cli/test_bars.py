from __future__ import annotations

import pytest

from sqlalchemy_shards.cli.output import bar


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0.0, ""), (1.0, "████"), (0.5, "██"), (0.375, "█▌"), (0.001, ""), (0.04, "▏")],
)
def test_a_bar_is_as_long_as_its_share_in_eighths(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn
