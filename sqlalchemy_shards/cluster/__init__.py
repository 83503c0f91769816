"""The whole cluster as one connection: here routing, planning, execution and transactions meet.

`Cluster` holds the shards and gives `Cluster.engine`, an ordinary SQLAlchemy engine. Below it,
SQLAlchemy sees a dialect (`dialect`), a DBAPI connection (`connection`) and a cursor (`cursor`);
the path of a statement is `cursor.ClusterCursor.run`. Never changes what SQLAlchemy above does.
"""
