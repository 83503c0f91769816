"""Which functions give the same wherever and whenever they are called.

PostgreSQL's catalog knows it of most: those that it calls immutable, aggregates and window
functions among them. The catalog's word counts for functions of the application, too.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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

_ABOUT: Final = """
SELECT wanted.name,
       pg_catalog.count(p.oid) > 0 AND pg_catalog.bool_and(p.provolatile = 'i'),
       pg_catalog.count(p.oid) > 0 AND pg_catalog.bool_and(p.prokind = 'f' AND NOT p.proretset),
       pg_catalog.bool_and(p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace) IS NOT FALSE
FROM pg_catalog.unnest(%s::text[]) AS wanted (name)
LEFT JOIN pg_catalog.pg_proc p
  ON p.proname = pg_catalog.regexp_replace(wanted.name, '.*[.]', '')
GROUP BY wanted.name
"""


class _About(NamedTuple):
    """What all functions of one name have in common.

    :param is_immutable: they give the same wherever and whenever they are called.
    :param is_scalar: they make one value of one row's: no aggregates, no window functions, no sets.
    :param is_builtin: none is the application's, or of an extension.
    """

    is_immutable: bool
    is_scalar: bool
    is_builtin: bool


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
        self._known: dict[str, _About] = {}

    def depending(self, names: Iterable[str]) -> list[str]:
        """Those of the functions that may depend on when, where or by whom they are called."""
        unsure = sorted(set(names) - SETTINGS_ONLY - DRAWN)
        about = self._about(unsure)
        return [name for name in unsure if not about[name].is_immutable]

    def scalar(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the functions that make one value of one row's values, whatever that value is:
        neither aggregates nor window functions, and no sets."""
        return frozenset(name for name, known in self._about(names).items() if known.is_scalar)

    def builtin(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the functions that are PostgreSQL's own alone: no other has the same name."""
        return frozenset(name for name, known in self._about(names).items() if known.is_builtin)

    def _about(self, names: Iterable[str]) -> dict[str, _About]:
        wanted = sorted(set(names))
        with self._lock:
            unknown = [name for name in wanted if name not in self._known]
        if unknown:
            with self._connect(self._shard) as connection:
                rows = connection.execute(_ABOUT, (unknown,)).fetchall()
            with self._lock:
                # What the catalog does not know yet may be created later.
                self._known.update((name, _About(*told)) for name, *told in rows)
        with self._lock:
            return {name: self._known[name] for name in wanted}
