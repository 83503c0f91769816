"""One execution of a statement -> the work of each shard.

Takes: a compiled statement with what `plans` keeps beside it, values, options, the shard map.
Returns: a `Dispatch`, which the cursor performs.
Raises: the refusals of routing and planning, before anything was sent.
Never: sends anything but what planning must ask of a catalog or of a planner.

- `dispatch`: the decision; `by_key`: its short cut for a statement that was seen before
- `work`: the nouns
- `one_set`, `many_sets`, `inserts`, `copies`, `unread`, `no_rows`: one kind of statement each
- `values`, `listed`, `array_texts`, `own_values`: values, as routing reads and shards get them
- `whereabouts`, `inserted`: what is known of rows that are named without their shard key
- `kept_keys`, `carried_buckets`: what must not be written
"""
