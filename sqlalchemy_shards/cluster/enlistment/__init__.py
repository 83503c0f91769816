"""Shards as they take part in one transaction of a cluster connection.

- `enlisted`: a shard's connection while it does
- `transaction_log`, `moments`: what a shard is told that joins when others have begun
- `on_shards`: work on several of them at once, and what an error means for the transaction
- `early_xid`: what their commit needs, asked while another shard works
- `consistent`: all of them enlisted at once, for snapshots that agree
"""
