"""Fills the shards: ordinary objects, added to an ordinary session, committed batch by batch."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.cli.demo.models import Account, PostOffice, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy.orm import sessionmaker

    from sqlalchemy_shards import ShardedSession
    from sqlalchemy_shards.cli.demo.data import Record

BATCH_SIZE: Final = 5_000
"""Objects in one transaction, which is one distributed commit over all shards."""

ACCOUNTS: Final = 1_000
"""How many PIN codes have an account."""

OPENING_RUPEES: Final = 1_000


def load(
    session_factory: sessionmaker[ShardedSession],
    records: Sequence[Record],
    advance: Callable[[int], None],
) -> None:
    """Add the states, some accounts and every post office.

    :param advance: called with the number of post offices of each batch that was committed.
    """
    states = sorted({record.state for record in records if record.state is not None})
    with session_factory.begin() as session:
        session.add_all(State(name=name) for name in states)
        session.add_all(
            Account(pincode=pincode, rupees=OPENING_RUPEES) for pincode in pincodes_of(records)
        )
    rest = iter(records)
    while batch := list(islice(rest, BATCH_SIZE)):
        with session_factory.begin() as session:
            session.add_all(map(post_office, batch))
        advance(len(batch))


def post_office(record: Record) -> PostOffice:
    """Return the object of a record."""
    return PostOffice(
        pincode=record.pincode,
        number=record.number,
        name=record.name,
        district=record.district,
        state_name=record.state,
        latitude=record.latitude,
        longitude=record.longitude,
    )


def pincodes_of(records: Iterable[Record]) -> list[int]:
    """Return the PIN codes that have an account: the first of the file."""
    return list(islice(dict.fromkeys(record.pincode for record in records), ACCOUNTS))
