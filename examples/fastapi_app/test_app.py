from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from sqlalchemy_shards import AsyncShardedSession, ShardedSession

from . import app as with_threads
from .app import get_session
from .async_app import get_session as get_async_session
from .models import Account

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

OWNERS = ("ann", "bob", "cleo", "dan", "eve", "finn", "gil", "hana")


@pytest.fixture(autouse=True)
def accounts(client: TestClient) -> None:
    for number, owner in enumerate(OWNERS, start=1):
        assert client.post("/accounts", json={"owner": owner, "cents": 100 * number}).is_success


def move(client: TestClient, payer: str, payee: str, cents: int, **more: Any) -> Any:
    order = {"id": str(uuid4()), "payer": payer, "payee": payee, "cents": cents}
    return client.post("/transfers", json={**order, **more})


def cents_of(client: TestClient, owner: str) -> int:
    cents: int = client.get(f"/accounts/{owner}").json()["cents"]
    return cents


def test_accounts_live_on_all_shards(client: TestClient) -> None:
    shards = {client.app.state.cluster.shard_for(Account, owner) for owner in OWNERS}

    assert shards == {"s0", "s1", "s2", "s3"}


def test_a_transfer_is_booked_on_both_sides(client: TestClient) -> None:
    answer = move(client, "hana", "ann", 250)

    assert answer.status_code == 201
    assert [line["cents"] for line in answer.json()["entries"]] == [-250]
    assert [line["cents"] for line in client.get("/accounts/ann").json()["entries"]] == [250]
    assert (cents_of(client, "hana"), cents_of(client, "ann")) == (550, 350)


def test_nobody_pays_more_than_they_have(client: TestClient) -> None:
    assert move(client, "ann", "hana", 101).status_code == 409

    assert (cents_of(client, "ann"), cents_of(client, "hana")) == (100, 800)


def test_a_transfer_that_is_sent_twice_is_booked_once(client: TestClient) -> None:
    id = str(uuid4())

    assert move(client, "hana", "ann", 1, id=id).status_code == 201
    assert move(client, "hana", "ann", 1, id=id).status_code == 409

    assert cents_of(client, "ann") == 101


def test_who_has_no_account_gets_nothing(client: TestClient) -> None:
    assert move(client, "hana", "nobody", 1).status_code == 404
    assert client.get("/accounts/nobody").status_code == 404


def test_the_richest_come_first(client: TestClient) -> None:
    pages = [client.get("/accounts", params={"offset": offset}).json() for offset in (0, 5)]

    assert pages[0] == {"owners": list(OWNERS[:2:-1]), "total": 8, "cents": 3600}
    assert pages[1]["owners"] == list(OWNERS[2::-1])


def test_money_is_neither_made_nor_lost_by_many_at_once(client: TestClient) -> None:
    pairs = [(OWNERS[n % 8], OWNERS[(3 * n + 1) % 8]) for n in range(24)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda pair: move(client, *pair, cents=10), pairs))

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert client.get("/accounts").json()["cents"] == 3600


def test_an_error_of_the_cluster_says_whether_to_try_again(client: TestClient) -> None:
    app = client.app
    is_sync = app is with_threads
    strict = app.state.cluster.engine.execution_options(scatter="refuse")
    session = ShardedSession(bind=strict) if is_sync else AsyncShardedSession(bind=strict)
    app.dependency_overrides[get_session if is_sync else get_async_session] = lambda: session
    try:
        answers = [client.get(path) for path in ("/accounts", "/accounts/ann")]
    finally:
        app.dependency_overrides.clear()
        session.close() if is_sync else client.portal.call(session.close)

    assert [answer.status_code for answer in answers] == [503, 200]
    assert answers[0].json() == {"detail": {"shard": None, "retry": False}}


def test_the_cluster_is_ready(client: TestClient) -> None:
    answer = client.get("/ready")

    assert answer.status_code == 200, answer.text
    assert answer.json()["cluster"] == "wallet"
