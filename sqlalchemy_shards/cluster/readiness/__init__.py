"""Whether every shard of a cluster is fit for work, and what to do where it is not.

Takes a cluster and, maybe, the metadata of its models; returns a `Report`. Never changes anything,
and never lets a shard that is down or slow keep the others from being looked at.

- `check`: asks all shards at once, until a deadline.
- `looking`, `looking_at_tables`: what is asked of one shard, and `seen`: the answers, as data.
- `judging`: the report about what was seen; `server`, `database`, `alike` and `tables` know one
  kind of fault each.
"""
