"""The golden list: YAML files of statements, each with the shards that it must reach.

A file names a keyspace and holds forms; a form holds lines ``statement: shards``. A statement is
Python over the names below, with a dict of parameters behind it where it has any. The shards are

- ``none``, ``all`` (those of the keyspace), or names: ``s0 s4``;
- the shards of keys: ``of 1 77``, where the parts of a longer key are joined: ``1/2``.

A keyspace put before them takes the place of the file's. What stands behind ``; wider,`` says why a
statement goes to more shards than can hold a matching row.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy
import yaml
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from tests.routing import derived, world

if TYPE_CHECKING:
    from collections.abc import Iterator

TERRITORY = world.territory()
MODELS = {mapper.class_.__name__: mapper.class_ for mapper in world.Base.registry.mappers}
NAMES: dict[str, Any] = {
    **{name: value for name, value in vars(sqlalchemy).items() if not name.startswith("_")},
    **vars(orm),
    **MODELS,
    **{table.name: table for table in world.Base.metadata.tables.values()},
    **{name: getattr(derived, name) for name in derived.__all__},
    "Decimal": Decimal,
    "select": sqlalchemy.select,
    "GeneratedId": world.GeneratedId,
    "array": postgresql.array,
    "id_in": world.id_in,
    "upsert": postgresql.insert,
}


class Case(NamedTuple):
    """One line of a golden file."""

    form: str
    statement: str
    shards: str
    keyspace: str

    @property
    def expected(self) -> str:
        """The shards in their order, by name."""
        return " ".join(sorted(meant(self.shards.partition(";")[0], self.keyspace)))

    def made(self) -> tuple[Any, dict[str, Any]]:
        """The statement and its parameters."""
        found = eval(self.statement, dict(NAMES))
        return found if isinstance(found, tuple) else (found, {})


def cases(name: str) -> Iterator[Case]:
    """The lines of one golden file."""
    text = (Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")
    forms = yaml.safe_load(text)
    keyspace = forms.pop("keyspace")
    for form, lines in forms.items():
        for line in lines:
            ((statement, shards),) = line.items()
            yield Case(f"{name}, {form}", statement, str(shards), keyspace)


def meant(shards: str, keyspace: str) -> set[str]:
    """The names of shards that are written as above."""
    shard_map = TERRITORY.shard_map
    found: set[str] = set()
    for word in shards.split():
        if word in shard_map.keyspaces:
            keyspace = word
        elif word == "all":
            found.update(shard_map.shards_of(keyspace))
        elif word in TERRITORY.shards:
            found.add(word)
        elif word not in ("of", "none"):
            key = tuple(int(part) if part.isdigit() else part for part in word.split("/"))
            found.add(shard_map.shard_for(keyspace, key))
    return found
