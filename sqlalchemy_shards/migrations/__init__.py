"""Alembic over every shard.

Takes an Alembic environment and a cluster; gives each shard its revisions. A command of Alembic's
goes through one or more shards, a *turn* for each, within one call of ``env.py``. Never runs two
migrations at once in one process: Alembic works through names of modules, which threads share.

- `env`: what happens when Alembic runs an ``env.py`` that calls `run_migrations`.
- `turns`: one shard's turn: its lock, its bounded waits, its ledger, another try.
- `workers`: `upgrade`, `downgrade` and `stamp` over many shards at once, by worker processes.
- `atomic`: the same on all shards or on none.
- `operations`: what revisions can say beyond Alembic's own. `autogenerate`: how revisions are
  written. `plugin`: how Alembic comes to know of both.
- `status`: how far shards are (`standing`), and which have not joined (`membership`).
  `differences`: drift. `relative`: targets that count from where a shard is.
- `joining`, `copying`: a shard that is added to a cluster with data.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy_shards.migrations.differences.finding import drift
    from sqlalchemy_shards.migrations.env.call import run_migrations
    from sqlalchemy_shards.migrations.joining import join_shard
    from sqlalchemy_shards.migrations.status import ClusterStatus, ShardStatus, status_of
    from sqlalchemy_shards.migrations.turns.bounds import Bounds
    from sqlalchemy_shards.migrations.workers.alembic_settings import AlembicSettings
    from sqlalchemy_shards.migrations.workers.commands import downgrade, stamp, upgrade
    from sqlalchemy_shards.migrations.workers.order import RunOptions
    from sqlalchemy_shards.migrations.workers.report import MigrationReport, Outcome, ShardMigration

__all__ = [
    "run_migrations",
    "Bounds",
    "upgrade",
    "downgrade",
    "stamp",
    "RunOptions",
    "AlembicSettings",
    "MigrationReport",
    "ShardMigration",
    "Outcome",
    "status_of",
    "ClusterStatus",
    "ShardStatus",
    "drift",
    "join_shard",
]

# None may be the name of a module, which stands under its own name here once it is imported.
_MODULE_OF: Final = MappingProxyType(
    {
        "run_migrations": "env.call",
        "Bounds": "turns.bounds",
        "upgrade": "workers.commands",
        "downgrade": "workers.commands",
        "stamp": "workers.commands",
        "RunOptions": "workers.order",
        "AlembicSettings": "workers.alembic_settings",
        "MigrationReport": "workers.report",
        "ShardMigration": "workers.report",
        "Outcome": "workers.report",
        "status_of": "status",
        "ClusterStatus": "status",
        "ShardStatus": "status",
        "drift": "differences.finding",
        "join_shard": "joining",
    }
)


def __getattr__(name: str) -> Any:
    # Alembic loads the plug-in while it is imported itself, when what imports it could not be.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
