"""Moving an object, with the rows that hang on it, to another shard key, in one transaction.

    lock the rows -> copy them out, with the new key -> delete them -> copy them in

Invariants:

- All of it is part of the session's transaction: a rollback, or a crash before the commit, leaves
  every row and object as it was; the two-phase commit moves all or none.
- From the lock on nobody changes the rows, nor adds one that names them: foreign keys wait.
- Rows are carried as text of PostgreSQL's own, written and read under the same settings and in the
  same encoding, so that nothing of them changes but the key. What is larger than `SPOOLED_BYTES`
  waits in a temporary file.
- No policy hides a row that belongs to them: under row-level security nothing is moved.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from tempfile import SpooledTemporaryFile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Table, and_, delete, func, inspect, literal, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm.attributes import set_committed_value

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import RoutingError, UnsupportedStatement
from sqlalchemy_shards.models.distribution import Sharded, distribution_of
from sqlalchemy_shards.models.generated_id import carries_bucket

from .co_located import co_located, links_of, torn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import InstanceState, Mapper

    from .co_located import Moved
    from .session import ShardedSession

SPOOLED_BYTES: Final = 8_000_000
"""Rows of one table that are kept in memory while they are moved."""

KEYS_PER_FETCH: Final = 1000

WRITTEN_UNDER: Final[Mapping[str, str]] = MappingProxyType(
    {
        "datestyle": "ISO, YMD",
        "intervalstyle": "postgres",
        "extra_float_digits": "3",
        "lc_monetary": "C",
        "xmloption": "content",
    }
)
"""The settings on which it depends how PostgreSQL writes a value, and how it reads it."""


def rehome(session: ShardedSession, instance: Any, new_key: Mapping[str, Any]) -> None:
    """Move a persistent object to another shard key, as `ShardedSession.rehome` says."""
    state: InstanceState[Any] = inspect(instance)
    table, sharded, attributes = _checked(session, state, new_key)
    session.flush()
    old = tuple(getattr(instance, name) for name in attributes)
    new = tuple(new_key.get(name, value) for name, value in zip(attributes, old, strict=True))
    source, target = (session.cluster.shard_for(table, key) for key in (old, new))
    if old == new:
        return
    links = links_of(state.mapper)
    primary_key = zip(state.mapper.primary_key, state.identity or (), strict=True)
    identity = and_(*(column == value for column, value in primary_key))
    moved = co_located(table, identity, dict(zip(sharded.key, new, strict=True)), links)
    connection = session.connection()
    for shard in dict.fromkeys((source, target)):
        _refuse_policies(connection, [each.table for each in moved], shard)
    counts = _lock(connection, moved, source)
    if session.cluster.bucket_for(table, old) != session.cluster.bucket_for(table, new):
        _refuse_ids([each.table for each, count in zip(moved, counts, strict=True) if count])
    for link, condition in torn(moved, links):
        _refuse_torn(connection, link.child, link.parent, condition, source)
    held = _held(session, connection, moved, source)
    _carry(connection, moved, source, target)
    connection.connection.driver_connection.inserted.clear()  # type: ignore[union-attr]
    _take_along(session, held)


def _checked(
    session: ShardedSession, state: InstanceState[Any], new_key: Mapping[str, Any]
) -> tuple[Table, Sharded, tuple[str, ...]]:
    mapper = state.mapper
    table = (mapper if mapper.concrete else mapper.base_mapper).local_table
    sharded = distribution_of(table)
    name = mapper.class_.__name__
    if not isinstance(sharded, Sharded) or not isinstance(table, Table):
        raise RoutingError(
            f"class {name} is not sharded, so that its objects have no shard key",
            "move objects of sharded classes",
        )
    if not state.persistent or state.session is not session:
        raise RoutingError(
            f"the object of class {name} is not one that this session has stored or loaded",
            "add it and flush, or load it, before it is moved",
        )
    attributes = tuple(mapper.get_property_by_column(table.c[column]).key for column in sharded.key)
    unknown = sorted(set(new_key).difference(attributes))
    if unknown or not new_key:
        raise RoutingError(
            f"the shard key of class {name} is {', '.join(map(repr, attributes))}, and rehome() "
            f"was given {', '.join(map(repr, unknown)) or 'nothing'}",
            "give the new value of the key's attributes by their names",
        )
    return table, sharded, attributes


def _refuse_policies(connection: Connection, tables: Sequence[Table], shard: str) -> None:
    """A row that a policy hides would stay behind, and COPY does not add rows under one."""
    names = connection.dialect.identifier_preparer
    for table in tables:
        query = select(func.row_security_active(literal(names.format_table(table))))
        if connection.execute(query, execution_options={"shard": shard}).scalar():
            raise UnsupportedStatement(
                f"the policies of table {table.fullname!r} bind the role that would move rows, and "
                "may hide some of them",
                "move the object as the owner of the tables, or as another role that is exempt "
                "from row-level security",
                shard=shard,
            )


def _lock(connection: Connection, moved: Sequence[Moved], shard: str) -> list[int]:
    """Lock all rows; how many there are of each table."""
    counts: list[int] = []
    for each in moved:
        rows = select(literal(1)).select_from(each.table).where(each.condition).with_for_update()
        query = select(func.count()).select_from(rows.subquery())
        count = connection.execute(query, execution_options={"shard": shard}).scalar_one()
        counts.append(count)
        if counts[0] != 1:
            raise RoutingError(
                f"the row of {each.table.fullname!r} that is to be moved is not there any more",
                "load the object again",
                shard=shard,
            )
    return counts


def _refuse_ids(tables: Sequence[Table]) -> None:
    """Ids of an `IdGenerator` tell where their rows are, and would tell the old place."""
    for table in tables:
        for column in table.c:
            if carries_bucket(column.type):
                raise UnsupportedStatement(
                    f"ids in {column} carry the bucket of the old shard key, and would not be "
                    "found by it any more",
                    "insert the rows under the new key, with new ids",
                )


def _refuse_torn(
    connection: Connection, child: Table, parent: Table, condition: Any, shard: str
) -> None:
    query = select(select(literal(1)).select_from(child).where(condition).exists())
    if connection.execute(query, execution_options={"shard": shard}).scalar():
        raise UnsupportedStatement(
            f"rows of {child.fullname!r} refer to rows of {parent.fullname!r} that would move, by "
            "columns that do not hold the shard key",
            "delete those rows, or let them refer elsewhere, and flush, before the object is moved",
            shard=shard,
        )


def _held(
    session: ShardedSession, connection: Connection, moved: Sequence[Moved], shard: str
) -> list[tuple[Any, dict[str, Any]]]:
    """The session's objects whose rows move, and the attributes of each that change."""
    changes: dict[Any, dict[Any, Any]] = {each.table: each.changes for each in moved}
    # Instances, not states: what is expired may let go of the last reference to another.
    by_identity: dict[Any, Any] = {}
    bases: dict[Any, Mapper[Any]] = {}
    for instance in session.identity_map.values():
        state: InstanceState[Any] = inspect(instance)
        mapper = state.mapper if state.mapper.concrete else state.mapper.base_mapper
        if mapper.local_table in changes:
            bases[mapper.local_table] = mapper
            by_identity[mapper.local_table, state.identity] = instance
    found = []
    for table, base in bases.items():
        (condition,) = (each.condition for each in moved if each.table is table)
        query = select(*base.primary_key).where(condition)
        rows = connection.execute(query, execution_options={"shard": shard})
        for row in rows.yield_per(KEYS_PER_FETCH):
            instance = by_identity.get((table, tuple(row)))
            if instance is not None:
                found.append((instance, _changed_attributes(inspect(instance).mapper, changes)))
    return found


def _changed_attributes(
    mapper: Mapper[Any], changes: Mapping[Any, dict[Any, Any]]
) -> dict[str, Any]:
    return {
        mapper.get_property_by_column(column).key: value
        for table in mapper.tables
        for column, value in changes.get(table, {}).items()
    }


def _carry(connection: Connection, moved: Sequence[Moved], source: str, target: str) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context(SpooledTemporaryFile(max_size=SPOOLED_BYTES)) for _ in moved]
        for each, file in zip(moved, files, strict=True):
            _copy_out(connection, each, source, file)
        for each in reversed(moved):
            statement = delete(each.table).where(each.condition)
            connection.execute(statement, execution_options={"shard": source})
        for each, file in zip(moved, files, strict=True):
            _copy_in(connection, each, target, file)


def _stored_columns(table: Table) -> list[Any]:
    """All columns but those that the server computes."""
    return [column for column in table.c if column.computed is None]


def _copy_out(connection: Connection, moved: Moved, shard: str, file: Any) -> None:
    columns = [
        literal(moved.changes[column], column.type) if column in moved.changes else column
        for column in _stored_columns(moved.table)
    ]
    compiled = select(*columns).where(moved.condition).compile(dialect=connection.dialect)
    values = _compat.bound_values(compiled)
    sql = f"COPY ({compiled}) TO STDOUT (ENCODING 'UTF8')"

    def copy(cursor: psycopg.Cursor[Any]) -> None:
        with cursor.copy(sql.encode(), values) as rows:
            for data in rows:
                file.write(data)

    _on_driver(connection, shard, sql, copy)
    file.seek(0)


def _copy_in(connection: Connection, moved: Moved, shard: str, file: Any) -> None:
    preparer = connection.dialect.identifier_preparer
    names = ", ".join(preparer.format_column(column) for column in _stored_columns(moved.table))
    sql = f"COPY {preparer.format_table(moved.table)} ({names}) FROM STDIN (ENCODING 'UTF8')"

    def copy(cursor: psycopg.Cursor[Any]) -> None:
        with cursor.copy(sql.encode()) as rows:
            while data := file.read(65536):
                rows.write(data)

    _on_driver(connection, shard, sql, copy)


def _on_driver(connection: Connection, shard: str, sql: str, copy: Any) -> None:
    cluster_connection: Any = connection.connection.driver_connection
    driver = cluster_connection.shard(shard)
    try:
        with driver.cursor(row_factory=tuple_row) as cursor, _written_alike(cursor):
            copy(cursor)
    except psycopg.Error as error:
        cluster_connection.note_error(shard, error, is_shared=True)
        raise DBAPIError.instance(sql, None, error, psycopg.Error) from error


@contextmanager
def _written_alike(cursor: psycopg.Cursor[Any]) -> Iterator[None]:
    """Let values be written and read in one way on every shard, and put the settings back."""
    before = {}
    for name, value in WRITTEN_UNDER.items():
        cursor.execute("SELECT pg_catalog.current_setting(%s)", (name,))
        (before[name],) = cursor.fetchone() or (value,)
        cursor.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, value))
    yield
    for name, value in before.items():
        cursor.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, value))


def _take_along(session: ShardedSession, held: list[tuple[Any, dict[str, Any]]]) -> None:
    """Give the session's objects their new identities; all else of them is read again."""
    session.expire_all()
    for instance, changes in held:
        for name, value in changes.items():
            set_committed_value(instance, name, value)
        state: InstanceState[Any] = inspect(instance)
        identity = list(state.identity or ())
        for position, column in enumerate(state.mapper.primary_key):
            name = state.mapper.get_property_by_column(column).key
            identity[position] = changes.get(name, identity[position])
        _compat.switch_identity(
            session, state, state.mapper.identity_key_from_primary_key(tuple(identity))
        )
        session.locator.remember(state)
