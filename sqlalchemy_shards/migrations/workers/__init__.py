"""Many shards at once, by worker processes: Alembic works through names that threads share.

- `commands`: the functions `upgrade`, `downgrade` and `stamp`. `order` is what is asked for, and
  `report` what it came to.
- `runner` performs a `schedule` (pure) with `processes`, hears their `messages`, keeps a `tally`
  (pure), and of Ctrl-C (`stopping`).
- `worker`: what runs in such a process; `watching` tells of a shard's turn.
- `addresses`, `alembic_settings`: what both sides must mean alike.
"""
