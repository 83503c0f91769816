"""Plan -> rows: what the shards gave, put together.

Takes row sources of the shards and a merge from `plan`; returns rows as the driver would. Raises
`UnsupportedStatement` where the shards' column types show that Python would not merge exactly as
PostgreSQL would. Never touches SQLAlchemy.
"""
