from __future__ import annotations

import pytest

from sqlalchemy_shards.routing.transaction_control import transaction_control


@pytest.mark.parametrize(
    ("sql", "control"),
    [
        ("COMMIT", "COMMIT"),
        ("  commit and chain ;", "COMMIT"),
        ("END", "END"),
        ("ABORT", "ABORT"),
        ("BEGIN", "BEGIN"),
        ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION"),
        ("ROLLBACK", "ROLLBACK"),
        ("rollback work", "ROLLBACK"),
        ("ROLLBACK AND CHAIN", "ROLLBACK"),
        ("PREPARE TRANSACTION 'mine'", "PREPARE TRANSACTION"),
        ("-- why\nCOMMIT", "COMMIT"),
        ("/* a /* b */ c */ COMMIT", "COMMIT"),
        ("COMMIT/**/AND CHAIN", "COMMIT"),
        ("UPDATE t SET a = 1; COMMIT", "COMMIT"),
        ("SELECT ';'; ROLLBACK", "ROLLBACK"),
        ("SELECT E'\\';'; ROLLBACK", "ROLLBACK"),
        ("SELECT 'a\\'; ROLLBACK; --'", "ROLLBACK"),
        ("DO $$ BEGIN NULL; END $$; COMMIT", "COMMIT"),
    ],
)
def test_what_begins_or_ends_a_transaction_is_found(sql: str, control: str) -> None:
    assert transaction_control(sql) == control


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1",
        "UPDATE t SET note = 'x; COMMIT'",
        'SELECT "a; COMMIT"',
        "SELECT 1 -- ; COMMIT",
        "SELECT 1 /* ; COMMIT */",
        "DO $body$ BEGIN PERFORM 1; END; $body$",
        "CREATE FUNCTION f() RETURNS int AS $$ BEGIN RETURN 1; END $$ LANGUAGE plpgsql",
        "SAVEPOINT a",
        "RELEASE SAVEPOINT a",
        "ROLLBACK TO a",
        "ROLLBACK WORK TO SAVEPOINT a",
        "COMMIT PREPARED 'another'",
        "ROLLBACK PREPARED 'another'",
        "PREPARE q AS SELECT 1",
        "DELETE FROM t WHERE commit = 1",
        "(SELECT 1)",
    ],
)
def test_what_stays_within_the_transaction_is_none(sql: str) -> None:
    assert transaction_control(sql) is None
