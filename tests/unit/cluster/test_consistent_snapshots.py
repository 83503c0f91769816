from __future__ import annotations

import pytest

from sqlalchemy_shards.cluster.enlistment.consistent import checked
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.snapshots import Snapshot


def test_a_snapshot_of_a_primary_with_markers_is_taken() -> None:
    snapshot = Snapshot("a", "3:5:3", has_markers=True)

    assert checked("s1", snapshot) is snapshot


def test_a_standby_does_not_tell_what_is_under_way() -> None:
    snapshot = Snapshot("a", "3:5:", has_markers=True, is_standbys=True)

    with pytest.raises(ConfigurationError, match="'s1' leads to a standby") as caught:
        checked("s1", snapshot)

    assert caught.value.shard == "s1"


@pytest.mark.parametrize("snapshot", [None, Snapshot("a", "3:5:", has_markers=False)])
def test_a_shard_without_markers_is_refused(snapshot: Snapshot | None) -> None:
    with pytest.raises(ConfigurationError, match="has not recorded"):
        checked("s1", snapshot)
