"""From the text of a configuration file to a cluster's settings, or to all of its faults at once.

    [cluster]
    name = "shop"
    global_shard = "s0"

    [engine]                      # arguments of create_engine() for each shard
    pool_size = 10

    [timeouts]                    # seconds
    lock_timeout = 10

    [shards]
    s0 = "postgresql+psycopg://app:${DB_PASSWORD}@db0/app"
    s1 = { primary = "postgresql+psycopg://app@db1/app", replicas = [] }

    [keyspaces.default]
    partitioner = "hash"
    buckets = 1024

``${NAME}`` in a string is the environment's value, ``$$`` a dollar. Within a URL, special
characters of a password are percent-encoded, those of a value out of the environment too.

Passwords show neither in a fault nor in a ``repr``.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sqlalchemy.engine.url import URL, make_url
from sqlalchemy.exc import ArgumentError

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.config_keyspaces import read_keyspaces
from sqlalchemy_shards.topology.config_section import Faults, Section, type_name
from sqlalchemy_shards.topology.durations import parse_duration
from sqlalchemy_shards.topology.masking import mask_password
from sqlalchemy_shards.topology.names import did_you_mean, name_fault

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy_shards.topology.keyspace import Keyspace

__all__ = ["ClusterConfig", "ShardConfig", "parse_config", "mask_password"]

Undeclared = Literal["refuse", "global"]
Scatter = Literal["allow", "refuse"]
MultiShardWrites = Literal["atomic", "refuse", "non_atomic"]
OnUnfinished = Literal["warn", "raise"]

DECISION_RETENTION_DEFAULT: Final = timedelta(days=1)
"""How long the record of a decision is kept where nothing else is said."""

SERVER_TIMEOUTS: Final = (
    "lock_timeout",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
)
"""The bounds on waiting that are settings of PostgreSQL; of these, 0 is no bound."""

TIMEOUT_SECONDS_MAX: Final = 2_147_483
"""PostgreSQL counts these settings in milliseconds of 32 bits."""


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """The database URLs of one shard, with their passwords; ``repr`` masks them."""

    primary: str
    replicas: tuple[str, ...] = ()

    def __repr__(self) -> str:
        replicas = tuple(mask_password(url) for url in self.replicas)
        return f"ShardConfig(primary={mask_password(self.primary)!r}, replicas={replicas!r})"


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The settings of one cluster, checked.

    :param name: shown in errors, metrics and gids.
    :param shards: by name, in the order of the file, which is the cluster's.
    :param keyspaces: by name.
    :param global_shard: where global tables live; None if the file does not say.
    :param engine_arguments: for ``create_engine()`` of each shard.
    :param decision_retention: how long the record of a decision is kept.
    :param timeouts: seconds by the names of `Timeouts`, as far as the file says.
    :param workspace: URL of the database that runs gathered statements, with its password; None:
        the file does not say.
    :param gather_limit: the most ``rows`` and ``bytes`` that a statement may bring there, as far as
        the file says.
    """

    name: str
    shards: Mapping[str, ShardConfig]
    keyspaces: Mapping[str, Keyspace]
    global_shard: str | None = None
    undeclared: Undeclared = "refuse"
    scatter: Scatter = "allow"
    multi_shard_writes: MultiShardWrites = "atomic"
    on_unfinished: OnUnfinished = "warn"
    decision_retention: timedelta = DECISION_RETENTION_DEFAULT
    engine_arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    workspace: str | None = field(default=None, repr=False)
    gather_limit: Mapping[str, int] = field(default_factory=dict)
    timeouts: Mapping[str, float] = field(default_factory=dict)
    consistent_reads: bool = False


def parse_config(text: str, environment: Mapping[str, str], *, source: str) -> ClusterConfig:
    """Return the settings in the TOML ``text``.

    :param environment: where ``${NAME}`` is looked up.
    :param source: the file's name, for messages.
    :raises ConfigurationError: with every fault, each beginning with the path of its key.
    """
    faults = Faults(environment)
    table = faults.expanded(_parsed(text, source), "")
    config = _read(Section(table, "", faults))
    if faults.found:
        number = len(faults.found)
        raise ConfigurationError(
            f"{source} has {number} fault{'' if number == 1 else 's'}:",
            "correct them; no shard was connected to",
            faults=faults.found,
        )
    return config


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        # Only the place, and no cause: both the message and the error may quote the file.
        place = re.search(r"at (line \d+, column \d+|end of document)", str(error))
        where = place[1] if place else "an unknown place"
        raise ConfigurationError(
            f"{source} is not valid TOML: the error is at {where}",
            "correct its syntax: strings are quoted, tables are named in [brackets]",
        ) from None


def _read(file: Section) -> ClusterConfig:
    cluster = file.section("cluster")
    shards = _read_shards(file)
    keyspaces = read_keyspaces(file.section("keyspaces"), tuple(shards))
    config = ClusterConfig(
        name=_read_name(cluster),
        shards=shards,
        keyspaces=keyspaces,
        global_shard=_read_global_shard(cluster, shards),
        undeclared=cast("Undeclared", cluster.choice("undeclared", ("refuse", "global"))),
        scatter=cast("Scatter", cluster.choice("scatter", ("allow", "refuse"))),
        multi_shard_writes=cast(
            "MultiShardWrites",
            cluster.choice("multi_shard_writes", ("atomic", "refuse", "non_atomic")),
        ),
        on_unfinished=cast("OnUnfinished", cluster.choice("on_unfinished", ("warn", "raise"))),
        decision_retention=_read_duration(cluster, "decision_retention"),
        engine_arguments=_read_engine(file.section("engine")),
        workspace=_read_workspace(cluster),
        gather_limit=_read_gather_limit(cluster.section("gather_limit")),
        timeouts=_read_timeouts(file.section("timeouts")),
        consistent_reads=bool(cluster.value("consistent_reads", (bool,), default=False)),
    )
    cluster.close()
    file.close()
    return config


def _read_name(cluster: Section) -> str:
    name = cluster.value("name", (str,), "shards") or ""
    fault = name_fault("cluster", name)
    if fault is not None:
        cluster.fault("name", fault)
    return name


def _read_shards(file: Section) -> dict[str, ShardConfig]:
    if "shards" not in file:
        file.fault("shards", "is missing: name one or more shards and their database URLs")
        file.section("shards")
        return {}
    section = file.section("shards")
    shards: dict[str, ShardConfig] = {}
    seen: dict[object, str] = {}
    for name, value in section.items():
        fault = name_fault("shard", name)
        if fault is not None:
            section.fault(name, fault)
        shards[name] = _read_shard(section, name, value, seen)
    if not shards:
        file.fault("shards", "is empty: name one or more shards and their database URLs")
    return shards


def _read_shard(section: Section, name: str, value: object, seen: dict[object, str]) -> ShardConfig:
    path = section.path_of(name)
    if isinstance(value, str):
        _check_url(section.faults, path, value, seen)
        return ShardConfig(value)
    if not isinstance(value, dict):
        section.fault(name, f"must be a database URL or a table, not {type_name(value)}")
        return ShardConfig("")
    table = Section(value, path, section.faults)
    primary = table.required("primary", str)
    replicas = table.value("replicas", (list,), []) or []
    table.close()
    if primary is not None:
        _check_url(section.faults, table.path_of("primary"), primary, seen)
    for number, replica in enumerate(replicas):
        _check_url(section.faults, f"{table.path_of('replicas')}[{number}]", replica, seen)
    return ShardConfig(primary or "", tuple(str(replica) for replica in replicas))


def _check_url(faults: Faults, path: str, value: object, seen: dict[object, str]) -> None:
    """Note what is wrong with a database URL, without quoting any of it."""
    if not isinstance(value, str):
        faults.add(path, f"must be a database URL, not {type_name(value)}")
        return
    if path in faults.unresolved:
        return
    url = _parsed_url(value)
    if url is None:
        faults.add(
            path,
            "is not a database URL: write postgresql+psycopg://user@host/database, "
            "and percent-encode special characters of a password",
        )
        return
    if url.drivername.partition("+")[0] != "postgresql" or url.drivername.endswith("+shards"):
        faults.add(path, "must be the URL of a PostgreSQL database, as postgresql+psycopg://...")
        return
    database = (
        url.host,
        url.port or 5432,
        url.database or url.username,
        frozenset(url.query.items()),
    )
    if database in seen:
        faults.add(path, f"is the same database as {seen[database]}")
    seen.setdefault(database, path)


def _parsed_url(text: str) -> URL | None:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is not a number
        return None


def _read_global_shard(cluster: Section, shards: Mapping[str, ShardConfig]) -> str | None:
    name = cluster.value("global_shard", (str,))
    if name is not None and shards and name not in shards:
        cluster.fault("global_shard", f"there is no shard {name!r}{did_you_mean(name, shards)}")
    return name


def _read_workspace(cluster: Section) -> str | None:
    url = cluster.value("workspace", (str,))
    if url is not None:
        # It may be one of the shards' databases.
        _check_url(cluster.faults, cluster.path_of("workspace"), url, {})
    return url


def _read_gather_limit(section: Section) -> dict[str, int]:
    limit = {}
    for key in ("rows", "bytes"):
        value = section.value(key, (int,))
        if value is not None and value < 1:
            section.fault(key, "must be above 0")
        elif value is not None:
            limit[key] = value
    section.close()
    return limit


def _read_timeouts(section: Section) -> dict[str, float]:
    timeouts = {}
    for key in (*SERVER_TIMEOUTS, *_TIMEOUTS):
        value = section.anything(key)
        if value is None:
            continue
        if type(value) not in (int, float):
            section.fault(key, f"must be a number of seconds, not {type_name(value)}")
        elif key in SERVER_TIMEOUTS and value < 0:
            section.fault(key, "must be 0, which is no bound, or more")
        elif key in _TIMEOUTS and value <= 0:
            section.fault(key, "must be above 0")
        elif not value <= TIMEOUT_SECONDS_MAX:
            section.fault(key, f"must be at most {TIMEOUT_SECONDS_MAX}: it is in seconds")
        else:
            timeouts[key] = value
    section.close()
    return timeouts


def _read_duration(section: Section, key: str) -> timedelta:
    text = section.value(key, (str,))
    if text is None:
        return DECISION_RETENTION_DEFAULT
    duration = parse_duration(text)
    if duration is None:
        section.fault(key, 'must be a duration such as "90s", "30m", "36h" or "7d"')
        return DECISION_RETENTION_DEFAULT
    return duration


def _read_engine(section: Section) -> dict[str, Any]:
    arguments = {}
    for key, types in _ENGINE_ARGUMENTS.items():
        value = section.value(key, types)
        if value is not None:
            arguments[key] = value
    section.close()
    return arguments


_TIMEOUTS: Final = (
    "statement_seconds",
    "round_seconds",
    "decision_seconds",
    "settle_seconds",
    "finish_seconds",
    "rollback_seconds",
    "consistent_seconds",
    "recovery_seconds",
)

_ENGINE_ARGUMENTS: Final[Mapping[str, tuple[type[Any], ...]]] = {
    "connect_args": (dict,),
    "echo": (bool, str),
    "echo_pool": (bool, str),
    "enable_from_linting": (bool,),
    "hide_parameters": (bool,),
    "insertmanyvalues_page_size": (int,),
    "isolation_level": (str,),
    "label_length": (int,),
    "logging_name": (str,),
    "max_identifier_length": (int,),
    "max_overflow": (int,),
    "pool_logging_name": (str,),
    "pool_pre_ping": (bool,),
    "pool_recycle": (int,),
    "pool_size": (int,),
    "pool_timeout": (int, float),
    "pool_use_lifo": (bool,),
    "query_cache_size": (int,),
    "use_insertmanyvalues": (bool,),
}
