"""How tables spread over shards, as their models say it, and the checks that protect their rows.

Takes mapped classes and Core tables; notes each table's `Distribution` in ``table.info``, where
routing, planning and the session read it, and says which values of a shard key can be hashed.
Raises `ConfigurationError` for what cannot work, as early as it can be seen. Never connects to a
server, never changes a table or a mapping, and knows no shards: which keyspaces exist is the
cluster's to check.

- `distribution`: the three ways in which a table spreads, and where that is noted.
- `declare`: the mixins and functions with which models say it.
- `inheritance`: what joined children inherit.
- `key_types`: which column types can be shard keys, and which values of them.
- `faults`: what is wrong with declarations, one sentence each.
- `checks`: the doors to them; raises all faults of all models at once.
"""
