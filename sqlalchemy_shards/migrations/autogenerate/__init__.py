"""What autogenerate does for tables that spread over shards.

Takes what Alembic found out in comparing one shard with the models; gives the same operations,
arranged so that the revision does the right thing on every shard without today's models. Raises
`ConfigurationError` for what the shards cannot keep. Never writes a file and changes no database.

- `comparing`: the comparators, as Alembic calls them.
- `kinds`: which tables are global.
- `arranging`: which operations stand where in a revision (pure).
- `rendering`: their Python text.
"""
