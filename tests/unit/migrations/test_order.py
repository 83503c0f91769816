"""What is asked of a run, and what is refused before it begins."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import ProgrammingError

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.errors import ConfigurationError, UnknownShard
from sqlalchemy_shards.migrations.workers.addresses import (
    Addresses,
    address_of,
    addresses_of,
    difference,
)
from sqlalchemy_shards.migrations.workers.alembic_settings import AlembicSettings
from sqlalchemy_shards.migrations.workers.messages import (
    Began,
    Failed,
    Job,
    decode,
    encode,
    in_one_line,
)
from sqlalchemy_shards.migrations.workers.order import Order, RunOptions, order_of

CLUSTER = create_cluster({f"s{n}": f"postgresql+psycopg://app@db{n}/app" for n in range(12)})


def ordered(options: RunOptions | None = None, revision: str = "heads") -> Order:
    return order_of(addresses_of(CLUSTER), "upgrade", (revision,), options or RunOptions())


def test_all_shards_are_meant_where_none_is_named() -> None:
    order = ordered()

    assert order.shards == tuple(CLUSTER.shards)
    assert order.parallel == 8


def test_named_shards_are_taken_in_the_order_of_the_cluster() -> None:
    order = ordered(RunOptions(shards=["s7", "s2"]))

    assert (order.shards, order.parallel) == (("s2", "s7"), 2)


@pytest.mark.parametrize(
    "options", [RunOptions(shards=["s99"]), RunOptions(canary="s99")], ids=["shard", "canary"]
)
def test_a_shard_that_is_not_there_is_refused(options: RunOptions) -> None:
    with pytest.raises(UnknownShard, match="there is no shard 's99'"):
        ordered(options)


def test_a_canary_that_is_not_meant_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'s1' is not among the shards"):
        ordered(RunOptions(shards=["s2"], canary="s1"))


def test_no_worker_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="parallel is 0"):
        ordered(RunOptions(parallel=0))


@pytest.mark.parametrize("revision", ["+1", "-1", "branch@-2"])
def test_a_revision_relative_to_each_shard_is_refused(revision: str) -> None:
    with pytest.raises(ConfigurationError, match="relative to where each shard is"):
        ordered(revision=revision)


@pytest.mark.parametrize("argument", ["shard=s0", "shards=s0,s1", "atomic=1"])
def test_what_a_run_is_told_otherwise_is_refused_behind_x(argument: str) -> None:
    with pytest.raises(ConfigurationError, match="for Alembic's own command"):
        ordered(RunOptions(alembic=AlembicSettings(x=("mine=1", argument))))


@pytest.mark.parametrize(
    "revision", ["head", "heads", "ae1027", "ae1027+2", "head-1", "branch@head"]
)
def test_other_revisions_are_left_to_alembic(revision: str) -> None:
    assert ordered(revision=revision).job.revisions == (revision,)


@pytest.mark.parametrize(
    "message",
    [
        Job("stamp", ("a", "b"), AlembicSettings(x=("a=b",)), is_purging=True),
        Began("s0", (), ("r1", "r2")),
        Failed(None, "no\u2028yes", after=None),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was_sent(message: Job | Began | Failed) -> None:
    line = encode(message)

    assert line.count("\n") == 1
    assert decode(line) == message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql+psycopg://app:x@db0/shop", "postgresql+psycopg://me:y@db0:5432/shop"),
        ("postgresql+psycopg:///shop?host=db0&port=5432", "postgresql+asyncpg://db0/shop"),
    ],
)
def test_one_database_has_one_address(one: str, other: str) -> None:
    assert address_of(make_url(one)) == address_of(make_url(other))


def test_clusters_that_differ_are_told_apart() -> None:
    own = Addresses("shop", {"s0": "db0:5432/a", "s1": "db1:5432/a"})
    fewer = Addresses("shop", {"s0": "db0:5432/a"})
    renamed = Addresses("shop2", own.shards)

    assert difference(own, Addresses("shop", dict(own.shards))) is None
    assert difference(own, fewer) == "env.py has no shard 's1', which the configuration has"
    assert difference(fewer, own) == "env.py has a shard 's1', which the configuration has not"
    assert difference(own, renamed) == (
        "the cluster is 'shop' in the configuration, and 'shop2' in env.py"
    )


def test_all_faults_of_a_configuration_are_told() -> None:
    error = ConfigurationError("two faults:", "mend them", faults=["one", "another"])

    assert in_one_line(error) == "two faults: one; another"


def test_only_the_first_line_of_an_error_is_told() -> None:
    driver = psycopg.errors.UniqueViolation("duplicate key\nDETAIL:  Key (email)=(a@b.c) exists.")
    error = ProgrammingError("INSERT ...", {"email": "a@b.c"}, driver)

    assert in_one_line(error) == "duplicate key"
    assert in_one_line(ValueError("no")) == "ValueError: no"
    assert in_one_line(SystemExit()) == "SystemExit"
