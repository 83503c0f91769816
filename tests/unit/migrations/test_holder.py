"""Who migrates a shard, or keeps another from joining, as a message names it."""

from __future__ import annotations

import doctest

from sqlalchemy_shards.migrations.turns import lock
from sqlalchemy_shards.migrations.turns.lock import Holder


def test_examples() -> None:
    assert doctest.testmod(lock).failed == 0


def test_one_that_may_not_be_seen_is_told_of_as_such() -> None:
    hidden = Holder(4711, None, None, None, None)

    assert str(hidden) == "server process 4711 (whose it is may not be seen by this role)"
