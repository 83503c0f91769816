"""What was seen of all shards -> the report. Pure.

A shard that does not answer is a finding, never an error; what could not be looked at is said to
be so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy_shards.errors import ConfigurationError

from .alike import judge_alikeness
from .database import judge_database
from .report import Finding, Report, Status, shards_by
from .seen import ShardFacts
from .server import judge_server
from .tables import (
    judge_declarations,
    judge_likeness_of_tables,
    judge_likeness_of_types,
    judge_order_of_columns,
    judge_tables,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .seen import Expectation


def judge(
    seen: Mapping[str, ShardFacts | Exception],
    addresses: Mapping[str, str],
    expectation: Expectation,
) -> Report:
    """Return the report about what was seen of each shard, or the error that it met instead.

    :param addresses: the URL of each shard, without passwords.
    """
    answered = {name: facts for name, facts in seen.items() if isinstance(facts, ShardFacts)}
    findings: list[Finding] = [*judge_declarations(expectation)]
    if len(answered) > 1:
        findings += judge_alikeness(answered)
        findings += judge_likeness_of_tables(answered)
        findings += judge_order_of_columns(answered)
        findings += judge_likeness_of_types(answered)
    servers = shards_by({name: facts.server.started_at for name, facts in answered.items()})
    first_with: dict[tuple[int, int], str] = {}
    for shard, found in seen.items():
        if not isinstance(found, ShardFacts):
            findings += _of_error(shard, addresses[shard], found)
            continue
        twin = first_with.setdefault(found.place, shard)
        findings += [
            Finding(shard, "reachable", Status.OK, addresses[shard]),
            *judge_server(shard, found, expectation, servers[found.server.started_at]),
            *judge_database(shard, found, None if twin == shard else twin),
            *judge_tables(shard, found, expectation),
        ]
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
