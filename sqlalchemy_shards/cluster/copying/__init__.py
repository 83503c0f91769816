"""COPY over all shards: rows in, each to the shard of its key, and rows out.

Takes: a connection of the cluster's engine, a table, rows from wherever they come.
Returns: how many rows were stored where; or the rows.
Raises: `RowRefused` and the routing errors of inserts, with the number of the row; the driver's
errors with the shard and the number of the row, without its values.
Never: keeps more than a bounded number of rows; reads a row twice; commits.

- `target`: the columns that are copied into, and the shard of each row
- `defaults`: values that the client gives where a row has none
- `encoding`: rows as the bytes of PostgreSQL's binary or text format
- `sending`: the COPYs that run on the shards, and what waits to be sent
- `rows`, `csv_format`, `csv_rows`, `arrow`, `names`: where rows come from, and their columns
- `copy_from`: all of these put together
- `copy_to`, `arrow_batches`: rows out
- `failures`: a server's errors, told by the number of the row
"""
