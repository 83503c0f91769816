"""Which functions give the same wherever and whenever they are called.

PostgreSQL's catalog knows it of most: those that it calls immutable, aggregates and window
functions among them. The catalog's word counts for functions of the application, too.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    import psycopg

SETTINGS_ONLY: Final = frozenset(
    """
    array_to_json array_to_string coalesce concat concat_ws date_part date_trunc extract format
    generate_series greatest json_agg json_build_array json_build_object json_object_agg jsonb_agg
    jsonb_build_array jsonb_build_object jsonb_object_agg least make_timestamptz nullif row_to_json
    timezone to_char to_date to_json to_jsonb to_number to_timestamp
    """.split()
)
"""Functions that depend on the time zone and on formats, which are alike, and on nothing else; and
those that are syntax."""

DRAWN: Final = frozenset("clock_timestamp gen_random_uuid random random_normal".split())
"""Functions that give something else at every call, so that it does not matter where."""

_NOT_IMMUTABLE: Final = """
SELECT wanted.name
FROM pg_catalog.unnest(%s::text[]) AS wanted (name)
LEFT JOIN pg_catalog.pg_proc p
  ON p.proname = pg_catalog.regexp_replace(wanted.name, '.*[.]', '')
GROUP BY wanted.name
HAVING pg_catalog.count(p.oid) = 0 OR pg_catalog.bool_or(p.provolatile <> 'i')
"""


class Functions:
    """What is known of the functions of a cluster's databases. Thread-safe.

    :param connect: opens a connection to a shard.
    :param shard: the one that is asked.
    """

    def __init__(
        self,
        connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
        shard: str,
    ) -> None:
        self._connect = connect
        self._shard = shard
        self._lock = threading.Lock()
        self._is_immutable: dict[str, bool] = {}

    def depending(self, names: Iterable[str]) -> list[str]:
        """Those of the functions that may depend on when, where or by whom they are called."""
        unsure = sorted(set(names) - SETTINGS_ONLY - DRAWN)
        with self._lock:
            unknown = [name for name in unsure if name not in self._is_immutable]
        if unknown:
            with self._connect(self._shard) as connection:
                rows = connection.execute(_NOT_IMMUTABLE, (unknown,)).fetchall()
            dependent = {name for (name,) in rows}
            with self._lock:
                # What the catalog does not know yet may be created later.
                self._is_immutable.update((name, name not in dependent) for name in unknown)
        with self._lock:
            return [name for name in unsure if not self._is_immutable[name]]
