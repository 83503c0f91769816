"""``run_migrations``: what an ``env.py`` calls, once for all shards.

How the shards take part depends on what a command of Alembic's does. What changes a database gives
each its turn; what compares with the models looks at one, and sees that the others are as far; what
only tells asks all, and says once what is the same everywhere; ``--sql`` needs no server.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards._compat.alembic import environment_of
from sqlalchemy_shards._compat.alembic_errors import let_alembic_print
from sqlalchemy_shards.cluster.async_cluster import AsyncCluster
from sqlalchemy_shards.errors import ShardsError
from sqlalchemy_shards.migrations.atomic.run import AtomicRun
from sqlalchemy_shards.migrations.env.comparing import compare, compared_shard, compares
from sqlalchemy_shards.migrations.env.counting import counted_once
from sqlalchemy_shards.migrations.env.invocation import Invocation
from sqlalchemy_shards.migrations.env.offline import write_scripts
from sqlalchemy_shards.migrations.env.over_asyncio import run_over_asyncio
from sqlalchemy_shards.migrations.env.selection import read_selection
from sqlalchemy_shards.migrations.env.telling import only_tells, tell
from sqlalchemy_shards.migrations.turns.bounds import Bounds, read_bounds
from sqlalchemy_shards.migrations.turns.origin import revision_in
from sqlalchemy_shards.migrations.turns.run import run_of
from sqlalchemy_shards.migrations.turns.turn import OneAfterTheOther

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from alembic.runtime.environment import EnvironmentContext
    from sqlalchemy import MetaData

    from sqlalchemy_shards.cluster.cluster import Cluster


def run_migrations(
    context: EnvironmentContext | ModuleType,
    cluster: Cluster | AsyncCluster,
    target_metadata: MetaData | Sequence[MetaData] | None = None,
    *,
    bounds: Bounds | None = None,
    **options: Any,
) -> None:
    """Run the Alembic command at hand on the shards that it means.

    These are all, in the cluster's order, or those that ``alembic -x shard=s1`` or
    ``-x shards=s1,s2`` names, in that order; with ``-x atomic=1``, all of them or none.

    :param context: ``alembic.context``.
    :param cluster: where an event loop runs already, an `AsyncCluster` is taken in ``run_sync()``
        only; elsewhere one runs until the migrations are done.
    :param target_metadata: the models' tables; without it nothing can be compared.
    :param bounds: how long migrations wait on each shard; ``-x lock_timeout=2s`` and the like win.
    :param options: arguments of Alembic's ``context.configure()``, the same for each shard.
    :raises alembic.util.CommandError: ``-x`` says what cannot be meant. Errors of ours are
        such ones, too, so that Alembic's command prints them in one line; but those that a revision
        raises, whose traceback tells where.
    """
    try:
        if isinstance(cluster, AsyncCluster):
            work = partial(_run, context, cluster.sync_cluster, target_metadata, bounds, options)
            run_over_asyncio(cluster, work)
        else:
            _run(context, cluster, target_metadata, bounds, options)
    except ShardsError as error:
        if revision_in(error.__traceback__) is None:
            let_alembic_print(error)
        raise


def _run(
    context: EnvironmentContext | ModuleType,
    cluster: Cluster,
    target_metadata: MetaData | Sequence[MetaData] | None,
    bounds: Bounds | None,
    options: dict[str, Any],
) -> None:
    environment = environment_of(context)
    waits = read_bounds(environment.get_x_argument()).or_else(bounds or Bounds())
    invocation = Invocation(environment, cluster, target_metadata, options, waits)
    offline = environment.is_offline_mode()
    selection = read_selection(
        environment.get_x_argument(), tuple(cluster.shards), is_offline=offline
    )
    shards = selection.shards
    if offline:
        # A revision is written once, whatever the number of shards.
        wanted = (compared_shard(cluster, shards),) if compares(environment) else shards
        write_scripts(invocation, wanted, selection.sql_directory)
    elif compares(environment):
        compare(invocation, shards)
    elif only_tells(environment):
        tell(invocation, shards)
    elif (given := run_of(environment.config)) is not None:
        invocation.visit(given, invocation.run)
    else:
        among_themselves = AtomicRun(shards) if selection.atomic else OneAfterTheOther(shards)
        with counted_once(invocation, shards):
            invocation.visit(among_themselves, invocation.run)
