"""What applications hold in their hands: the session and the query.

A `ShardedSession` is SQLAlchemy's own session bound to a cluster's engine; it adds what only a
session knows (where its objects live) and a few questions that an application may ask.
"""
