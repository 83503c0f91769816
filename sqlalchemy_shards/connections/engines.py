"""Ordinary SQLAlchemy engines whose connections can wait side by side.

Everything else about such an engine is SQLAlchemy's: its pool, pre-ping, events, reset on return
(a rollback, for which psycopg sends nothing where no transaction is open).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import create_engine, event
from sqlalchemy.exc import ArgumentError

from sqlalchemy_shards.connections.async_connection import AsyncShardConnection
from sqlalchemy_shards.connections.async_dialect import AsyncShardDialect, for_asyncio
from sqlalchemy_shards.connections.event_loop import with_addresses
from sqlalchemy_shards.connections.hub import ShardConnection
from sqlalchemy_shards.connections.urls import SECRET_PARAMETERS, parse_url
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL, Dialect


def create_shard_engine(
    name: str, url: str | URL, *, is_async: bool = False, **engine_arguments: Any
) -> Engine:
    """Return an engine for the shard ``name`` whose connections are `ShardConnection`.

    :param url: ``postgresql+psycopg://…``; ``postgresql://`` means the same.
    :param is_async: its connections are `AsyncShardConnection`, for use in SQLAlchemy's greenlets.
    :param engine_arguments: go to `sqlalchemy.create_engine`.
    :raises ConfigurationError: the URL cannot be read, names another driver, or an argument is not
     accepted. The password is not shown.
    """
    parsed = parse_url(name, url)
    if is_async:
        parsed = for_asyncio(parsed)
    try:
        engine = create_engine(parsed, **engine_arguments)
    except (ArgumentError, TypeError) as error:
        raise ConfigurationError(
            f"SQLAlchemy does not accept the engine arguments of shard {name!r}: {error}",
            "correct them; they are those of sqlalchemy.create_engine()",
            shard=name,
        ) from error
    instrument_engine(engine)
    return engine


def instrument_engine(engine: Engine) -> None:
    """Make the connections that ``engine`` opens from now on `ShardConnection`.

    Those that it has already, and those of a ``creator`` or pool of the user's, stay what they are:
    they work, but one shard after the other. Doing it twice is doing it once.

    :raises ConfigurationError: its driver is not psycopg, or SQLAlchemy's own for asyncio.
    """
    dialect = engine.dialect
    is_foreign = dialect.is_async and not isinstance(dialect, AsyncShardDialect)
    if dialect.name != "postgresql" or dialect.driver != "psycopg" or is_foreign:
        raise ConfigurationError(
            f"an engine has the driver {dialect.name}+{dialect.driver}",
            "only psycopg 3 is supported here: create it with postgresql+psycopg://, or give "
            "create_async_cluster() URLs",
        )
    # `event.contains()` knows an engine by its id(), which a later engine may have again.
    if _connect not in list(dialect.dispatch.do_connect):
        event.listen(engine, "do_connect", _connect)


def _connect(
    dialect: Dialect, record: Any, arguments: list[Any], parameters: dict[str, Any]
) -> Any:
    """Open a connection, as the last of the engine's ``do_connect`` listeners.

    SQLAlchemy asks no listener after one that connected, so those that were added after this one,
    as for passwords that change, are asked here.
    """
    listeners: list[Any] = list(dialect.dispatch.do_connect)
    for listener in listeners[listeners.index(_connect) + 1 :]:
        connection = listener(dialect, record, arguments, parameters)
        if connection is not None:
            return connection
    try:
        if dialect.is_async:
            return AsyncShardConnection.connect(*arguments, **with_addresses(parameters))
        return ShardConnection.connect(*arguments, **parameters)
    except psycopg.Error as error:
        text = _without_secrets(str(error), parameters)
        if text == str(error):
            raise
        raise type(error)(text) from None


def _without_secrets(text: str, parameters: dict[str, Any]) -> str:
    for name in SECRET_PARAMETERS & parameters.keys():
        if secret := str(parameters[name]):
            text = text.replace(secret, "***")
    return text
