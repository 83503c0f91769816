from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards.transactions.gid import (
    LENGTH_BYTES_MAX,
    TransactionGid,
    cluster_of,
    parse,
    parse_transaction,
)

gids = st.builds(
    TransactionGid,
    st.uuids(),
    st.uuids(),
    st.uuids(),
    st.integers(min_value=1, max_value=2**64 - 1),
)

GOLDEN = (
    "shards/1/00000000000000000000000000000001/00000000000000000000000000000002"
    "/00000000000000000000000000000003/741/00000000000000000000000000000004"
)


@pytest.mark.slow
@given(gids)
def test_a_transaction_is_read_back_from_its_gid(gid: TransactionGid) -> None:
    assert parse_transaction(str(gid)) == gid
    assert parse(str(gid)) is None


@pytest.mark.slow
@given(gids, st.uuids())
def test_a_prepared_part_is_read_back_from_its_gid(gid: TransactionGid, shard: UUID) -> None:
    part = gid.part(shard)

    assert parse(str(part)) == part
    assert parse_transaction(str(part)) is None
    assert cluster_of(str(part)) == gid.cluster


@pytest.mark.slow
@given(gids, st.uuids())
def test_a_gid_is_short_enough_and_needs_no_quoting(gid: TransactionGid, shard: UUID) -> None:
    text = str(gid.part(shard))

    assert len(text.encode("ascii")) <= LENGTH_BYTES_MAX
    assert text.replace("/", "").isalnum()


@pytest.mark.slow
@given(st.text() | st.from_regex(r"shards/1/[0-9a-f/]*", fullmatch=True))
def test_whatever_is_read_is_written_the_same(text: str) -> None:
    part, transaction = parse(text), parse_transaction(text)

    assert part is None or str(part) == text
    assert transaction is None or str(transaction) == text


def test_the_first_format_never_changes() -> None:
    part = TransactionGid(UUID(int=1), UUID(int=2), UUID(int=3), 741).part(UUID(int=4))

    assert str(part) == GOLDEN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "_sa_5f3c",
        GOLDEN + "\n",
        GOLDEN + "/",
        GOLDEN.upper(),
        GOLDEN.replace("/741/", "/0741/"),
        GOLDEN.replace("/741/", "/0/"),
        GOLDEN.replace("/741/", f"/{2**64}/"),
        GOLDEN.replace("/741/", "/٧٤١/"),
        GOLDEN.replace("shards/1/", "shards/2/"),
    ],
)
def test_foreign_gids_are_not_ours(text: str) -> None:
    assert parse(text) is None
    assert parse_transaction(text) is None


def test_a_gid_of_a_later_format_tells_its_cluster() -> None:
    later = GOLDEN.replace("shards/1/", "shards/2/") + "/more"

    assert cluster_of(later) == UUID(int=1)
    assert cluster_of("shards/2/elsewhere/x") is None
