"""The deciding shard is asked for its xid beside a statement on another one, at no risk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import BigInteger, Integer, insert, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sqlalchemy_shards import Cluster, ShardedSession, ShardKeyMixin, create_cluster
from sqlalchemy_shards.errors import TransactionAborted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards.cluster.enlistment.enlisted import EnlistedShard


class Base(DeclarativeBase):
    pass


class Account(ShardKeyMixin, Base):
    __tablename__ = "accounts"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    amount: Mapped[int] = mapped_column(Integer)


@pytest.fixture(params=[False, True], ids=["", "with markers"])
def cluster(clean_shards: Mapping[str, str], request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = create_cluster(clean_shards, name="shop", consistent_reads=request.param)
    cluster.create_all(Base.metadata)
    with ShardedSession(cluster) as session, session.begin():
        session.add_all(Account(id=key_on(cluster, s), amount=100) for s in cluster.shards)
    yield cluster
    cluster.dispose()


def key_on(cluster: Cluster, shard: str) -> int:
    return next(key for key in range(1000) if cluster.shard_for(Account, key) == shard)


def add_one(session: Session, cluster: Cluster, *shards: str) -> None:
    for shard in shards:
        ours = update(Account).where(Account.id == key_on(cluster, shard))
        session.execute(
            ours.values(amount=Account.amount + 1),
            execution_options={"synchronize_session": False},
        )


def amounts(cluster: Cluster) -> dict[str, int]:
    with ShardedSession(cluster) as session:
        return {s: session.get_one(Account, key_on(cluster, s)).amount for s in cluster.shards}


def enlisted(session: Session) -> dict[str, EnlistedShard]:
    driver: Any = session.connection().connection.driver_connection
    return dict(driver.enlisted)


def test_it_is_the_xid_of_the_transaction(cluster: Cluster) -> None:
    with ShardedSession(cluster) as session:
        add_one(session, cluster, "s1", "s2", "s3")
        asked = {name: each.xid for name, each in enlisted(session).items()}
        [(xid,)] = (
            enlisted(session)["s1"]
            .driver.execute("SELECT pg_current_xact_id_if_assigned()::text")
            .fetchall()
        )
        session.commit()

    assert asked == {"s1": int(xid), "s2": None, "s3": None}
    assert list(amounts(cluster).values()) == [100, 101, 101, 101]


def test_the_first_shard_by_name_is_asked_though_it_was_not_the_first_to_be_written_to(
    cluster: Cluster,
) -> None:
    with ShardedSession(cluster) as session:
        add_one(session, cluster, "s2", "s1", "s3")
        asked = [name for name, each in enlisted(session).items() if each.xid is not None]
        session.commit()

    assert asked == ["s1"]
    assert list(amounts(cluster).values()) == [100, 101, 101, 101]


def test_one_shard_and_readers_are_not_asked(cluster: Cluster) -> None:
    with ShardedSession(cluster) as session:
        session.get_one(Account, key_on(cluster, "s0"))
        add_one(session, cluster, "s1", "s1")
        session.get_one(Account, key_on(cluster, "s2"))
        asked = [name for name, each in enlisted(session).items() if each.xid is not None]
        session.commit()

    assert asked == []


def test_a_statement_that_fails_beside_the_question_raises_its_own_error(
    cluster: Cluster,
) -> None:
    with ShardedSession(cluster) as session:
        add_one(session, cluster, "s0")
        twice = insert(Account).values(id=key_on(cluster, "s1"), amount=5)
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(twice)
        add_one(session, cluster, "s1", "s2")
        session.commit()

    assert list(amounts(cluster).values()) == [101, 101, 101, 100]


def test_an_interrupt_beside_the_question_leaves_nothing_behind(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with ShardedSession(cluster) as session:
        add_one(session, cluster, "s0")
        with monkeypatch.context() as patched:
            patched.setattr(psycopg.Cursor, "execute", interrupt)
            with pytest.raises(KeyboardInterrupt):
                add_one(session, cluster, "s1")
        session.rollback()
        add_one(session, cluster, "s0", "s1")
        session.commit()

    assert list(amounts(cluster).values()) == [101, 101, 100, 100]


def test_a_transaction_that_the_application_begins_anew_is_asked_again(cluster: Cluster) -> None:
    with ShardedSession(cluster) as session:
        add_one(session, cluster, "s0", "s1")
        connection: Any = session.connection().connection.driver_connection
        driver = connection.shard("s0")
        driver.commit()
        driver.execute("UPDATE accounts SET amount = amount + 10")
        session.commit()

    assert list(amounts(cluster).values()) == [111, 101, 100, 100]


def test_a_deciding_shard_that_is_lost_after_it_was_asked_undoes_all(cluster: Cluster) -> None:
    with ShardedSession(cluster) as session:
        add_one(session, cluster, "s0", "s1")
        pid = enlisted(session)["s0"].driver.info.backend_pid
        with cluster.connect("s0") as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(TransactionAborted):
            session.commit()

    assert set(amounts(cluster).values()) == {100}
