"""Alembic's environment: each command runs once, and means every shard of the cluster."""

from logging.config import fileConfig

from alembic import context

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.migrations import run_migrations

config = context.config

if config.config_file_name is not None:
    fileConfig(config.config_file_name)

# The MetaData of the models, for `alembic revision --autogenerate` and `alembic check`:
#
#     from shop.models import Base
#     target_metadata = Base.metadata
target_metadata = None

cluster = Cluster.from_file(config.get_alembic_option("shards_config", "shards.toml"))
try:
    # Further arguments are those of context.configure(), such as compare_server_default=True.
    run_migrations(context, cluster, target_metadata)
finally:
    cluster.dispose()  # of an AsyncCluster: leave it away
