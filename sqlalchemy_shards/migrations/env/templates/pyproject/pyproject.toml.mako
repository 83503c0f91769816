[tool.alembic]
# %(here)s is the directory of this file. Options: https://alembic.sqlalchemy.org/
script_location = "${script_location}"

# What env.py reads: the shards.
shards_config = "%(here)s/shards.toml"

# Where Python looks for the models.
prepend_sys_path = ["."]

# file_template = "%%(year)d_%%(month).2d_%%(day).2d_%%(hour).2d%%(minute).2d-%%(rev)s_%%(slug)s"
# timezone = "UTC"
# version_locations = ["%(here)s/migrations/versions", "%(here)s/billing/versions"]
# recursive_version_locations = false
# revision_environment = false

# [[tool.alembic.post_write_hooks]]
# name = "ruff"
# type = "module"
# module = "ruff"
# options = "check --fix REVISION_SCRIPT_FILENAME"
