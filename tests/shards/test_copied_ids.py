"""Ids that carry buckets, of rows that are copied in as text: by the key as it is stored."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import String, TypeDecorator, select
from sqlalchemy.orm import DeclarativeBase, mapped_column

from sqlalchemy_shards import (
    GeneratedId,
    HashPartitioner,
    IdGenerator,
    Keyspace,
    ShardedSession,
    ShardKeyMixin,
    create_cluster,
)
from sqlalchemy_shards.errors import RoutingError
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

KEYSPACE = Keyspace(HashPartitioner(64))
TENANTS = [f"t:{number}" for number in range(40)]


class Marked(TypeDecorator[str]):
    """Is stored with a mark before it."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else f"t:{value}"

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.removeprefix("t:")


class Base(DeclarativeBase):
    pass


class Note(ShardKeyMixin, Base):
    __tablename__ = "notes"
    __shard_key__ = "tenant"
    id = mapped_column(GeneratedId, primary_key=True, default=IdGenerator(KEYSPACE, worker=1))
    tenant = mapped_column(Marked, nullable=False)


@pytest.fixture(scope="module")
def session(servers: PostgresServers) -> Iterator[ShardedSession]:
    with own_urls(servers, "copied_ids", ["s0", "s1", "s2"]) as urls:
        cluster = create_cluster(urls, name="copied ids", keyspaces={"default": KEYSPACE})
        cluster.create_all(Base.metadata)
        with ShardedSession(cluster) as session:
            yield session
        cluster.dispose()


def test_an_id_that_is_given_may_carry_the_bucket_of_the_stored_key(
    session: ShardedSession,
) -> None:
    make = IdGenerator(KEYSPACE, worker=2)
    rows = "".join(f"{make(tenant)},{tenant}\n" for tenant in TENANTS)
    session.copy_from(Note, io.StringIO(f"id,tenant\n{rows}"))
    found = _found_by_id(session)
    session.rollback()

    assert found == sorted(TENANTS)


def test_an_id_that_carries_another_bucket_is_refused(session: ShardedSession) -> None:
    other = IdGenerator(KEYSPACE, worker=2)("t:t:1")
    with pytest.raises(RoutingError, match=r"row 1: .* carries another bucket"):
        session.copy_from(Note, io.StringIO(f"id,tenant\n{other},t:1\n"))
    session.rollback()


def test_an_id_that_is_made_carries_the_bucket_of_the_stored_key(session: ShardedSession) -> None:
    session.copy_from(Note, io.StringIO("\n".join(["tenant", *TENANTS])))
    found = _found_by_id(session)
    session.rollback()

    assert found == sorted(TENANTS)


def _found_by_id(session: ShardedSession) -> list[str]:
    """The keys of the rows that are found by their ids, as they are stored."""
    found = []
    for id_ in session.scalars(select(Note.id)).all():
        found += session.scalars(select(Note.tenant).where(Note.id == id_)).all()
    return sorted(f"t:{tenant}" for tenant in found)
