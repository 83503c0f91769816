"""How a run of all shards or none is told of when it has ended."""

from __future__ import annotations

import doctest
from asyncio import CancelledError

import pytest

from sqlalchemy_shards.migrations.atomic import ending
from sqlalchemy_shards.migrations.atomic.ending import Ending, Outcome


def test_examples() -> None:
    assert doctest.testmod(ending).failed == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CancelledError()], ids=repr)
def test_one_that_was_stopped_has_not_failed(error: BaseException) -> None:
    stopped = Ending(Outcome.NOTHING_MIGRATED, shard="s1", revision="a1", error=error)

    assert stopped.is_interrupted
    assert stopped.sentence() == (
        "nothing was migrated: interrupted in revision 'a1' on shard 's1'; every shard is where it"
        " was"
    )
    assert stopped.as_dict()["error"] == "interrupted"
