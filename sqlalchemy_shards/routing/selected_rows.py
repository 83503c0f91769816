"""INSERT ... SELECT into a sharded table: where the shard key of the selected rows comes from.

It is one value, as a parameter, for all rows; or it is the key of a co-located table's row, so that
each row lies on the shard where it is made, and every shard can do its own part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.selectable import Select

from sqlalchemy_shards import _compat

from .conditions import Parameter
from .inserts import parameter_of
from .scopes import unlabelled

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Insert

    from sqlalchemy_shards.models.key_types import KeyType

    from .scopes import Derived, Place
    from .sources import InsertedKey
    from .walk import Walk


def walk_selected(walk: Walk, insert: Insert, compiled: SQLCompiler) -> Derived:
    """Walk the SELECT of an INSERT into a sharded table, and note what hinders several shards."""
    selected = walk.query(insert.select, None, is_from=False)
    if not selected.is_simple and not selected.is_local:
        walk.hinder("its SELECT looks at rows of several shards at once")
    identity = {column.key for column in insert.table.primary_key}
    if identity.intersection(_compat.client_side_defaults(compiled)):
        walk.hinder("a client-side default would give all rows the same primary key")
    return selected


def selected_key(
    inserted: InsertedKey,
    selected: Derived,
    insert: Insert,
    compiled: SQLCompiler,
    key_types: tuple[KeyType, ...],
    walk: Walk,
) -> InsertedKey:
    """Find where the shard key of the selected rows comes from."""
    names = _compat.selected_names(insert)
    places = [
        _place(names.index(key), selected) if key in names else None for key in inserted.columns
    ]
    inserted = replace(inserted, is_selected=True, key_types=key_types)
    if _is_colocated(places, inserted, key_types, walk):
        return replace(inserted, is_colocated=True)
    columns: Any = insert.select.selected_columns if isinstance(insert.select, Select) else ()
    values = [unlabelled(column) for column in columns]
    defaults = _compat.client_side_defaults(compiled)
    parameters = tuple(
        parameter_of(values[names.index(key)], compiled, key_type)
        if key in names and values and isinstance(values[names.index(key)], BindParameter)
        else Parameter(key, key_type)
        if key in defaults
        else None
        for key, key_type in zip(inserted.columns, key_types, strict=False)
    )
    return replace(inserted, parameters=parameters)


def _place(index: int, selected: Derived) -> Place | None:
    places = selected.places[index] if index < len(selected.places) else ()
    return places[0] if len(places) == 1 and not places[0].is_alternative else None


def _is_colocated(
    places: list[Place | None],
    inserted: InsertedKey,
    key_types: tuple[KeyType, ...],
    walk: Walk,
) -> bool:
    """Whether each part of the key is that part of one sharded row's key."""
    if inserted.lies_beside or not places or places[0] is None:
        return False
    source = walk.sources[places[0].source]
    return (
        all(
            place is not None and place.source == places[0].source and place.part == part
            for part, place in enumerate(places)
        )
        and len(places) == len(source.families)
        and source.sharded.keyspace == inserted.keyspace
        and source.families == tuple(key_type.family for key_type in key_types)
        and not source.is_filled
    )
