from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from sqlalchemy_shards import HashPartitioner, Keyspace
from sqlalchemy_shards.catalog.identity import SCHEMA_VERSION, IdentityRegistry, read_identity
from sqlalchemy_shards.catalog.schema import bootstrap, bootstrap_cluster
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.shard_map import ShardMap
from tests.databases import libpq_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Connect = "Callable[[str], AbstractContextManager[psycopg.Connection[Any]]]"


def connector(urls: Mapping[str, str], **options: Any) -> Connect:
    @contextmanager
    def connect(name: str) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(libpq_url(urls[name]), **options) as connection:
            yield connection

    return connect


def bootstrap_all(
    urls: Mapping[str, str], cluster_name: str = "shop", shard_map: ShardMap | None = None
) -> IdentityRegistry:
    identities = IdentityRegistry(cluster_name)
    bootstrap_cluster(
        connector(urls),
        shard_names=list(urls),
        cluster_name=cluster_name,
        identities=identities,
        shard_map=shard_map,
    )
    return identities


@pytest.mark.parametrize("autocommit", [True, False])
def test_bootstrap_gives_a_database_its_identity(
    clean_shards: dict[str, str], autocommit: bool
) -> None:
    cluster_uuid = uuid4()
    with psycopg.connect(libpq_url(clean_shards["s0"]), autocommit=autocommit) as connection:
        created = bootstrap(
            connection, cluster_uuid=cluster_uuid, cluster_name="Blumenladen 花", shard_name="s0"
        )

        status = connection.info.transaction_status.name
        found = read_identity(connection)

    assert status == "IDLE"
    assert found == created
    assert created.cluster_uuid == cluster_uuid
    assert created.cluster_name == "Blumenladen 花"
    assert created.version == SCHEMA_VERSION


def test_bootstrap_again_changes_nothing(clean_shards: dict[str, str]) -> None:
    first = bootstrap_all(clean_shards)

    second = bootstrap_all(clean_shards)

    assert [first.of(name) for name in clean_shards] == [second.of(name) for name in clean_shards]


def test_bootstraps_at_the_same_time_agree(clean_shards: dict[str, str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(bootstrap_all, [clean_shards] * 8))

    assert len({run.of(name) for run in runs for name in clean_shards}) == len(clean_shards)
    assert len({run.cluster_uuid for run in runs}) == 1


def test_bootstrap_sees_what_was_created_while_it_waited(clean_shards: dict[str, str]) -> None:
    urls = dict.fromkeys(clean_shards, clean_shards["s0"])
    options = "-c default_transaction_isolation=serializable"

    def run(number: int) -> object:
        with connector(urls, options=options)("s0") as connection:
            return bootstrap(connection, cluster_uuid=None, cluster_name="shop", shard_name="s0")

    with ThreadPoolExecutor(6) as pool:
        identities = set(pool.map(run, range(6)))

    assert len(identities) == 1


def test_an_added_shard_joins_the_cluster(clean_shards: dict[str, str]) -> None:
    old = {name: clean_shards[name] for name in ("s1", "s2")}
    before = bootstrap_all(old)

    after = bootstrap_all(clean_shards)

    assert after.cluster_uuid == before.cluster_uuid
    assert after.of("s1") == before.of("s1")


def test_no_superuser_is_needed(clean_shards: dict[str, str]) -> None:
    with psycopg.connect(libpq_url(clean_shards["s0"]), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS shards_plain")
        connection.execute("CREATE ROLE shards_plain")
        connection.execute("CREATE SCHEMA shards AUTHORIZATION shards_plain")
        connection.execute("SET ROLE shards_plain")

        created = bootstrap(connection, cluster_uuid=None, cluster_name="shop", shard_name="s0")

        found = read_identity(connection)
        connection.execute("RESET ROLE")
        connection.execute("DROP SCHEMA shards CASCADE")
        connection.execute("DROP ROLE shards_plain")
    assert found == created


def test_two_shards_that_are_one_database_are_refused(clean_shards: dict[str, str]) -> None:
    urls = {"s0": clean_shards["s0"], "s1": clean_shards["s0"]}

    with pytest.raises(ConfigurationError, match="'s0' and 's1' are one database"):
        bootstrap_all(urls)


def test_swapped_urls_are_refused_before_anything_changes(clean_shards: dict[str, str]) -> None:
    bootstrap_all({name: clean_shards[name] for name in ("s0", "s1")})
    swapped = {**clean_shards, "s0": clean_shards["s1"], "s1": clean_shards["s0"]}

    with pytest.raises(ConfigurationError) as caught:
        bootstrap_all(swapped)

    assert len(caught.value.faults) == 2
    assert "swapped" in str(caught.value)
    with psycopg.connect(libpq_url(clean_shards["s2"])) as connection:
        assert read_identity(connection) is None


def test_a_shard_of_another_cluster_is_refused(clean_shards: dict[str, str]) -> None:
    bootstrap_all({"s1": clean_shards["s1"]}, "billing")

    with pytest.raises(ConfigurationError, match="of the cluster 'billing', not of 'shop'"):
        bootstrap_all(clean_shards)


def test_a_cluster_of_the_same_name_but_another_uuid_is_refused(
    clean_shards: dict[str, str],
) -> None:
    bootstrap_all({"s0": clean_shards["s0"]})
    bootstrap_all({"s1": clean_shards["s1"]})

    with pytest.raises(ConfigurationError, match="belong to two clusters"):
        bootstrap_all(clean_shards)


def test_another_cluster_or_shard_uuid_is_refused(clean_shards: dict[str, str]) -> None:
    bootstrap_all({"s0": clean_shards["s0"]})
    with psycopg.connect(libpq_url(clean_shards["s0"])) as connection:
        with pytest.raises(ConfigurationError, match="another cluster"):
            bootstrap(connection, cluster_uuid=uuid4(), cluster_name="shop", shard_name="s0")
        with pytest.raises(ConfigurationError, match="another shard"):
            bootstrap(
                connection,
                cluster_uuid=None,
                cluster_name="shop",
                shard_name="s0",
                shard_uuid=uuid4(),
            )


def test_a_newer_schema_is_refused_and_left_as_it_is(clean_shards: dict[str, str]) -> None:
    bootstrap_all(clean_shards)
    with psycopg.connect(libpq_url(clean_shards["s0"])) as connection:
        connection.execute("UPDATE shards.identity SET schema_version = 99")
        connection.commit()

        with pytest.raises(ConfigurationError, match="version 99"):
            bootstrap(connection, cluster_uuid=None, cluster_name="shop", shard_name="s0")

        identity = read_identity(connection)
    assert identity is not None
    assert identity.version == 99


def test_bootstrap_records_the_placement_in_every_shard(clean_shards: dict[str, str]) -> None:
    shard_map = ShardMap.build({"default": Keyspace(HashPartitioner(8))}, tuple(clean_shards))

    recorded = bootstrap_all(clean_shards, shard_map=shard_map)

    for name in clean_shards:
        identity = recorded.of(name)
        assert identity is not None
        assert identity.placement["default"]["partitioner"] == "hash into 8 buckets"
        assert set(identity.placement["default"]["buckets"].values()) == set(clean_shards)


def test_another_placement_is_refused_before_anything_changes(
    clean_shards: dict[str, str],
) -> None:
    old = {name: clean_shards[name] for name in ("s1", "s2")}
    keyspaces = {"default": Keyspace(HashPartitioner(8))}
    bootstrap_all(old, shard_map=ShardMap.build(keyspaces, tuple(old)))

    with pytest.raises(ConfigurationError, match="recorded another placement"):
        bootstrap_all(clean_shards, shard_map=ShardMap.build(keyspaces, tuple(clean_shards)))

    with psycopg.connect(libpq_url(clean_shards["s0"])) as connection:
        assert read_identity(connection) is None


def test_a_shard_without_buckets_joins_the_cluster(clean_shards: dict[str, str]) -> None:
    old = {name: clean_shards[name] for name in ("s1", "s2")}
    keyspaces = {"default": Keyspace(HashPartitioner(8), {"0-3": "s1", "4-7": "s2"})}
    bootstrap_all(old, shard_map=ShardMap.build(keyspaces, tuple(old)))

    joined = bootstrap_all(clean_shards, shard_map=ShardMap.build(keyspaces, tuple(clean_shards)))

    assert joined.of("s0") is not None


def test_the_first_version_of_the_schema_is_read_and_upgraded(clean_shards: dict[str, str]) -> None:
    bootstrap_all(clean_shards)
    with psycopg.connect(libpq_url(clean_shards["s0"])) as connection:
        connection.execute("ALTER TABLE shards.identity DROP COLUMN placement")
        connection.execute("ALTER TABLE shards.identity DROP COLUMN consistent_reads")
        connection.execute("ALTER TABLE shards.identity DROP COLUMN newcomers")
        connection.execute("DROP TABLE shards.markers, shards.marker_horizons")
        connection.execute("DROP TABLE shards.migrations, shards.batches")
        connection.execute("UPDATE shards.identity SET schema_version = 1")
        connection.commit()

        old = read_identity(connection)
        upgraded = bootstrap(connection, cluster_uuid=None, cluster_name="shop", shard_name="s0")

        assert old is not None
        assert (old.version, upgraded.version) == (1, SCHEMA_VERSION)
        assert read_identity(connection) == upgraded


def test_a_second_identity_cannot_be_written(clean_shards: dict[str, str]) -> None:
    bootstrap_all(clean_shards)
    with (
        psycopg.connect(libpq_url(clean_shards["s0"])) as connection,
        pytest.raises(psycopg.errors.UniqueViolation),
    ):
        connection.execute(
            "INSERT INTO shards.identity (cluster_uuid, cluster_name, shard_uuid, shard_name,"
            " schema_version) VALUES (gen_random_uuid(), 'x', gen_random_uuid(), 'y', 1)"
        )


def test_reading_an_identity_does_not_spoil_an_open_transaction(
    clean_shards: dict[str, str],
) -> None:
    with psycopg.connect(libpq_url(clean_shards["s0"])) as connection:
        connection.execute("CREATE TABLE kept (x int)")

        found = read_identity(connection)

        assert found is None
        assert connection.info.transaction_status.name == "INTRANS"
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_role_that_may_not_read_the_identity_is_told_what_to_grant(
    clean_shards: dict[str, str],
) -> None:
    bootstrap_all(clean_shards)
    with psycopg.connect(libpq_url(clean_shards["s0"])) as connection:
        connection.execute("CREATE ROLE shards_nobody")
        connection.execute("SET LOCAL ROLE shards_nobody")

        with pytest.raises(ConfigurationError, match="grant it USAGE"):
            read_identity(connection)

        assert connection.info.transaction_status.name == "INTRANS"
        connection.rollback()


def test_bootstrap_refuses_a_connection_in_a_transaction(clean_shards: dict[str, str]) -> None:
    with psycopg.connect(libpq_url(clean_shards["s0"])) as connection:
        connection.execute("SELECT 1")

        with pytest.raises(ConfigurationError, match="idle connection"):
            bootstrap(connection, cluster_uuid=None, cluster_name="shop", shard_name="s0")
