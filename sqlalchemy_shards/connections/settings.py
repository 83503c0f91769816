"""Settings of PostgreSQL that every new connection of an engine is given, for its whole life.

By a statement when the connection is opened, in one round trip. Not as libpq's ``options``, which
PgBouncer does not accept and which a user may have given; not in each transaction, which would cost
a round trip in each. A transaction's own ``SET LOCAL`` wins, and what was given holds again after
it.

What is nearer to the connection wins: ``options`` in a shard's URL or ``connect_args`` over what is
given here, and this over what the role, the database or the server has.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

# `source` tells who set it: nobody ('default'), or the start of this very session ('client').
_GIVE = b"""
SELECT pg_catalog.set_config(s.name, given.value, false)
FROM pg_catalog.pg_settings s
JOIN ROWS FROM (
    pg_catalog.unnest(%(names)s::text[]),
    pg_catalog.unnest(%(values)s::text[]),
    pg_catalog.unnest(%(yielding)s::boolean[])
) AS given(name, value, is_yielding) ON given.name = s.name
WHERE s.source = 'default' OR (s.source <> 'client' AND NOT given.is_yielding)
"""


@dataclass(frozen=True, slots=True)
class ServerSetting:
    """A setting of PostgreSQL.

    :param is_yielding: give it only where nobody set another value, be it in `postgresql.conf`.
    """

    name: str
    value: str
    is_yielding: bool = False


def give_settings(engine: Engine, settings: Sequence[ServerSetting]) -> None:
    """Give the settings to each connection that ``engine`` opens from now on."""
    parameters = {
        "names": [setting.name for setting in settings],
        "values": [setting.value for setting in settings],
        "yielding": [setting.is_yielding for setting in settings],
    }

    def give(driver_connection: Any, record: Any) -> None:
        try:
            with _autocommit(driver_connection):
                driver_connection.execute(_GIVE, parameters, prepare=False)
        except BaseException:
            driver_connection.close()  # the pool forgets what it could not make
            raise

    if settings:
        event.listen(engine, "connect", give)


@contextmanager
def _autocommit(driver_connection: Any) -> Iterator[None]:
    """A setting that is made in a transaction goes with its rollback."""
    before = driver_connection.autocommit
    driver_connection.autocommit = True
    try:
        yield
    finally:
        if not driver_connection.closed:
            driver_connection.autocommit = before
