"""Where things are: shards, partitioners, buckets and the shard map, as values.

Takes shard-key values, mappings and the text of a configuration file; returns buckets, shard names
and immutable records; raises `ConfigurationError` for what is declared wrongly and `RoutingError`
for a key that cannot be placed. Never opens a connection, reads a file, the environment or a clock,
or uses randomness: the same arguments give the same answer in every process.
"""
