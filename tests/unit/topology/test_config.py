from __future__ import annotations

import pickle
from dataclasses import fields
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from sqlalchemy_shards import Timeouts
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.config import ClusterConfig, ShardConfig, parse_config
from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.partitioners import (
    CompositePartitioner,
    HashPartitioner,
    ListPartitioner,
    RangePartitioner,
)
from sqlalchemy_shards.topology.shard_map import ShardMap

SHARDS = """
[shards]
s0 = "postgresql+psycopg://app@db0/app"
s1 = "postgresql+psycopg://app@db1/app"
"""


def parse(text: str, **environment: str) -> ClusterConfig:
    return parse_config(text, environment, source="shards.toml")


def faults_of(text: str, **environment: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, **environment)
    return caught.value.faults


class TestGather:
    def test_what_is_not_said_is_left_to_the_cluster(self) -> None:
        config = parse(SHARDS + "[cluster]\ngather_limit = { rows = 7 }")

        assert (config.workspace, config.gather_limit) == (None, {"rows": 7})

    def test_the_workspace_may_be_one_of_the_shards_databases(self) -> None:
        url = "postgresql+psycopg://app@db0/app"

        assert parse(SHARDS + f'[cluster]\nworkspace = "{url}"').workspace == url

    def test_the_workspaces_password_is_not_shown(self) -> None:
        config = parse(
            SHARDS + '[cluster]\nworkspace = "postgresql+psycopg://a:${WORD}@b/c"', WORD="hunter2"
        )

        assert "hunter2" not in repr(config)

    def test_all_faults_are_told(self) -> None:
        faults = faults_of(
            SHARDS
            + """
            [cluster]
            workspace = "mysql://app:hunter2@db0/app"
            gather_limit = { rows = 0, bytes = "many", byts = 3 }
            """
        )

        assert faults == (
            "cluster.workspace: must be the URL of a PostgreSQL database, as "
            "postgresql+psycopg://...",
            "cluster.gather_limit.rows: must be above 0",
            "cluster.gather_limit.bytes: must be a whole number, not a string",
            "cluster.gather_limit.byts: is not a known setting, did you mean 'bytes'?",
        )


class TestTimeouts:
    def test_every_timeout_of_a_cluster_can_be_said(self) -> None:
        names = [field.name for field in fields(Timeouts)]
        config = parse(SHARDS + "[timeouts]\n" + "".join(f"{name} = 3\n" for name in names))

        assert config.timeouts == dict.fromkeys(names, 3)
        assert Timeouts(**config.timeouts).of_commit().finish_seconds == 3

    def test_all_faults_are_told(self) -> None:
        faults = faults_of(
            SHARDS
            + """
            [timeouts]
            lock_timeout = -1
            statement_timeout = "5s"
            statement_seconds = 0
            round_seconds = 5_000_000
            lock_timout = 3
            """
        )

        assert faults == (
            "timeouts.lock_timeout: must be 0, which is no bound, or more",
            "timeouts.statement_timeout: must be a number of seconds, not a string",
            "timeouts.statement_seconds: must be above 0",
            "timeouts.round_seconds: must be at most 2147483: it is in seconds",
            "timeouts.lock_timout: is not a known setting, did you mean 'lock_timeout'?",
        )


class TestSettings:
    def test_all_that_can_be_said(self) -> None:
        config = parse(
            """
            [cluster]
            name = "shop"
            global_shard = "s0"
            undeclared = "global"
            scatter = "refuse"
            multi_shard_writes = "non_atomic"
            on_unfinished = "raise"
            decision_retention = "36h"
            workspace = "postgresql+psycopg://app:${DB_PASSWORD}@work/app"
            gather_limit = { rows = 5_000, bytes = 1_000_000 }

            [timeouts]
            lock_timeout = 2.5
            statement_timeout = 0
            finish_seconds = 1

            [engine]
            pool_size = 3
            pool_timeout = 2.5
            pool_pre_ping = true
            connect_args = { application_name = "${APP}" }

            [shards]
            s0 = "postgresql+psycopg://app:${DB_PASSWORD}@db0/app"

            [shards.s1]
            primary = "postgresql+psycopg://app:pa$$word@db1/app"
            replicas = ["postgresql+psycopg://app@db1b/app"]

            [keyspaces.default]
            partitioner = "hash"
            buckets = 64
            """,
            DB_PASSWORD="hunter2",
            APP="shop",
        )

        assert config == ClusterConfig(
            name="shop",
            shards={
                "s0": ShardConfig("postgresql+psycopg://app:hunter2@db0/app"),
                "s1": ShardConfig(
                    "postgresql+psycopg://app:pa$word@db1/app",
                    ("postgresql+psycopg://app@db1b/app",),
                ),
            },
            keyspaces={"default": Keyspace(HashPartitioner(64))},
            global_shard="s0",
            undeclared="global",
            scatter="refuse",
            multi_shard_writes="non_atomic",
            on_unfinished="raise",
            decision_retention=timedelta(hours=36),
            workspace="postgresql+psycopg://app:hunter2@work/app",
            gather_limit={"rows": 5_000, "bytes": 1_000_000},
            timeouts={"lock_timeout": 2.5, "statement_timeout": 0, "finish_seconds": 1},
            engine_arguments={
                "pool_size": 3,
                "pool_timeout": 2.5,
                "pool_pre_ping": True,
                "connect_args": {"application_name": "shop"},
            },
        )

    def test_what_is_not_said_has_a_default(self) -> None:
        config = parse(SHARDS)

        assert (config.name, config.global_shard, config.keyspaces) == ("shards", None, {})
        assert (config.undeclared, config.scatter) == ("refuse", "allow")
        assert (config.multi_shard_writes, config.on_unfinished) == ("atomic", "warn")
        assert config.decision_retention == timedelta(days=1)
        assert config.engine_arguments == {}

    def test_shards_keep_the_order_of_the_file(self) -> None:
        text = '[shards]\nb = "postgresql://b/b"\nc = "postgresql://c/c"\na = "postgresql://a/a"'

        assert list(parse(text).shards) == ["b", "c", "a"]

    def test_survive_pickling(self) -> None:
        config = parse(SHARDS + '[keyspaces.default]\npartitioner = "hash"')

        assert pickle.loads(pickle.dumps(config)) == config

    def test_show_no_password_in_their_repr(self) -> None:
        config = parse(
            """
            [engine]
            connect_args = { password = "hunter2" }
            [shards.s0]
            primary = "postgresql://app:hunter2@db0/app"
            replicas = ["postgresql://app:hunter2@db1/app"]
            """
        )

        assert "hunter2" not in repr(config)
        assert "postgresql://app:***@db0/app" in repr(config)

    def test_byte_order_mark_is_skipped(self) -> None:
        assert list(parse("\ufeff" + SHARDS).shards) == ["s0", "s1"]


class TestKeyspaces:
    @pytest.mark.parametrize(
        ("text", "partitioner"),
        [
            ('partitioner = "hash"', HashPartitioner(1024)),
            ('partitioner = "range"\nbounds = [100, 200]', RangePartitioner([100, 200])),
            ('partitioner = "range"\nbounds = ["g", "p"]', RangePartitioner(["g", "p"])),
            (
                'partitioner = "range"\nbounds = [2024-01-01, 2025-01-01]',
                RangePartitioner([date(2024, 1, 1), date(2025, 1, 1)]),
            ),
            (
                'partitioner = "range"\nbounds = [2024-01-01T00:00:00]',
                RangePartitioner([datetime(2024, 1, 1)]),
            ),
            (
                'partitioner = "range"\nbounds = [2024-01-01T00:00:00Z]',
                RangePartitioner([datetime(2024, 1, 1, tzinfo=timezone.utc)]),
            ),
            (
                'partitioner = "list"\nvalues = { west = ["Goa"] }\ndefault = "north"',
                ListPartitioner({"west": ["Goa"]}, default="north"),
            ),
            (
                'partitioner = "composite"\nparts = [\n'
                '{ partitioner = "list", values = { west = ["Goa"] }, default = "north" },\n'
                '{ partitioner = "hash", buckets = 16 }]',
                CompositePartitioner(
                    ListPartitioner({"west": ["Goa"]}, default="north"), HashPartitioner(16)
                ),
            ),
        ],
    )
    def test_of_every_kind(self, text: str, partitioner: Any) -> None:
        config = parse(f"{SHARDS}\n[keyspaces.default]\n{text}")

        assert config.keyspaces["default"].partitioner == partitioner

    def test_with_placement_and_pins(self) -> None:
        config = parse(
            f"""{SHARDS}
            [keyspaces.default]
            partitioner = "hash"
            buckets = 8
            placement = {{ "0-3" = "s0", "4-7" = "s1" }}
            pins = [{{ key = 42, shard = "s1" }}, {{ key = ["IN", 7], shard = "s0" }}]
            """
        )
        shard_map = ShardMap.build(config.keyspaces, list(config.shards))

        assert shard_map.keyspaces["default"].ranges() == [("0-3", "s0"), ("4-7", "s1")]
        assert shard_map.keyspaces["default"].pins == {(42,): "s1", ("IN", 7): "s0"}


class TestEnvironment:
    def test_reference_is_replaced_wherever_a_string_is(self) -> None:
        config = parse(
            """
            [cluster]
            name = "${NAME}-${STAGE}"
            [shards]
            s0 = "${S0}"
            [keyspaces.default]
            partitioner = "list"
            values = { a = ["${STAGE}"] }
            """,
            NAME="shop",
            STAGE="test",
            S0="postgresql://app@db0/app",
        )

        assert config.name == "shop-test"
        assert config.shards["s0"].primary == "postgresql://app@db0/app"
        assert config.keyspaces["default"].partitioner.bucket_of(("test",)) == 0

    def test_value_is_not_read_for_references_again(self) -> None:
        config = parse('[shards]\ns0 = "postgresql://a:${P}@db/app"', P="${P}$$")

        assert config.shards["s0"].primary == "postgresql://a:${P}$$@db/app"

    def test_missing_variable_is_one_fault(self) -> None:
        assert faults_of('[shards]\ns0 = "${S0_URL}"') == (
            "shards.s0: the environment variable 'S0_URL' is not set",
        )

    def test_lone_dollar_is_a_fault(self) -> None:
        faults = faults_of('[shards]\ns0 = "postgresql://app:pa$word@db0/app"')

        assert faults == (
            "shards.s0: a lone '$': write '$$' for a dollar, '${NAME}' for a reference",
        )


class TestFaults:
    def test_five_are_reported_at_once_with_their_paths(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            parse(
                """
                [cluster]
                global_shard = "shard2"
                scatter = "alow"
                [engine]
                pool_siez = 3
                [shards]
                s0 = "postgresql://app@db0/app"
                shard1 = "postgresql://app:hunter2@db0:port/app"
                [keyspaces.default]
                partitioner = "hash"
                buckets = 0
                """
            )

        assert sorted(caught.value.faults) == [
            "cluster.global_shard: there is no shard 'shard2', did you mean 'shard1'?",
            "cluster.scatter: 'alow' is none of 'allow', 'refuse', did you mean 'allow'?",
            "engine.pool_siez: is not a known setting, did you mean 'pool_size'?",
            "keyspaces.default.buckets: a hash partitioner cannot have 0 buckets",
            "shards.shard1: is not a database URL: write postgresql+psycopg://user@host/database, "
            "and percent-encode special characters of a password",
        ]
        assert "shards.toml has 5 faults" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "shards: is missing: name one or more shards and their database URLs"),
            ("[shards]", "shards: is empty: name one or more shards and their database URLs"),
            ("shards = 5", "shards: must be a table, not a whole number"),
            (
                "[shards]\ns0 = 5",
                "shards.s0: must be a database URL or a table, not a whole number",
            ),
            ("[shards.s0]\nreplicas = []", "shards.s0.primary: is missing"),
            ("[shards.s0]\nprimry = ''", "did you mean 'primary'?"),
            (
                "[shards.s0]\nprimary = 'postgresql://h/d'\nreplicas = [5]",
                "shards.s0.replicas[0]: must be a database URL, not a whole number",
            ),
            (
                "[shards]\ns0 = 'mysql://h/d'",
                "shards.s0: must be the URL of a PostgreSQL database, as postgresql+psycopg://...",
            ),
            ("[shards]\ns0 = 'postgresql+shards:///x.toml'", "must be the URL of a PostgreSQL"),
            (
                "[shards]\ns0 = 'postgresql://a@h/d'\ns1 = 'postgresql+psycopg://b@h:5432/d'",
                "shards.s1: is the same database as shards.s0",
            ),
            ("[shards]\n'*' = 'postgresql://h/d'", "'*' cannot be the name of a shard"),
            (SHARDS + "[shard]", "shard: is not a known setting, did you mean 'shards'?"),
            (SHARDS + "[cluster]\nname = 'a b'", "cluster.name: 'a b' cannot be the name"),
            (SHARDS + "[cluster]\nname = 5", "cluster.name: must be a string, not a whole number"),
            (SHARDS + "[cluster]\ndecision_retention = 'soon'", "must be a duration such as"),
            (SHARDS + "[engine]\npool_size = true", "engine.pool_size: must be a whole number"),
        ],
    )
    def test_of_cluster_and_shards(self, text: str, fault: str) -> None:
        assert any(fault in found for found in faults_of(text))

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", ".partitioner: is missing"),
            ("partitioner = 'hsh'", "did you mean 'hash'?"),
            ("partitioner = 'hash'\nbucket = 8", ".bucket: is not a known setting, did you mean"),
            (
                "partitioner = 'hash'\nbuckets = '8'",
                ".buckets: must be a whole number, not a string",
            ),
            ("partitioner = 'range'", ".bounds: is missing"),
            ("partitioner = 'range'\nbounds = [2, 1]", ".bounds: the bounds do not ascend"),
            ("partitioner = 'range'\nbounds = [1.5]", "cannot be of the type 'float'"),
            ("partitioner = 'range'\nbounds = [07:30:00]", "cannot be of the type 'time'"),
            ("partitioner = 'list'", ".values: is missing"),
            ("partitioner = 'list'\nvalues = { a = ['x'], b = ['x'] }", "listed under 'a' and 'b'"),
            ("partitioner = 'composite'", ".parts: is missing"),
            ("partitioner = 'composite'\nparts = [5]", ".parts[0]: must be a table"),
            (
                "partitioner = 'composite'\nparts = [{ partitioner = 'composite' }]",
                ".parts[0].partitioner: 'composite' is none of 'hash', 'range', 'list'",
            ),
            (
                "partitioner = 'composite'\nparts = [{ partitioner = 'hash', x = 1 }]",
                "[0].x: is not",
            ),
            (
                "partitioner = 'composite'\nparts = [{ partitioner = 'hash' }]",
                ".parts: a composite partitioner needs two or more partitioners",
            ),
            ("partitioner = 'hash'\npins = [{ key = 1 }]", ".pins[0].shard: is missing"),
            ("partitioner = 'hash'\npins = [{ shard = 's0' }]", ".pins[0].key: is missing"),
            ("partitioner = 'hash'\npins = [{ key = 1, shard = 's9' }]", "1 is pinned to 's9'"),
            (
                "partitioner = 'hash'\npins = [{ key = 1.5, shard = 's0' }]",
                "1.5: a shard key cannot",
            ),
            (
                "partitioner = 'hash'\n"
                "pins = [{ key = 1, shard = 's0' }, { key = 1, shard = 's0' }]",
                ".pins[1].key: is pinned twice",
            ),
            (
                "partitioner = 'hash'\nplacement = { '0-9' = 's0' }",
                "buckets '10-1023' (1014 in all)",
            ),
            (
                "partitioner = 'hsh'\nplacement = { '0-9' = 's9' }",
                "'s9' is no shard of the cluster",
            ),
            ("partitioner = 'hash'\nplacement = 's0'", ".placement: must be a table, not a string"),
        ],
    )
    def test_of_keyspaces(self, text: str, fault: str) -> None:
        found = faults_of(f"{SHARDS}[keyspaces.default]\n{text}")

        assert any(one.startswith("keyspaces.default") and fault in one for one in found)

    def test_of_pins_do_not_hide_those_of_the_placement(self) -> None:
        faults = faults_of(
            f"{SHARDS}[keyspaces.default]\npartitioner = 'hash'\nbuckets = 1\n"
            "pins = [{ key = 1.5, shard = 's0' }]\nplacement = { '0' = 's9' }"
        )

        assert faults == (
            "keyspaces.default: 1.5: a shard key cannot be of the type 'float'",
            "keyspaces.default: '0' is placed on 's9', which is no shard of the cluster",
        )

    @pytest.mark.parametrize(
        "text", ["a = 'hunter2", "hunter2", "[shards]\ns0 = hunter2", "a.a=1\na=1"]
    )
    def test_of_the_syntax_say_where_and_quote_nothing(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"shards\.toml is not valid TOML") as caught:
            parse(text)

        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        "[shards]\ns0 = 'postgresql://app:hunter2@db0:port/app'",
        "[shards]\ns0 = 'postgresql://app:hunter2'",
        "[shards]\ns0 = 'hunter2'",
        "[shards]\ns0 = 'app:hunter2@db0'",
        "[shards]\ns0 = '${PASSWORD}'",
        "[shards]\n'postgresql://app:hunter2@db0/app' = 's0'",
        "[shards]\n'app:hunter2@db0' = 's0'",
        "[shards.s0]\nprimary = 'postgresql://app:hunter2@db0:x/app'\nreplicas = ['hunter2']",
        SHARDS + "[cluster]\nname = '${PASSWORD}!'",
        SHARDS + "[cluster]\nscatter = '${PASSWORD}'",
        SHARDS + "[cluster]\nglobal_shard = 'postgresql://app:hunter2@db0/app'",
        SHARDS + "[cluster]\n'postgresql://app:hunter2@db0/app' = 1",
        SHARDS + "[engine]\npool_size = 'hunter2'",
        SHARDS + "[keyspaces.default]\npartitioner = 'list'\n"
        "values = { a = ['${PASSWORD}'], b = ['${PASSWORD}'] }",
        SHARDS + "[keyspaces.default]\npartitioner = 'hash'\nbuckets = 1\n"
        "placement = { 0 = 'postgresql://app:hunter2@db0/app' }",
    ],
)
def test_no_fault_shows_a_password(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, PASSWORD="hunter2")

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None
