from __future__ import annotations

from uuid import UUID

import pytest

from sqlalchemy_shards.catalog.identity import SCHEMA_VERSION, Identity, IdentityRegistry
from sqlalchemy_shards.catalog.schema import BOOTSTRAP_LOCK, STEPS
from sqlalchemy_shards.errors import ConfigurationError

SHOP = UUID(int=1)
BILLING = UUID(int=2)


def identity(name: str, shard: int, *, cluster: UUID = SHOP, version: int = 1) -> Identity:
    return Identity(cluster, "shop", UUID(int=shard), name, version)


def test_admitted_shards_are_found_by_name_and_by_uuid() -> None:
    registry = IdentityRegistry("shop")

    registry.admit("s0", identity("s0", 10))
    registry.admit("s0", identity("s0", 10))

    assert registry.of("s0") == identity("s0", 10)
    assert registry.of("s1") is None
    assert registry.name_of(UUID(int=10)) == "s0"
    assert registry.name_of(UUID(int=11)) is None
    assert registry.cluster_uuid == SHOP


def test_swapped_urls_are_refused() -> None:
    registry = IdentityRegistry()

    with pytest.raises(ConfigurationError, match=r"'s1' and 's0' are one database or .* swapped"):
        registry.admit("s0", identity("s1", 11))

    assert registry.of("s0") is None


def test_two_shards_that_are_one_database_are_refused() -> None:
    registry = IdentityRegistry()
    registry.admit("s0", identity("s0", 10))

    with pytest.raises(ConfigurationError, match="one database") as caught:
        registry.admit("s1", identity("s1", 10))

    assert caught.value.shard == "s1"


def test_a_shard_of_another_cluster_is_refused() -> None:
    registry = IdentityRegistry()
    registry.admit("s0", identity("s0", 10))

    with pytest.raises(ConfigurationError, match="two clusters"):
        registry.admit("s1", identity("s1", 11, cluster=BILLING))


def test_a_cluster_with_another_name_is_refused() -> None:
    registry = IdentityRegistry("billing")

    with pytest.raises(ConfigurationError, match="'shop', not of 'billing'"):
        registry.admit("s0", identity("s0", 10))


def test_a_shard_that_has_become_another_database_is_refused() -> None:
    registry = IdentityRegistry()
    registry.admit("s0", identity("s0", 10))

    with pytest.raises(ConfigurationError, match="has become another one"):
        registry.admit("s0", identity("s0", 12))


def test_a_newer_schema_is_refused() -> None:
    registry = IdentityRegistry()

    with pytest.raises(ConfigurationError, match="upgrade sqlalchemy-shards"):
        registry.admit("s0", identity("s0", 10, version=SCHEMA_VERSION + 1))


def test_each_version_of_the_schema_has_its_step() -> None:
    assert len(STEPS) == SCHEMA_VERSION


def test_the_key_of_the_bootstrap_lock_never_changes() -> None:
    assert BOOTSTRAP_LOCK.to_bytes(8, "big") == b"shards\x00\x01"
