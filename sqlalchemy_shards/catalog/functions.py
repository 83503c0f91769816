"""Which functions give the same wherever and whenever they are called.

PostgreSQL's catalog knows it of most: those that it calls immutable, aggregates and window
functions among them. The catalog's word counts for functions of the application, too. Functions of
one name are told apart by the number of arguments that they take, so that what is said of a call
holds for all that it may mean.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    import psycopg

    _Call = tuple[str, int | None, bool]

SETTINGS_ONLY: Final = frozenset(
    """
    array_to_json array_to_string coalesce concat concat_ws date date_part date_trunc extract format
    generate_series greatest json_agg json_build_array json_build_object json_object_agg jsonb_agg
    jsonb_build_array jsonb_build_object jsonb_object_agg least make_timestamptz nullif row_to_json
    time timestamp timestamptz timetz timezone to_char to_date to_json to_jsonb to_number
    to_timestamp
    """.split()
)
"""Functions that depend on the time zone and on formats, which are alike, and on nothing else; and
those that are syntax."""

DRAWN: Final = frozenset("clock_timestamp gen_random_uuid random random_normal".split())
"""Functions that give something else at every call, so that it does not matter where."""

_ABOUT: Final = """
SELECT wanted.name, wanted.count, wanted.is_configured,
       pg_catalog.count(p.oid) > 0 AND pg_catalog.bool_and(p.provolatile = 'i'),
       pg_catalog.count(p.oid) > 0 AND pg_catalog.bool_and(p.prokind = 'f' AND NOT p.proretset),
       pg_catalog.bool_and(p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace) IS NOT FALSE,
       pg_catalog.count(p.oid) = 0 AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_type t
           WHERE t.typname = pg_catalog.regexp_replace(wanted.name, '.*[.]', ''))
FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::int[]),
                pg_catalog.unnest(%s::bool[])) AS wanted (name, count, is_configured)
LEFT JOIN pg_catalog.pg_proc p
  ON p.proname = pg_catalog.regexp_replace(wanted.name, '.*[.]', '')
 AND (wanted.count IS NULL
      OR p.prokind = 'a'  -- those of an ordered set have some arguments in WITHIN GROUP
      OR p.provariadic <> 0 AND wanted.count >= p.pronargs - p.pronargdefaults - 1
      OR wanted.count BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs)
 AND (NOT wanted.is_configured
      OR p.proargtypes[0] = 'pg_catalog.regconfig'::pg_catalog.regtype)
GROUP BY wanted.name, wanted.count, wanted.is_configured
"""


class Doubt(NamedTuple):
    """A call that may give something else elsewhere, or at another time.

    :param arity: number of its arguments; None: it is not known.
    :param is_missing: there is no such function, nor a type that is called like one.
    """

    name: str
    arity: int | None
    is_missing: bool


class _About(NamedTuple):
    """What all functions have in common that a call may mean.

    :param is_immutable: they give the same wherever and whenever they are called.
    :param is_scalar: they make one value of one row's: no aggregates, no window functions, no sets.
    :param is_builtin: none is the application's, or of an extension.
    """

    is_immutable: bool
    is_scalar: bool
    is_builtin: bool
    is_missing: bool


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
        self._known: dict[_Call, _About] = {}

    def depending(self, calls: Iterable[_Call]) -> list[Doubt]:
        """Those of the calls that may depend on when, where or by whom they are made.

        :param calls: names of functions, with the number of arguments; None: it is not known; and
            whether the first of them is of the type ``regconfig``.
        """
        about = self._about(call for call in calls if call[0] not in SETTINGS_ONLY | DRAWN)
        return [
            Doubt(call[0], call[1], about[call].is_missing)
            for call in sorted(about, key=str)
            if not about[call].is_immutable
        ]

    def row_wise(self, calls: Iterable[_Call]) -> frozenset[str]:
        """Names of those functions that make one value of one row's values, the same on each shard
        or drawn anew, whichever of the calls is meant."""
        known = set(calls)
        doubtful = {each.name for each in self.depending(known)}
        names = {name for name, *_ in known} - doubtful
        # A namesake of the application's may read a table, of which a shard has a part.
        vague = names & (SETTINGS_ONLY | DRAWN)
        return self.scalar(names - (vague - self.builtin(vague)))

    def scalar(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the functions that make one value of one row's values, whatever that value is:
        neither aggregates nor window functions, and no sets."""
        return self._names(names, lambda about: about.is_scalar)

    def builtin(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the functions that are PostgreSQL's own alone: no other has the same name."""
        return self._names(names, lambda about: about.is_builtin)

    def _names(self, names: Iterable[str], is_so: Callable[[_About], bool]) -> frozenset[str]:
        about = self._about((name, None, False) for name in names)
        return frozenset(name for (name, *_), known in about.items() if is_so(known))

    def _about(self, calls: Iterable[_Call]) -> dict[_Call, _About]:
        with self._lock:
            known = {call: self._known.get(call) for call in calls}
        unknown = sorted((call for call, about in known.items() if about is None), key=str)
        if unknown:
            asked = [list(each) for each in zip(*unknown, strict=True)]
            with self._connect(self._shard) as connection:
                rows = connection.execute(_ABOUT, asked).fetchall()
            known.update(
                ((name, count, is_configured), _About(*told))
                for name, count, is_configured, *told in rows
            )
            with self._lock:
                # What is not there yet may be created later.
                self._known.update(
                    (call, about) for call, about in known.items() if about and not about.is_missing
                )
        return {call: about for call, about in known.items() if about is not None}
