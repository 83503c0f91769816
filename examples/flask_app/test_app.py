from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect

from .models import SignUp, User, db

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient

NAMES = ("ann", "bob", "cleo", "dan", "eve", "finn", "gil", "hana", "ines", "jon", "kim", "lou")


@pytest.fixture
def users(client: FlaskClient) -> list[dict[str, Any]]:
    return [
        client.post(
            "/users",
            json={
                "username": name,
                "email": f"{name}@example.com",
                "joined": f"2026-01-{day:02}",
            },
        ).json
        for day, name in enumerate(NAMES, start=1)
    ]


def test_users_live_on_all_shards(users: list[dict[str, Any]]) -> None:
    assert {user["shard"] for user in users} == {"s0", "s1", "s2", "s3"}


def test_users_are_shown_in_pages(client: FlaskClient, users: list[dict[str, Any]]) -> None:
    pages = [client.get(f"/users?page={number}").json for number in (1, 2, 3)]

    assert [name for page in pages for name in page["users"]] == list(reversed(NAMES))
    assert {page["total"] for page in pages} == {12}
    assert {page["pages"] for page in pages} == {3}
    assert client.get("/users?page=4").status_code == 404


def test_a_user_is_found_by_id_and_by_name(
    client: FlaskClient, users: list[dict[str, Any]]
) -> None:
    for user in users:
        assert client.get(f"/users/{user['id']}").json == user
        assert client.get(f"/by-name/{user['username']}").json == user


def test_who_is_not_there_is_not_found(client: FlaskClient) -> None:
    assert client.get("/users/00000000-0000-0000-0000-000000000000").status_code == 404
    assert client.get("/by-name/nobody").status_code == 404


def test_a_deleted_user_takes_the_posts_along(
    client: FlaskClient, users: list[dict[str, Any]]
) -> None:
    client.post("/by-name/ann/posts", json={"title": "Hello"})
    client.post("/by-name/bob/posts", json={"title": "Bye"})

    answer = client.delete(f"/users/{users[0]['id']}")

    assert answer.status_code == 204
    assert client.get("/by-name/ann").status_code == 404
    assert client.get("/posts").json == {"posts": ["Bye, by bob@example.com"]}


def test_the_newest_posts_of_all_users(client: FlaskClient, users: list[dict[str, Any]]) -> None:
    for name in ("ann", "bob", "ann", "cleo"):
        client.post(f"/by-name/{name}/posts", json={"title": f"From {name}"})

    assert client.get("/by-name/ann").json["posts"] == ["From ann", "From ann"]
    assert client.get("/posts").json["posts"] == [
        f"From {name}, by {name}@example.com" for name in ("cleo", "ann", "bob", "ann")
    ]


def test_a_bind_is_a_database_of_its_own(app: Flask, users: list[dict[str, Any]]) -> None:
    with app.app_context():
        emails = db.session.scalars(db.select(SignUp.email).order_by(SignUp.id)).all()

        assert emails == [f"{name}@example.com" for name in NAMES]
        assert inspect(db.engines["audit"]).get_table_names() == ["sign_up"]
        assert sorted(inspect(db.engine).get_table_names()) == ["post", "user"]


def test_the_session_tells_where_a_statement_goes(app: Flask, users: list[dict[str, Any]]) -> None:
    with app.app_context():
        by_name = db.select(User).filter_by(username="ann")
        by_email = db.select(User).filter_by(email="ann@example.com")

        assert db.session().explain(by_name).shards == (users[0]["shard"],)
        assert db.session().explain(by_email).shards == ("s0", "s1", "s2", "s3")


def test_the_legacy_query_works_too(app: Flask, users: list[dict[str, Any]]) -> None:
    with app.app_context():
        page = User.query.filter(User.username > "f").order_by(User.id).paginate(per_page=4)

        assert page.total == 7
        assert len(page.items) == 4
        assert User.query.filter_by(username="ann").first_or_404().email == "ann@example.com"
