"""What is fit and what is not about each shard, and what to do about it.

Pure: takes what was seen (`ShardFacts`, see `facts`), returns a `Report`. A shard that does not
answer is a finding, never an error; what could not be looked at is said to be so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy_shards.catalog.identity import Identity

SERVER_VERSION_MIN: Final = 130000
"""The oldest PostgreSQL that is supported, as ``server_version_num``."""

PREPARED_SECONDS_MAX: Final = 60.0
"""A transaction of ours that is prepared for longer was left behind by a crash."""

TABLES_SHOWN_MAX: Final = 5


class Status(enum.Enum):
    """How a finding came out; only ``FAILED`` makes a report unhealthy."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at on one shard.

    :param subject: what: "reachable", "server", "two-phase commit", "schema shards", "identity",
        "prepared transactions", "tables"; "the rest" where it could not be looked at.
    :param found: what was seen.
    :param advice: what to do, where it is not ok.
    """

    shard: str
    subject: str
    status: Status
    found: str
    advice: str | None = None

    def __str__(self) -> str:
        advice = "" if self.advice is None else f"; {self.advice}"
        return f"{self.shard}: {self.subject}: {self.status.value}: {self.found}{advice}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of a cluster found; ``str()`` has a line for each finding.

    :param cluster: its name.
    :param findings: shard by shard, in the cluster's order.
    """

    cluster: str
    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing failed; warnings are allowed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that need something done."""
        return tuple(each for each in self.findings if each.status is Status.FAILED)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "cluster": self.cluster,
            "is_healthy": self.is_healthy,
            "findings": [
                {
                    "shard": each.shard,
                    "subject": each.subject,
                    "status": each.status.value,
                    "found": each.found,
                    "advice": each.advice,
                }
                for each in self.findings
            ],
        }

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared transaction in a shard's database; ``is_ours`` if this cluster prepared it."""

    is_ours: bool
    age_seconds: float


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What was seen of a shard that answered.

    :param server_version: as ``server_version_num``.
    :param database: which database of which running server it is.
    :param may_use_schema: whether the role may use what the commit protocol uses.
    :param missing_tables: tables that should be here and are not.
    """

    server_version: int
    is_standby: bool
    prepared_transactions_max: int
    database: tuple[datetime, int]
    identity: Identity | None
    may_use_schema: bool
    prepared: tuple[Prepared, ...]
    missing_tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a cluster needs of its shards.

    :param commits_atomically: whether one transaction may write on several of them.
    :param checks_tables: whether tables were looked for.
    """

    cluster: str
    commits_atomically: bool
    checks_tables: bool


def judge(
    seen: Mapping[str, ShardFacts | Exception],
    addresses: Mapping[str, str],
    expectation: Expectation,
) -> Report:
    """Return the report about what was seen of each shard, or the error that it met instead.

    :param addresses: the URL of each shard, without passwords.
    """
    findings: list[Finding] = []
    first_with: dict[tuple[datetime, int], str] = {}
    for shard, facts in seen.items():
        if isinstance(facts, Exception):
            findings += _of_error(shard, addresses[shard], facts)
            continue
        twin = first_with.setdefault(facts.database, shard)
        findings += [
            Finding(shard, "reachable", Status.OK, addresses[shard]),
            _server(shard, facts),
            _two_phase_commit(shard, facts, expectation),
            _schema(shard, facts),
            _identity(shard, facts, None if twin == shard else twin),
            *_prepared(shard, facts),
        ]
        if expectation.checks_tables:
            findings.append(_tables(shard, facts))
    return Report(expectation.cluster, tuple(findings))


def _of_error(shard: str, address: str, error: Exception) -> Iterator[Finding]:
    if isinstance(error, ConfigurationError):
        # Whoever answers with another identity is refused when the connection is opened.
        yield Finding(shard, "reachable", Status.OK, address)
        yield Finding(shard, "identity", Status.FAILED, error.problem, error.advice)
    else:
        yield Finding(
            shard,
            "reachable",
            Status.FAILED,
            f"{address} cannot be looked at: {_one_line(error)}",
            "see that its server runs, and that host, port, database, user and password are right",
        )
    yield Finding(shard, "the rest", Status.SKIPPED, "first mend this")


def _server(shard: str, facts: ShardFacts) -> Finding:
    version = _version(facts.server_version)
    if facts.server_version < SERVER_VERSION_MIN:
        found = f"PostgreSQL {version} is too old"
        advice = f"upgrade it to PostgreSQL {SERVER_VERSION_MIN // 10000} or later"
        return Finding(shard, "server", Status.FAILED, found, advice)
    if facts.is_standby:
        found = f"PostgreSQL {version}, but a standby, which takes no writes"
        return Finding(shard, "server", Status.FAILED, found, "let the URL lead to the primary")
    return Finding(shard, "server", Status.OK, f"PostgreSQL {version}")


def _two_phase_commit(shard: str, facts: ShardFacts, expectation: Expectation) -> Finding:
    found = f"max_prepared_transactions is {facts.prepared_transactions_max}"
    if facts.prepared_transactions_max > 0:
        return Finding(shard, "two-phase commit", Status.OK, found)
    if not expectation.commits_atomically:
        found += ", which suffices: no transaction of this cluster writes on several shards"
        return Finding(shard, "two-phase commit", Status.OK, found)
    return Finding(
        shard,
        "two-phase commit",
        Status.FAILED,
        f"{found}: a transaction that writes on several shards cannot be committed",
        "set it to at least max_connections and restart the server, "
        'or create the cluster with multi_shard_writes = "refuse"',
    )


def _schema(shard: str, facts: ShardFacts) -> Finding:
    if facts.identity is None:
        advice = "call cluster.bootstrap(), or cluster.create_all(metadata), once"
        return Finding(shard, "schema shards", Status.FAILED, "it is not there", advice)
    found = f"version {facts.identity.version}"
    if not facts.may_use_schema:
        return Finding(
            shard,
            "schema shards",
            Status.FAILED,
            f"{found}, but the role of the application may not use it",
            "grant it USAGE on the schema shards, SELECT on its table identity, and "
            "SELECT, INSERT, UPDATE and DELETE on its table decisions",
        )
    return Finding(shard, "schema shards", Status.OK, found)


def _identity(shard: str, facts: ShardFacts, twin: str | None) -> Finding:
    if twin is not None:
        found, advice = (
            f"it is the same database as shard {twin!r}",
            "correct the URL of one of them",
        )
        return Finding(shard, "identity", Status.FAILED, found, advice)
    if facts.identity is None:
        return Finding(shard, "identity", Status.SKIPPED, "it is written with the schema shards")
    found = f"shard {facts.identity.shard_name!r} of cluster {facts.identity.cluster_name!r}"
    return Finding(shard, "identity", Status.OK, found)


def _prepared(shard: str, facts: ShardFacts) -> Iterator[Finding]:
    subject = "prepared transactions"
    ours = [each.age_seconds for each in facts.prepared if each.is_ours]
    foreign = [each.age_seconds for each in facts.prepared if not each.is_ours]
    left_behind = [age for age in ours if age > PREPARED_SECONDS_MAX]
    if left_behind:
        found = f"{len(left_behind)} left behind, the oldest for {_duration(max(left_behind))}"
        yield Finding(shard, subject, Status.FAILED, found, "call cluster.recover()")
    else:
        found = f"{len(ours)} being committed just now" if ours else "none left behind"
        yield Finding(shard, subject, Status.OK, found)
    if foreign:
        yield Finding(
            shard,
            subject,
            Status.WARNING,
            f"{len(foreign)} that this cluster did not prepare, the oldest for "
            f"{_duration(max(foreign))}",
            "see pg_prepared_xacts, and finish what nobody will: they hold locks and stop VACUUM",
        )


def _tables(shard: str, facts: ShardFacts) -> Finding:
    missing = facts.missing_tables
    if not missing:
        return Finding(shard, "tables", Status.OK, "all there")
    shown = ", ".join(missing[:TABLES_SHOWN_MAX])
    more = len(missing) - TABLES_SHOWN_MAX
    found = f"{len(missing)} missing: {shown}" + (f" and {more} more" if more > 0 else "")
    advice = "call cluster.create_all(metadata), or run the migrations"
    return Finding(shard, "tables", Status.FAILED, found, advice)


def _version(number: int) -> str:
    return f"{number // 10000}.{number % 10000}"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
