"""What a session believes after a commit in which something went wrong: that which is true."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from linecache import getline
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, func, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlalchemy_shards import ShardedSession, ShardKeyMixin, Timeouts, create_cluster
from sqlalchemy_shards.errors import (
    TransactionAborted,
    TransactionOutcomeUnknown,
    TransactionUnfinished,
)
from sqlalchemy_shards.transactions import fail_points
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

IDS = range(20)
TIMEOUTS = Timeouts(
    decision_seconds=0.3, settle_seconds=0.4, finish_seconds=0.4, rollback_seconds=0.4
)


class Base(DeclarativeBase):
    pass


class Account(ShardKeyMixin, Base):
    __tablename__ = "account"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    slot: Mapped[int] = mapped_column(default=0)


class Accounts:
    """A session that has an account added to each shard, and what it was told."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.session = ShardedSession(cluster)
        self.told: list[str] = []
        for name in ("after_commit", "after_rollback"):
            event.listen(self.session, name, lambda _, name=name: self.told.append(name))
        self.objects = [Account(id=number) for number in IDS]
        self.session.add_all(self.objects)
        self.session.flush()

    def commit(self, *, in_block: bool = False) -> None:
        """Commit as SQLAlchemy asks for it: after an error, roll back."""
        if in_block:
            with self.session.begin():
                self.session.add_all(self.objects)
            return
        try:
            self.session.commit()
        except BaseException:
            self.session.rollback()
            raise

    def pid(self, shard: str) -> int:
        """The server process that the session's transaction has on a shard."""
        connection = self.session.connection().connection.driver_connection
        return connection.enlisted[shard].driver.info.backend_pid  # type: ignore[union-attr]

    def states(self) -> set[str]:
        names = ("transient", "pending", "persistent", "detached")
        return {name for each in self.objects for name in names if getattr(inspect(each), name)}

    def stored(self) -> int:
        """How many accounts there are, as the same session sees it afterwards."""
        return self.session.scalar(select(func.count()).select_from(Account)) or 0


@pytest.fixture
def cluster(clean_shards: Mapping[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(clean_shards, name="shop", timeouts=TIMEOUTS)
    cluster.create_all(Base.metadata)
    yield cluster
    cluster.dispose()


@pytest.fixture
def accounts(cluster: Cluster) -> Iterator[Accounts]:
    accounts = Accounts(cluster)
    yield accounts
    cluster.hooks.fail_points = None
    accounts.session.close()


@contextmanager
def stopped_at_the_decision(accounts: Accounts, *, until: str | None) -> Iterator[None]:
    """The decision shard does not read COMMIT until a fail-point, or the end, is reached."""
    pid = accounts.pid("s0")
    fails = {fail_points.BEFORE_DECISION: lambda _: os.kill(pid, signal.SIGSTOP)}
    if until is not None:
        fails[until] = lambda _: os.kill(pid, signal.SIGCONT)
    accounts.cluster.hooks.fail_points = fails
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        accounts.cluster.hooks.fail_points = None


def test_a_lost_answer_that_is_settled_is_a_commit(accounts: Accounts) -> None:
    with stopped_at_the_decision(accounts, until=fail_points.BEFORE_ABORT_ROW):
        accounts.commit()

    assert accounts.told == ["after_commit"]
    assert accounts.states() == {"persistent"}
    assert accounts.stored() == len(IDS)


def test_an_unknown_outcome_is_an_error_with_the_gid(accounts: Accounts) -> None:
    with (
        stopped_at_the_decision(accounts, until=None),
        pytest.raises(TransactionOutcomeUnknown) as caught,
    ):
        accounts.commit()

    gid = str(caught.value.gid)
    assert accounts.told == ["after_rollback"]
    assert accounts.states() == {"transient"}
    eventually(lambda: accounts.cluster.outcome(gid) == "committed", "the COMMIT in the socket")
    accounts.cluster.recover()
    assert accounts.stored() == len(IDS)


def test_a_refused_prepare_or_decision_is_a_rollback(accounts: Accounts) -> None:
    for shard in accounts.cluster.shards:
        with accounts.cluster.connect(shard) as connection:
            connection.execute("CREATE TABLE single (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    for shard in ("s0", "s1"):
        statement = text("INSERT INTO single VALUES (1), (1)").execution_options(shard=shard)
        accounts.session.execute(statement)
        with pytest.raises(IntegrityError):
            accounts.commit()
        told, states, stored = list(accounts.told), accounts.states(), accounts.stored()
        accounts.told.clear()
        accounts.session.add_all(accounts.objects)

        assert told == ["after_rollback"]
        assert states == {"transient"}
        assert stored == 0
    accounts.commit()
    assert accounts.stored() == len(IDS)


def test_what_is_lost_before_the_decision_is_a_rollback_and_can_be_run_again(
    accounts: Accounts,
) -> None:
    pid = accounts.pid("s0")

    def terminate(_: str) -> None:
        with accounts.cluster.connect("s0") as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    accounts.cluster.hooks.fail_points = {fail_points.BEFORE_DECISION: terminate}
    with pytest.raises(TransactionAborted) as caught:
        accounts.commit()

    accounts.cluster.hooks.fail_points = None
    assert caught.value.is_retryable
    assert accounts.told == ["after_rollback"]
    assert accounts.states() == {"transient"}
    assert accounts.stored() == 0
    accounts.session.add_all(accounts.objects)
    accounts.commit()
    assert accounts.stored() == len(IDS)


@pytest.mark.parametrize("in_block", [True, False])
def test_a_commit_that_is_not_finished_everywhere_is_a_commit(
    accounts: Accounts, servers: PostgresServers, in_block: bool
) -> None:
    if in_block:
        accounts.session.rollback()
        accounts.told.clear()
    accounts.cluster.hooks.fail_points = {fail_points.AFTER_DECISION: lambda _: servers.kill(3)}

    with pytest.warns(TransactionUnfinished) as warned:
        accounts.commit(in_block=in_block)

    assert warned[0].filename == __file__
    assert ("begin()" if in_block else "commit()") in getline(__file__, warned[0].lineno)
    assert accounts.told == ["after_commit"]
    assert accounts.states() == {"persistent"}
    servers.start(3)
    accounts.cluster.recover()
    assert accounts.stored() == len(IDS)


@pytest.mark.parametrize("in_block", [True, False])
def test_an_error_about_what_is_not_finished_comes_when_the_session_has_seen_the_commit(
    clean_shards: Mapping[str, str], servers: PostgresServers, in_block: bool
) -> None:
    cluster = create_cluster(clean_shards, name="shop", timeouts=TIMEOUTS, on_unfinished="raise")
    cluster.create_all(Base.metadata)
    accounts = Accounts(cluster)
    if in_block:
        accounts.session.rollback()
        accounts.told.clear()
    cluster.hooks.fail_points = {fail_points.AFTER_DECISION: lambda _: servers.kill(3)}

    with pytest.raises(TransactionUnfinished) as caught:
        accounts.commit(in_block=in_block)

    assert caught.value.unfinished == ("s3",)
    assert accounts.told == ["after_commit"]
    assert accounts.states() == {"persistent"}
    servers.start(3)
    cluster.recover()
    assert accounts.stored() == len(IDS)
    accounts.session.close()
    cluster.dispose()


def test_a_participant_that_is_back_in_time_is_finished_in_the_same_commit(
    accounts: Accounts, servers: PostgresServers
) -> None:
    def restart(_: str) -> None:
        servers.kill(3)
        servers.start(3)

    accounts.cluster.hooks.fail_points = {fail_points.AFTER_DECISION: restart}

    accounts.commit()

    assert accounts.told == ["after_commit"]
    assert accounts.stored() == len(IDS)
