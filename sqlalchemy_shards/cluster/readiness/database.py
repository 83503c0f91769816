"""Whether a shard's database is the one that it should be, set up, and free of leftovers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.catalog.identity import SCHEMA_VERSION
from sqlalchemy_shards.topology.durations import shown_duration

from .report import Finding, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .seen import Prepared, ShardFacts

PREPARED_SECONDS_MAX: Final = 60.0
"""A transaction of ours that is prepared for longer was left behind by a crash."""


def judge_database(shard: str, facts: ShardFacts, twin: str | None) -> Iterator[Finding]:
    """Yield what is to be said of a shard's database.

    :param twin: another shard that is the same database, None: there is none.
    """
    yield _schema(shard, facts)
    yield _identity(shard, facts, twin)
    yield from _prepared(shard, facts)
    yield from _collation_version(shard, facts)


def _schema(shard: str, facts: ShardFacts) -> Finding:
    subject = "schema shards"
    if facts.identity is None:
        advice = "run `alembic upgrade head`, or call cluster.bootstrap(), once"
        return Finding(shard, subject, Status.FAILED, "it is not there", advice)
    found = f"version {facts.identity.version}"
    if facts.may_use_schema and facts.identity.version < SCHEMA_VERSION:
        found += f", and this release makes version {SCHEMA_VERSION}"
        return Finding(shard, subject, Status.WARNING, found, "call cluster.bootstrap() once")
    if facts.may_use_schema:
        return Finding(shard, subject, Status.OK, found)
    return Finding(
        shard,
        subject,
        Status.FAILED,
        f"{found}, but the role of the application may not use it",
        "grant it USAGE on the schema shards, SELECT on its table identity, and "
        "SELECT, INSERT, UPDATE and DELETE on its other tables",
    )


def _identity(shard: str, facts: ShardFacts, twin: str | None) -> Finding:
    subject = "identity"
    if twin is not None:
        found = f"it is the same database as shard {twin!r}"
        return Finding(shard, subject, Status.FAILED, found, "correct the URL of one of them")
    if facts.identity is None:
        return Finding(shard, subject, Status.SKIPPED, "it is written with the schema shards")
    found = f"shard {facts.identity.shard_name!r} of cluster {facts.identity.cluster_name!r}"
    if facts.identity.newcomers.get(shard) is False:
        found += ", which has not joined yet"
        advice = f"run `shards migrate join {shard}` until it says that it has"
        return Finding(shard, subject, Status.WARNING, found, advice)
    return Finding(shard, subject, Status.OK, found)


def _prepared(shard: str, facts: ShardFacts) -> Iterator[Finding]:
    subject = "prepared transactions"
    ours = [each for each in facts.prepared if each.is_ours]
    foreign = [each.age_seconds for each in facts.prepared if not each.is_ours]
    left_behind = [each for each in ours if each.age_seconds > PREPARED_SECONDS_MAX]
    if left_behind:
        yield _left_behind(shard, left_behind)
    else:
        found = f"{len(ours)} being committed just now" if ours else "none left behind"
        yield Finding(shard, subject, Status.OK, found)
    if foreign:
        yield Finding(
            shard,
            subject,
            Status.WARNING,
            f"{len(foreign)} that this cluster did not prepare, the oldest for "
            f"{shown_duration(max(foreign))}",
            "see pg_prepared_xacts, and finish what nobody will: they hold locks and stop VACUUM",
        )


def _left_behind(shard: str, left_behind: list[Prepared]) -> Finding:
    oldest = shown_duration(max(each.age_seconds for each in left_behind))
    found = f"{len(left_behind)} left behind, the oldest for {oldest}"
    advice = "run `shards transactions recover`, or cluster.recover()"
    owners = sorted({each.owner for each in left_behind if not each.may_finish})
    if owners:
        found += f"; the role of the application may not finish those of {', '.join(owners)}"
        advice += f" as a role that is a member of {', '.join(owners)}, or as a superuser"
    return Finding(shard, "prepared transactions", Status.FAILED, found, advice)


def _collation_version(shard: str, facts: ShardFacts) -> Iterator[Finding]:
    recorded, current = facts.database.collation_version, facts.database.library_version
    if recorded is not None and current is not None and recorded != current:
        yield Finding(
            shard,
            "collation version",
            Status.WARNING,
            f"the database was ordered by version {recorded} of its collations, and the server "
            f"has {current}: indexes over text may miss rows",
            "REINDEX what text is in, then ALTER DATABASE ... REFRESH COLLATION VERSION",
        )
