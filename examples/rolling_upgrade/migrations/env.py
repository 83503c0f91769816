from alembic import context

from sqlalchemy_shards.migrations import run_migrations

run_migrations(context, context.config.attributes["cluster"])
