"""One shard's turn to be migrated, over one connection.

- `run`: which shards a process goes through; `turn` is one of them, with its advisory lock
  (`lock`), its bounded waits (`bounds`, `settings`), its line in the ledger (`ledger`), and another
  try where a lock was not to be had (`progress` tells whether that is safe).
- `place`: which shard it is, for operations. `version_table`: what Alembic has noted there.
"""
