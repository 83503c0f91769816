"""A streamed answer takes no more memory for more rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.benchmarks.memory import SHARDS, fill, streamed
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

ROWS = 100_000


@pytest.fixture(scope="module")
def urls(servers: PostgresServers) -> Iterator[dict[str, str]]:
    with own_urls(servers, "streamed", [f"s{number}" for number in range(SHARDS)]) as urls:
        yield urls


@pytest.mark.parametrize(("kind", "megabytes"), [("merged", 4), ("gathered", 16)])
def test_rows_are_not_held(urls: dict[str, str], kind: str, megabytes: int) -> None:
    for number, url in enumerate(urls.values()):
        with psycopg.connect(url.replace("+psycopg", "")) as driver:
            driver.execute("DROP TABLE IF EXISTS streamed")
            fill(driver, number, ROWS)

    found = streamed(urls, kind=kind, size=500)

    # All rows at once would take 20 megabytes and more.
    assert found.rows == ROWS
    assert found.megabytes - found.megabytes_before < megabytes
