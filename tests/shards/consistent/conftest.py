from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.databases import own_urls
from tests.shards.consistent.bank import SHARDS, Bank, Base, disposing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers


@pytest.fixture(scope="package")
def bank_urls(servers: PostgresServers) -> Iterator[dict[str, str]]:
    """Databases of a bank whose transactions leave markers."""
    with own_urls(servers, "bank", SHARDS, spread=True) as urls:
        with disposing(Bank(urls, consistent_reads=True)) as (bank,):
            bank.cluster.create_all(Base.metadata)
        yield urls


@pytest.fixture
def bank(bank_urls: dict[str, str]) -> Iterator[Bank]:
    """The bank, with the same amount in every account."""
    with disposing(Bank(bank_urls, consistent_reads=True)) as (bank,):
        bank.recover()
        yield bank.fill()
        bank.recover()
