"""What is defined on one shard, in a form in which shards are quickly compared.

Shards that are alike share one object, so that hundreds of them need no more memory than one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy_shards.catalog.definitions import read_definitions
from sqlalchemy_shards.catalog.identity import read_identity
from sqlalchemy_shards.cluster.readiness.looking import look_at_database, look_at_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import psycopg

SETTING: Final = "setting"
"""Kind of what is set for a server or a database, in place of a kind of object."""

REVISIONS: Final = "revision"
"""What a version table of Alembic holds, by the name that it has among the settings."""


class Thing(NamedTuple):
    """What can differ: an object of a database, or a setting.

    :param table: what it belongs to, or is; None: no table.
    """

    kind: str
    name: str
    table: str | None = None

    def __str__(self) -> str:
        if self.kind == SETTING:
            return self.name
        if self.kind == "table" or self.table is None or self.kind == "sequence":
            return f"{self.kind} {self.name}"
        return f"{self.kind} {self.table}.{self.name}"


@dataclass(frozen=True, slots=True)
class Defined:
    """All that is defined on a shard.

    :param things: each with its facts, a JSON object; columns in the order that their table has.
    """

    things: Mapping[Thing, str]


class Looker:
    """Looks at the shards of one cluster, and keeps once what several of them have."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Defined] = {}
        self._texts: dict[Any, Any] = {}

    def look(self, driver: psycopg.Connection[Any], revisions: Iterable[str]) -> Defined:
        """Return what is defined on a shard, over an autocommit connection.

        :param revisions: what its version table tells.
        """
        digest = hashlib.sha256()
        things: dict[Thing, str] = {}
        for thing, facts in _things(driver, revisions):
            digest.update(f"{thing!r}{facts}\0".encode())
            things[self._once(thing)] = self._once(facts)
        return self._kept.setdefault(digest.digest(), Defined(things))

    def _once(self, value: Any) -> Any:
        return self._texts.setdefault(value, value)


def _things(
    driver: psycopg.Connection[Any], revisions: Iterable[str]
) -> Iterator[tuple[Thing, str]]:
    for name, value in _settings(driver).items():
        yield Thing(SETTING, name), json.dumps({"": value})
    for each in read_definitions(driver):
        yield Thing(each.kind, each.name, each.table), each.facts
    yield Thing(SETTING, REVISIONS), json.dumps({"": ", ".join(revisions) or "none"})


def _settings(driver: psycopg.Connection[Any]) -> dict[str, str]:
    """What a shard's server and database are set to, by name."""
    server, identity = look_at_server(driver), read_identity(driver)
    database = look_at_database(driver, server.version)
    settings = {
        "PostgreSQL": str(server.version // 10000),
        "max_prepared_transactions": str(server.prepared_transactions_max),
        **server.settings,
        **{f"{name} of text": value for name, value in database.text.items()},
        "version of the collations that indexes were ordered by": database.collation_version,
        "version of the collations of the server": database.library_version,
        "version of the schema shards": str(identity.version) if identity else "none",
        "consistent reads": "on" if identity and identity.consistent_reads else "off",
    }
    return {name: value for name, value in settings.items() if value is not None}
