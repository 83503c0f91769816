"""What the demo asks and does. The terminal shows the source of these functions, as it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from sqlalchemy_shards.cli.demo.models import Account, PostOffice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import sessionmaker

    from sqlalchemy_shards import ShardedSession


def offices_of_pincode(session: ShardedSession, pin: int) -> Sequence[PostOffice]:
    """Return the offices of one PIN code, by name."""
    query = select(PostOffice).where(PostOffice.pincode == pin)
    return session.scalars(query.order_by(PostOffice.name)).all()


def offices_of_state(session: ShardedSession, state: str) -> Sequence[PostOffice]:
    """Return the offices of one state, by name, then PIN code and number."""
    query = (
        select(PostOffice)
        .where(PostOffice.state_name == state)
        .order_by(PostOffice.name, PostOffice.pincode, PostOffice.number)
    )
    return session.scalars(query).all()


def totals(session: ShardedSession) -> tuple[int, int]:
    """Return how many offices there are, and the sum of their PIN codes."""
    query = select(func.count(PostOffice.number), func.sum(PostOffice.pincode))
    count, total = session.execute(query).one()
    return count, total


def transfer(
    session_factory: sessionmaker[ShardedSession], payer: int, payee: int, rupees: int
) -> None:
    """Move money between two accounts, both or neither."""
    with session_factory.begin() as session:
        session.get_one(Account, payer).rupees -= rupees
        session.get_one(Account, payee).rupees += rupees


def offices_on_shard(session: ShardedSession, shard: str) -> int | None:
    """Return how many offices one shard holds."""
    query = select(func.count(PostOffice.number))
    return session.scalar(query, execution_options={"shard": shard})
