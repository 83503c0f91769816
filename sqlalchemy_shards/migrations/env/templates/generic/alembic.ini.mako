# Alembic, over every shard of a cluster. Its options: https://alembic.sqlalchemy.org/
#
# %(here)s is the directory of this file.

[alembic]
script_location = ${script_location}

# What migrations/env.py reads: the shards.
shards_config = %(here)s/shards.toml

# Where Python looks for the models, and what separates several directories.
prepend_sys_path = .
path_separator = os

# file_template = %%(year)d_%%(month).2d_%%(day).2d_%%(hour).2d%%(minute).2d-%%(rev)s_%%(slug)s
# timezone = UTC
# version_locations = %(here)s/migrations/versions:%(here)s/billing/versions
# recursive_version_locations = false
# revision_environment = false

[post_write_hooks]
# hooks = ruff
# ruff.type = module
# ruff.module = ruff
# ruff.options = check --fix REVISION_SCRIPT_FILENAME

# Logging, read by migrations/env.py. The logger alembic.shards tells which shard has its turn.
[loggers]
keys = root,sqlalchemy,alembic

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = WARNING
handlers = console
qualname =

[logger_sqlalchemy]
level = WARNING
handlers =
qualname = sqlalchemy.engine

[logger_alembic]
level = INFO
handlers =
qualname = alembic

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(levelname)-5.5s [%(name)s] %(message)s
datefmt = %H:%M:%S
