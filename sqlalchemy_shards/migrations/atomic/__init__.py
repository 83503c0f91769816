"""All shards or none: the migrations of several shards as one distributed transaction.

- `together`: the functions; `run`: the shards' turns, and the commit after the last one.
- `held`: a shard's connection, which cannot end its transaction. `entry`: the ledger, within it.
- `failing`: what is raised. `ending`: what is true of the shards afterwards, and what to do next.
"""
