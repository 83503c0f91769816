"""Many PostgreSQL shards behind one ordinary SQLAlchemy engine."""

__version__ = "0.1.0.dev0"
