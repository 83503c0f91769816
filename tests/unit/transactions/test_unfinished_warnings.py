from __future__ import annotations

import warnings

from sqlalchemy_shards.errors import TransactionUnfinished
from sqlalchemy_shards.transactions.commit import CommitResult


def test_each_unfinished_transaction_is_shown_though_it_waits_for_the_same_shard() -> None:
    errors = [
        CommitResult(gid, ("s0", "s1"), {"s1": OSError()}).unfinished_error()
        for gid in ("shards/1/a", "shards/1/b")
    ]

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for error in errors:
            assert isinstance(error, TransactionUnfinished)
            warnings.warn(error, stacklevel=1)

    assert [one.message for one in shown] == errors
