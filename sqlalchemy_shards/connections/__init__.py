"""Shards' engines and pools, and the fan-out: work on several shards at once, in one thread.

Takes: engines or URLs, and *branches*, each the work to do on one shard.
Returns: pooled connections, and one `Outcome` for each branch, in the order of the branches.
Raises: `ConfigurationError` for a URL or driver that cannot be used, `ShardUnavailable` for a shard
that cannot be reached, and whatever interrupts a fan-out (Ctrl-C), after every statement of it was
cancelled and its connection drained or closed. An error of a branch is never raised: it is an
outcome.
Never: starts a thread on its ordinary path, retries, decides what runs where, or shows a password.

- `shard`: a shard, its engine, a connection from its pool
- `engines`: ordinary SQLAlchemy engines whose connections can wait side by side
- `fan_out`: what goes in and comes out, and the fan-out that runs one branch after the other
- `hub`: the concurrent fan-out, and the connection that can take part in it
- `loop`: the loop under it
- `greenlets`: the greenlet of a branch, and the sockets that greenlets wait for
- `cancelling`: cancel requests that do not block
- `exchange`, `polling`: short statements for several servers, all sent before an answer is read
- `event_loop`, `event_loop_hub`, `async_connection`, `async_dialect`: the same waits over asyncio
- `copying`: rows of a COPY, taken while they arrive
- `copying_in`: rows of a COPY, sent as fast as the server takes them
- `written_values`: a statement with its values written into it
- `settings`: what servers are told when a connection begins
- `urls`: reading a URL and showing it without its password
"""
