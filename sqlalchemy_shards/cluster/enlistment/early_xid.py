"""Asking the shard that will decide for its transaction's xid, beside a statement on another one.

A commit over several shards cannot begin without that xid. Asked for here, on a connection that has
nothing else to do while another shard works, it costs no round trip.

- It is asked for only where two shards write, of the one that will decide as far as can be told. If
  another one decides in the end, its commit asks as ever.
- What goes wrong with the question is not raised: the statement may be right all the same. A
  connection that was lost by it is found lost by the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.pq import TransactionStatus

from sqlalchemy_shards.connections.exchange import exchange
from sqlalchemy_shards.transactions.statements import ask_xid, xid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards.connections.exchange import Request
    from sqlalchemy_shards.connections.fan_out import FanOut

    from .enlisted import EnlistedShard


def shard_to_ask(enlisted: Mapping[str, EnlistedShard], writing: str) -> EnlistedShard | None:
    """Return the shard to ask beside a statement that may write; None: none, or it is known.

    :param writing: the shard of the statement.
    """
    first: EnlistedShard | None = None
    for each in enlisted.values():
        if each.wrote and (first is None or each.name < first.name):
            first = each
    if first is None or first.name >= writing or first.xid is not None or first.is_unread:
        return None
    is_open = first.driver.pgconn.transaction_status == TransactionStatus.INTRANS
    return first if is_open else None


def run_beside(
    asked: EnlistedShard, run: Callable[[], object], fan_out: FanOut, *, seconds: float
) -> None:
    """Run a statement while a shard is asked for its transaction's xid, which is noted there.

    :param run: runs the statement; what it raises is raised.
    :param seconds: how long the answer is waited for when the statement has ended.
    """
    failures: list[Exception] = []

    def requests() -> Iterator[Request]:
        yield ask_xid(asked.name, asked.driver)
        try:
            run()
        except Exception as error:  # its answer is read first, or the connection were spoilt
            failures.append(error)

    def hear(answer: Request) -> None:
        asked.xid = xid_of(answer)

    exchange(requests(), hear, fan_out, seconds=seconds)
    if failures:
        raise failures[0]
