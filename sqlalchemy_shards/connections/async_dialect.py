"""The dialect of the shards of an asyncio cluster.

SQLAlchemy's own dialect for psycopg, which is asyncio's as far as SQLAlchemy asks: pools wait by
awaiting, and what the garbage collector finds is closed without I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

if TYPE_CHECKING:
    from sqlalchemy import Engine, Pool
    from sqlalchemy.engine import URL

_DRIVER: Final = "psycopg_shard"


class AsyncShardDialect(PGDialect_psycopg):
    """The dialect of one shard of an asyncio cluster."""

    is_async = True
    has_terminate = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """A pool that awaits."""
        return AsyncAdaptedQueuePool

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Show the URL as it was given."""
        engine.url = engine.url.set(drivername="postgresql+psycopg")

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Close a connection, for which nothing has to be waited for."""
        dbapi_connection.close()


def for_asyncio(url: URL) -> URL:
    """The URL by which ``create_engine()`` finds this dialect."""
    registry.register(f"postgresql.{_DRIVER}", __name__, AsyncShardDialect.__name__)
    return url.set(drivername=f"postgresql+{_DRIVER}")
