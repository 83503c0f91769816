"""What we keep in each shard's own schema `shards`: who the shard is, and what was decided there.

Takes driver connections; returns identities and creates or upgrades the schema. Raises
`ConfigurationError` for a database that is not the shard that it is said to be. Never needs a
superuser, never touches another schema, and never leaves a transaction open that it began.
"""
