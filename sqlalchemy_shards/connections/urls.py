"""Reading a shard's URL, and showing it without its password."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sqlalchemy_shards.errors import ConfigurationError

SECRET_PARAMETERS: Final = frozenset({"password", "sslpassword", "oauth_client_secret"})
"""Connection parameters whose values are never shown."""

_PASSWORD: Final = re.compile(r"(://[^:/?#]*:).*(?=@)", re.DOTALL)
_PARAMETER: Final = re.compile(
    rf"([?&](?:{'|'.join(sorted(SECRET_PARAMETERS))})=)[^&]*", re.IGNORECASE
)


def parse_url(shard: str, url: str | URL) -> URL:
    """Return ``url`` with its driver spelt out.

    ``postgresql://`` means psycopg whatever the version of SQLAlchemy (2.0 takes it for psycopg2).

    :raises ConfigurationError: it is no URL, or of another database or driver.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError, TypeError):
        # From None: what make_url() says may quote the URL, password included.
        raise ConfigurationError(
            f"the URL of shard {shard!r} cannot be read: {mask_url(url)!r}",
            "write it as postgresql+psycopg://user:password@host:port/database, with special "
            "characters of the password as %XX",
            shard=shard,
        ) from None
    if parsed.drivername in ("postgresql", "postgresql+psycopg_async"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+asyncpg":
        raise ConfigurationError(
            f"shard {shard!r} has the driver 'postgresql+asyncpg', which has no pipelines, by "
            "which a cluster asks and commits on its shards side by side",
            "write postgresql+psycopg://, which create_async_cluster() takes for asyncio, too",
            shard=shard,
        )
    if parsed.drivername != "postgresql+psycopg":
        raise ConfigurationError(
            f"shard {shard!r} has the driver {parsed.drivername!r}",
            "only psycopg 3 is supported here: write postgresql+psycopg://",
            shard=shard,
        )
    return parsed


def mask_url(url: object) -> str:
    """Return the text of ``url``, which need not be valid, with its passwords as ``***``."""
    if isinstance(url, URL):
        text = url.render_as_string(hide_password=True)
    else:
        text = _PASSWORD.sub(r"\1***", str(url))
    return _PARAMETER.sub(r"\1***", text)
