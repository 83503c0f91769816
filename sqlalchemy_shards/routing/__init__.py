"""Statement -> route: which shards a statement must reach, and why.

Takes a compiled statement once (`analysis`) and the values of each execution (`router`); returns a
`Route`. Raises `RoutingError` where a row has no usable key. Never opens a connection, and never
leaves out a shard that holds a row the statement could see: what is not understood widens.
"""
