"""A shard: its name, its engine, and connections from its pool."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import exc

from sqlalchemy_shards.connections.fan_out import DeadlineExceeded
from sqlalchemy_shards.connections.hub import acquire_lock
from sqlalchemy_shards.connections.urls import mask_url
from sqlalchemy_shards.errors import ShardUnavailable

if TYPE_CHECKING:
    from sqlalchemy import Engine, PoolProxiedConnection


class Shard:
    """One PostgreSQL database that holds a part of the data.

    :param name: its name in the cluster.
    :param engine: an ordinary engine for it, as `create_shard_engine` makes.
    """

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self._opened = False
        self._opening = threading.Lock()

    @property
    def masked_url(self) -> str:
        """The engine's URL without its passwords."""
        return mask_url(self.engine.url)

    def acquire(self) -> PoolProxiedConnection:
        """Take a connection from the pool; in a branch, connecting lets other branches run.

        Waiting for a connection of an exhausted pool does not: it stops the thread for up to the
        engine's ``pool_timeout``.

        :raises ShardUnavailable: no connection can be made.
        :raises sqlalchemy.exc.TimeoutError: all connections of the pool are in use.
        """
        try:
            return self.engine.raw_connection() if self._opened else self._open()
        except DeadlineExceeded:
            raise
        except (psycopg.Error, exc.DBAPIError) as error:
            raise self.unavailable(error) from error
        except exc.TimeoutError as error:
            # It has no place for details, unlike SQLAlchemy's errors of statements.
            raise exc.TimeoutError(
                f"{error.args[0]} (shard: {self.name})", code=error.code
            ) from None

    def unavailable(self, error: Exception) -> ShardUnavailable:
        """What to raise where ``error`` kept a connection from being made."""
        driver_error = getattr(error, "orig", None) or error
        return ShardUnavailable(
            f"shard {self.name!r} at {self.masked_url} cannot be reached: {driver_error}",
            "see that its server runs and accepts this user, then try again",
            shard=self.name,
        )

    def _open(self) -> PoolProxiedConnection:
        """Take the engine's first connection, one caller at a time.

        SQLAlchemy holds a lock of the thread's while it asks the server what it can do, which two
        branches of one thread would wait for for ever.
        """
        acquire_lock(self._opening)
        try:
            connection = self.engine.raw_connection()
            self._opened = True
        finally:
            self._opening.release()
        return connection
