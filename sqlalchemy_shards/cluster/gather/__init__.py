"""Bringing rows of several shards together, where shards alone cannot answer.

Takes: parts that `planning` has planned, the transaction that they are read in.
Returns: the answer of the workspace; or, for a write, the rows that each shard lacks.
Raises: `GatherLimitExceeded`; `UnsupportedStatement` where the workspace read what was not shipped.
Never: writes, but to temporary tables of the workspace, which are rolled back.

- `gather`: the decision and the answer put together
- `asking`, `agreement`, `estimates`: what PostgreSQL is asked while it is planned
- `key_lists`: which rows keys of others choose; `shipping`, `arrival`: rows on their way
- `workspace`: where the statement runs in the end
- `supplying`: the same for a write, whose shards are the workspace
"""
