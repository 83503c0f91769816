"""A role that the application takes on named shards, and the commit over several of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, String, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, mapped_column

from sqlalchemy_shards import Cluster, ShardedSession, ShardKeyMixin, create_cluster
from sqlalchemy_shards.errors import TransactionAborted
from sqlalchemy_shards.transactions.fail_points import AFTER_DECISION
from tests.databases import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = range(1, 13)
EVERYWHERE = {"shard": "*"}
ROLES = ("roles_app", "roles_tenant", "roles_poor")

MAKE = """
CREATE ROLE roles_app LOGIN NOSUPERUSER;
CREATE ROLE roles_tenant;
CREATE ROLE roles_poor;
GRANT roles_tenant, roles_poor TO roles_app;
"""
GRANT = """
GRANT SELECT, INSERT, UPDATE, DELETE ON items TO roles_tenant, roles_poor;
GRANT USAGE ON SCHEMA shards TO roles_app, roles_tenant;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shards TO roles_app, roles_tenant;
"""


class Base(DeclarativeBase):
    pass


class Item(ShardKeyMixin, Base):
    __tablename__ = "items"
    __shard_key__ = "id"
    id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name = mapped_column(String)


@pytest.fixture
def roles(clean_shards: dict[str, str]) -> Iterator[dict[str, str]]:
    """URLs of four shards for a role that may do nothing but become another one."""
    urls = clean_shards
    for url in urls.values():
        ask(url, MAKE)
    try:
        with closing_cluster(urls) as cluster:
            cluster.create_all(Base.metadata)
        for url in urls.values():
            ask(url, GRANT)
        yield {
            name: make_url(url).set(username="roles_app").render_as_string(hide_password=False)
            for name, url in urls.items()
        }
    finally:
        for url in urls.values():
            ask(url, "; ".join(f"DROP OWNED BY {role}; DROP ROLE {role}" for role in ROLES))


class closing_cluster:  # noqa: N801 - used as a function
    def __init__(self, urls: dict[str, str]) -> None:
        self.cluster = create_cluster(urls, name="roles")

    def __enter__(self) -> Cluster:
        return self.cluster

    def __exit__(self, *error: object) -> None:
        self.cluster.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL ROLE roles_tenant",
        "SET ROLE roles_tenant",
        "SELECT set_config('role', 'roles_tenant', true)",
    ],
)
def test_what_another_role_prepared_is_committed(roles: dict[str, str], statement: str) -> None:
    with closing_cluster(roles) as cluster:
        with ShardedSession(cluster) as session:
            session.execute(text(statement), execution_options=EVERYWHERE)
            session.add_all(Item(id=number) for number in NUMBERS)
            session.commit()
            in_doubt = cluster.in_doubt()

        with ShardedSession(cluster) as session:
            session.execute(text("SET LOCAL ROLE roles_tenant"), execution_options=EVERYWHERE)
            found = session.scalars(select(Item.id)).all()

    assert sorted(found) == list(NUMBERS)
    assert in_doubt == []


def test_a_role_that_is_given_back_before_the_commit(roles: dict[str, str]) -> None:
    with closing_cluster(roles) as cluster, ShardedSession(cluster) as session:
        session.execute(text("SET ROLE roles_tenant"), execution_options=EVERYWHERE)
        session.add_all(Item(id=number) for number in NUMBERS)
        session.flush()
        session.execute(text("RESET ROLE"), execution_options=EVERYWHERE)
        session.commit()
        users = session.execute(
            text("SELECT current_user, (SELECT count(*) FROM pg_prepared_xacts)"),
            execution_options=EVERYWHERE,
        ).all()

    assert set(users) == {("roles_app", 0)}


def test_the_authorization_of_a_superuser(
    clean_shards: dict[str, str], roles: dict[str, str]
) -> None:
    with closing_cluster(clean_shards) as cluster, ShardedSession(cluster) as session:
        statement = text("SET LOCAL SESSION AUTHORIZATION roles_tenant")
        session.execute(statement, execution_options=EVERYWHERE)
        session.add_all(Item(id=number) for number in NUMBERS)
        session.commit()

        assert sorted(session.scalars(select(Item.id))) == list(NUMBERS)
        assert cluster.in_doubt() == []


def test_recovery_finishes_as_the_role_that_prepared(roles: dict[str, str]) -> None:
    def crash(fail_point: str) -> None:
        raise KeyboardInterrupt

    with closing_cluster(roles) as cluster:
        cluster.hooks.fail_points = {AFTER_DECISION: crash}
        with ShardedSession(cluster) as session:
            session.execute(text("SET LOCAL ROLE roles_tenant"), execution_options=EVERYWHERE)
            session.add_all(Item(id=number) for number in NUMBERS)
            with pytest.raises(KeyboardInterrupt):
                session.commit()
        cluster.hooks.fail_points = None
        cluster.recover()

    with closing_cluster(roles) as cluster, ShardedSession(cluster) as session:
        session.execute(text("SET LOCAL ROLE roles_tenant"), execution_options=EVERYWHERE)
        assert sorted(session.scalars(select(Item.id))) == list(NUMBERS)
        assert cluster.in_doubt() == []


def test_a_role_that_may_not_write_decisions_commits_nothing(
    clean_shards: dict[str, str], roles: dict[str, str]
) -> None:
    with closing_cluster(roles) as cluster, ShardedSession(cluster) as session:
        session.execute(text("SET LOCAL ROLE roles_poor"), execution_options=EVERYWHERE)
        session.add_all(Item(id=number) for number in NUMBERS)
        with pytest.raises(TransactionAborted, match="grant it USAGE on the schema shards"):
            session.commit()

    left: list[Any] = [ask(url, "SELECT id FROM items") for url in clean_shards.values()]
    assert left == [[]] * 4
