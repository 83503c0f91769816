"""What is taken for a setting of the transaction, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from sqlalchemy_shards.routing.settings import Setting, sets_role, sets_something, setting_of


@pytest.mark.parametrize(
    "sql",
    [
        "SET LOCAL app.tenant = 'a'",
        "set local app.tenant to 'it''s'",
        "  SET LOCAL statement_timeout = 5000 ;\n",
        "SET LOCAL search_path TO a, public",
        "SET LOCAL work_mem = DEFAULT",
        "SET LOCAL TIME ZONE 'UTC'",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET TRANSACTION READ ONLY, DEFERRABLE",
        "SET CONSTRAINTS ALL DEFERRED",
    ],
)
def test_a_setting_of_the_transaction_is_recognised(sql: str) -> None:
    assert setting_of(sql, {}) == Setting()


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT set_config('app.tenant', 'a', true)", ("set_config",)),
        ("SELECT pg_catalog.set_config('app.tenant', %(t)s, TRUE)", ("set_config",)),
        ("SELECT set_config('app.tenant', %(t)s::VARCHAR, true) AS now", ("now",)),
        ("select set_config('a.b', 'x', true), set_config('a.c', 'y', true)", ("set_config",) * 2),
        ("SELECT set_config(%(n)s, CAST(%(t)s AS text), %(yes)s)", ("set_config",)),
        ("SELECT set_config('app.tenant', 42::text, true)", ("set_config",)),
    ],
)
def test_a_call_that_sets_for_the_transaction_is_recognised(
    sql: str, columns: tuple[str, ...]
) -> None:
    parameters = {"n": "app.tenant", "t": "a", "yes": True}

    assert setting_of(sql, parameters) == Setting(columns)


@pytest.mark.parametrize(
    "sql",
    [
        "SET app.tenant = 'a'",
        "SET SESSION app.tenant = 'a'",
        "RESET app.tenant",
        "SET LOCAL app.tenant = 'a'; DELETE FROM users",
        "SET LOCAL app.tenant = 'a' -- '",
        "SET LOCAL app.tenant = 'a' /* '",
        "SET LOCAL app.tenant = 'a",
        r"SET LOCAL app.tenant = 'a\'",
        "SET LOCAL app.tenant = $$a$$",
        "SET LOCAL ROLE reader",
        "SET LOCAL role = 'reader'",
        "SET LOCAL SESSION AUTHORIZATION reader",
        "SET LOCAL session_authorization TO reader",
        "SET TRANSACTION SNAPSHOT '00000003-0000001B-1'",
        "SET CONSTRAINTS a_constraint DEFERRED",
        "SELECT set_config('app.tenant', 'a', false)",
        "SELECT set_config('app.tenant', 'a', %(no)s)",
        "SELECT set_config('app.tenant', 'a', %(missing)s)",
        "SELECT set_config('role', 'reader', true)",
        "SELECT set_config(' Role ', 'reader', true)",
        "SELECT set_config(%(role)s, 'reader', true)",
        "SELECT set_config('app.tenant', (SELECT name FROM tenants), true)",
        "SELECT set_config('app.tenant', 'a', true) FROM tenants",
        "SELECT set_config('app.tenant', 'a', true), delete_all()",
        "SELECT 1, set_config('app.tenant', 'a', true)",
        "SELECT set_config('app.tenant', 'a', true); DELETE FROM users",
        "SELECT 1",
    ],
)
def test_whatever_else_is_none(sql: str) -> None:
    parameters: dict[str, Any] = {"no": False, "role": "role"}

    assert setting_of(sql, parameters) is None


@pytest.mark.parametrize(
    ("sql", "sets"),
    [
        ("SET app.tenant = 'a'", True),
        (" reset all", True),
        ("SELECT set_config('a.b', 'c', false)", True),
        ("SELECT current_setting('a.b')", False),
        ("UPDATE users SET name = 'a'", False),
    ],
)
def test_what_looks_like_a_setting_is_told_apart(sql: str, sets: bool) -> None:
    assert sets_something(sql) is sets


@pytest.mark.parametrize(
    ("sql", "sets"),
    [
        ("SET LOCAL ROLE reader", True),
        (" set role = 'reader'", True),
        ("SET SESSION AUTHORIZATION reader", True),
        ("SELECT set_config( 'role', 'reader', true)", True),
        ("UPDATE users SET role = 'reader'", False),
        ("SET LOCAL app.role = 'reader'", False),
    ],
)
def test_what_looks_like_another_role_is_told_apart(sql: str, sets: bool) -> None:
    assert sets_role(sql) is sets
