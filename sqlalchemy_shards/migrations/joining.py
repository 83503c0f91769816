"""A shard joins a cluster that has data: it gets the copies of the reference tables.

    announce -> migrate -> wait for older connections -> copy, verify -> joined

- The copy misses no write: writers of reference tables begin on the first shard, where the tables
  are locked meanwhile, and who may not know the newcomer is no longer connected there, or refuses.
- Nothing is placed on the newcomer before it has joined, so that no row there misses another.
- Each step may be repeated, after whatever ended it; the copy is one transaction on the newcomer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
import tenacity
from sqlalchemy.schema import sort_tables

from sqlalchemy_shards.catalog.identity import read_identity
from sqlalchemy_shards.catalog.newcomers import (
    announce,
    announced_since,
    older_sessions,
    tell_joined,
)
from sqlalchemy_shards.cluster.schema import checked_tables
from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.copying import lock, prepare, replace_rows, verify
from sqlalchemy_shards.migrations.turns.lock import Holder
from sqlalchemy_shards.migrations.turns.version_table import revisions_in
from sqlalchemy_shards.models.distribution import Reference, Sharded, distribution_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import MetaData, Table

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.copying import Copied

LOCK_SECONDS: Final = 0.5
"""How long one attempt waits for writers: less than PostgreSQL takes to look for a deadlock, so
that of two who wait for each other it is the copy that gives up."""

LOCK_ATTEMPTS: Final = 20
"""How often the tables are tried to be locked."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A shard that has joined.

    :param source: the shard from which it has its reference rows.
    :param tables: the reference tables, which both have alike.
    """

    shard: str
    source: str
    tables: tuple[Copied, ...]


def announce_shard(
    cluster: Cluster, shard: str, *, options: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Tell all shards that another one joins, which the configuration names.

    :param options: arguments of Alembic's ``context.configure()``: they name the version table.
    :return: the revisions that it has to have, which are those of the first shard.
    :raises ConfigurationError: it cannot join.
    """
    cluster.check_open()
    source = _source(cluster, shard)
    cluster.bootstrap()
    if not _has_joined(cluster, shard):
        _check_is_free(cluster, shard, source)
        for other in cluster.shards:
            with cluster.reach(other) as driver:
                announce(driver, shard)
    with cluster.reach(source) as driver:
        return revisions_in(driver, options or {})


def join_shard(
    cluster: Cluster,
    shard: str,
    metadata: MetaData | Sequence[MetaData],
    *,
    options: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
) -> Joined:
    """Let a shard join on which nothing is placed yet, and that has the tables of the others.

    It is announced, if it was not, and gets the rows of the reference tables. Run it again after an
    error, once what that says is done: nothing is lost by it. On a shard that has joined it only
    makes sure that the copies are the same.

    :param options: arguments of Alembic's ``context.configure()``: they name the version table.
    :param ignore: ``application_name`` of connections that write no reference table, however old.
    :raises ConfigurationError: it cannot join, or not yet; says why, and what to do.
    """
    tables = checked_tables(cluster, metadata)
    announce_shard(cluster, shard, options=options)
    source = next(iter(cluster.shards))
    names = [_quoted(cluster, table) for table in _references(tables)]
    with cluster.reach(source) as old, cluster.reach(shard) as new:
        _check_revisions(old, new, shard, source, options or {})
        if _has_joined(cluster, shard):
            copied = _verified(old, new, names)
        else:
            _check_is_empty(cluster, new, shard, tables)
            _check_older(old, shard, names, ignore)
            copied = _copied(old, new, shard, names)
    for other in cluster.shards:
        with cluster.reach(other) as driver:
            tell_joined(driver, shard)
    return Joined(shard, source, tuple(copied))


def _source(cluster: Cluster, shard: str) -> str:
    """The shard on which writers of reference tables begin."""
    names = tuple(cluster.shards)
    if shard not in names:
        raise ConfigurationError(
            f"the cluster has no shard {shard!r}", "name it at the end of the shards", shard=shard
        )
    if shard == names[0] or shard == cluster.global_shard:
        raise ConfigurationError(
            f"shard {shard!r} is the first or the global one of the cluster",
            "name a shard that joins at the end of the shards, and keep the global one",
            shard=shard,
        )
    with cluster.reach(names[0]) as driver:
        if read_identity(driver) is None:
            raise ConfigurationError(
                f"shard {names[0]!r} has no schema 'shards': there is no cluster yet to join",
                "migrate all shards, or call cluster.bootstrap()",
                shard=shard,
            )
    return names[0]


def _has_joined(cluster: Cluster, shard: str) -> bool:
    with cluster.reach(shard) as driver:
        identity = read_identity(driver)
    return identity is not None and identity.newcomers.get(shard) is True


def _check_is_free(cluster: Cluster, shard: str, source: str) -> None:
    if not cluster.shard_map.holds_anything(shard):
        return
    with cluster.reach(source) as driver:
        identity = read_identity(driver)
    recorded = {} if identity is None else identity.placement
    if any(shard in keyspace["buckets"].values() for keyspace in recorded.values()):
        raise ConfigurationError(
            f"shard {shard!r} has been there from the beginning, and need not join",
            "name a shard that was added later; `shards migrate status` tells of all",
            shard=shard,
        )
    raise ConfigurationError(
        f"keys are placed on shard {shard!r}, which has not joined yet",
        "place nothing on it until it has: give each keyspace a placement that names the other "
        "shards, which `shards map show --toml` wrote before this one was added",
        shard=shard,
    )


def _references(tables: Sequence[Table]) -> list[Table]:
    """The reference tables, those that others refer to first."""
    by_name: list[Table] = sorted(tables, key=lambda table: table.key)
    return [
        table for table in sort_tables(by_name) if isinstance(distribution_of(table), Reference)
    ]


def _quoted(cluster: Cluster, table: Table) -> str:
    return str(cluster.dialect.identifier_preparer.format_table(table))


def _check_revisions(
    old: psycopg.Connection[Any],
    new: psycopg.Connection[Any],
    shard: str,
    source: str,
    options: Mapping[str, Any],
) -> None:
    before, now = revisions_in(old, options), revisions_in(new, options)
    if before != now:
        raise ConfigurationError(
            f"shard {shard!r} is at revision {', '.join(now) or 'none'}, and {source!r} at "
            f"{', '.join(before) or 'none'}",
            f"run `shards migrate upgrade --shard {shard}`, then this again",
            shard=shard,
        )


def _check_is_empty(
    cluster: Cluster, new: psycopg.Connection[Any], shard: str, tables: Sequence[Table]
) -> None:
    for table in tables:
        if isinstance(distribution_of(table), Sharded):
            name = _quoted(cluster, table)
            row = new.execute(f"SELECT EXISTS (SELECT FROM {name})".encode()).fetchone()
            if row is not None and row[0]:
                raise ConfigurationError(
                    f"table {name} of shard {shard!r} has rows, although it has not joined yet",
                    "see where they come from; a new shard begins empty",
                    shard=shard,
                )


def _check_older(
    old: psycopg.Connection[Any], shard: str, tables: Sequence[str], ignore: Sequence[str]
) -> None:
    """Make sure that nobody is connected who may not know the newcomer."""
    since = announced_since(old, shard)
    assert since is not None
    sessions = [Holder(*row) for row in older_sessions(old, since, tables)] if tables else []
    sessions = [session for session in sessions if session.application not in ignore]
    if sessions:
        are_older = "1 connection to the first shard is older"
        if len(sessions) > 1:
            are_older = f"{len(sessions)} connections to the first shard are older"
        raise ConfigurationError(
            f"{are_older} than the announcement of shard {shard!r}, and may not write to it what it"
            " is to have:",
            "restart these processes with a configuration that names it, then run this again; or "
            "name the applications that write no reference table (--ignore)",
            shard=shard,
            faults=[str(session) for session in sessions],
        )


def _copied(
    old: psycopg.Connection[Any], new: psycopg.Connection[Any], shard: str, tables: Sequence[str]
) -> list[Copied]:
    """Copy in one transaction, in which the newcomer also notes that it has joined."""

    def copy() -> list[Copied]:
        with old.transaction(), new.transaction():
            _lock_both(old, new, tables)
            replace_rows(old, new, tables)
            verified = verify(old, new, tables)
            tell_joined(new, shard)
            return verified

    return _again(copy)


def _verified(
    old: psycopg.Connection[Any], new: psycopg.Connection[Any], tables: Sequence[str]
) -> list[Copied]:
    def compare() -> list[Copied]:
        with old.transaction(), new.transaction():
            _lock_both(old, new, tables)
            return verify(old, new, tables)

    return _again(compare)


def _lock_both(
    old: psycopg.Connection[Any], new: psycopg.Connection[Any], tables: Sequence[str]
) -> None:
    for driver in (old, new):
        prepare(driver, LOCK_SECONDS)
    # As writers do: first where they begin. What is being committed then still holds the other.
    lock(old, tables, "SHARE")
    lock(new, tables, "SHARE ROW EXCLUSIVE")


def _again(work: Callable[[], list[Copied]]) -> list[Copied]:
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(psycopg.errors.LockNotAvailable),
        stop=tenacity.stop_after_attempt(LOCK_ATTEMPTS),
        wait=tenacity.wait_random(0.2, 1.0),
        sleep=sleep,
        reraise=True,
    )
    try:
        return retrying(work)
    except psycopg.errors.LockNotAvailable as error:
        raise ConfigurationError(
            "the reference tables are being written all the time, or by a transaction that lasts",
            "run this again when there is less to do, or end that transaction; nothing was changed",
        ) from error
