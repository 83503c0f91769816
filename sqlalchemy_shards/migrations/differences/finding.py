"""``drift``: in what the shards of a cluster differ, from one another and from the models."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards.cluster.schema import checked_tables
from sqlalchemy_shards.connections.fan_out import branch_for_each
from sqlalchemy_shards.migrations.env.asking import ask_environment
from sqlalchemy_shards.migrations.turns.version_table import revisions_in
from sqlalchemy_shards.models.distribution import Global, distribution_of

from .comparing import compare
from .looking import Defined, Looker
from .report import Difference, DriftReport
from .with_models import unlike_models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alembic.config import Config
    from sqlalchemy import MetaData, Table

    from sqlalchemy_shards.cluster.cluster import Cluster

DRIFT_SECONDS: Final = 30.0
"""How long a comparison waits for the shards, all of them together."""


def drift(
    cluster: Cluster,
    metadata: MetaData | Sequence[MetaData] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    deadline_seconds: float = DRIFT_SECONDS,
) -> DriftReport:
    """Compare every shard with the others, and with the models.

    :param metadata: the models' tables; without it, shards are compared with each other only.
    :param options: arguments of Alembic's ``context.configure()``, as ``include_object``,
        ``compare_type`` (on, if it is not said) or ``version_table``.
    :param deadline_seconds: how long to wait for the shards, all of them together.
    :raises ConfigurationError: a table is not declared, or in a way that cannot work.
    """
    cluster.check_open()
    tables = None if metadata is None else checked_tables(cluster, metadata)
    end = monotonic() + deadline_seconds
    options = dict(options or {})
    seen, not_seen = _look(cluster, options, deadline_seconds)
    compared = compare(seen, cluster.global_shard, None if tables is None else _global(tables))
    differences, notes = list(compared.differences), list(compared.notes)
    if metadata is None:
        notes.append("nobody said which tables there should be: shards were compared with shards")
    else:
        for shards in _alike(seen, cluster.global_shard):
            try:
                left = max(1.0, end - monotonic())
                differences += unlike_models(cluster, shards, metadata, options, left)
            except SQLAlchemyError as error:
                not_seen |= dict.fromkeys(shards, f"not compared with the models: {_line(error)}")
    return DriftReport(cluster.name, tuple(seen), _joined(differences), not_seen, tuple(notes))


def drift_by_environment(config: Config, *, deadline_seconds: float = DRIFT_SECONDS) -> DriftReport:
    """The same, of the cluster and the models that ``env.py`` names, with its options.

    :param config: Alembic's configuration. Its ``env.py`` is run, and no migration.
    """
    return ask_environment(
        config,
        lambda cluster, task: drift(
            cluster, task.metadata, options=task.options, deadline_seconds=deadline_seconds
        ),
    )


def _look(
    cluster: Cluster, options: Mapping[str, Any], deadline_seconds: float
) -> tuple[dict[str, Defined], dict[str, str]]:
    """What is defined on each shard, and why shards could not be looked at."""
    looker = Looker()

    def look(shard: str) -> Defined:
        with cluster.connect(shard) as driver:
            return looker.look(driver, revisions_in(driver, options))

    outcomes = cluster.fan_out.run(
        branch_for_each(cluster.shards, look),
        deadline_seconds=deadline_seconds,
    )
    seen: dict[str, Defined] = {}
    not_seen: dict[str, str] = {}
    for outcome in outcomes:
        if outcome.error is None:
            seen[outcome.shard] = outcome.result()
        else:
            not_seen[outcome.shard] = _line(outcome.error)
    return seen, not_seen


def _global(tables: Sequence[Table]) -> set[str]:
    """Names of global tables; one whose schema is in the search path goes without it, too."""
    found = [each for each in tables if isinstance(distribution_of(each) or Global(), Global)]
    others = {each.name for each in tables if each not in found}
    names = {each.fullname for each in found}
    return names | {each.name for each in found if each.name not in others}


def _alike(seen: Mapping[str, Defined], global_shard: str) -> list[list[str]]:
    """Shards that are alike and have the same tables of the models; the global one by itself."""
    groups: dict[tuple[int, bool], list[str]] = {}
    for shard, defined in seen.items():
        groups.setdefault((id(defined), shard == global_shard), []).append(shard)
    return list(groups.values())


def _joined(differences: list[Difference]) -> tuple[Difference, ...]:
    """What several groups of shards differ in alike, once."""
    joined: dict[tuple[Any, ...], Difference] = {}
    for each in differences:
        key = (each.against, each.subject, each.aspect, each.found, each.expected)
        known = joined.get(key)
        shards = each.shards if known is None else (*known.shards, *each.shards)
        joined[key] = Difference(shards, *key)
    return tuple(joined.values())


def _line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
