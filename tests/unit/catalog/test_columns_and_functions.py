"""What the catalogs of PostgreSQL say of columns and functions."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url

from sqlalchemy_shards.catalog.columns import ColumnTypes
from sqlalchemy_shards.catalog.functions import DRAWN, SETTINGS_ONLY, Functions
from sqlalchemy_shards.testing.databases import ScratchDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards.testing.servers import PostgresServers

SCHEMA = """
CREATE SCHEMA away;
CREATE TYPE away.mood AS ENUM ('bad', 'good');
CREATE DOMAIN away.email AS varchar(99) COLLATE "C";
CREATE TABLE "Odd Name" (
    id int PRIMARY KEY, gone int, "Code" char(5), price numeric(10, 2), word text COLLATE "POSIX",
    plain varchar(7), mood away.mood, moods away.mood[], mail away.email, "bit" bit(3)
);
ALTER TABLE "Odd Name" DROP COLUMN gone;
CREATE FUNCTION stable_one() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION fixed_one() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION fixed_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION two_ways() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION two_ways(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION away.farther() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
"""


OTHERWISE = """
CREATE SCHEMA away;
CREATE TABLE "Odd Name" (id bigint PRIMARY KEY, price numeric, word text COLLATE "C");
"""


class Asked:
    """Opens connections, and notes to which shards."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self.shards: list[str] = []

    @contextmanager
    def connect(self, shard: str) -> Iterator[psycopg.Connection[Any]]:
        self.shards.append(shard)
        url = make_url(self._urls[shard]).set(drivername="postgresql")
        text = url.render_as_string(hide_password=False)
        with psycopg.connect(text, autocommit=True) as connection:
            yield connection


@pytest.fixture(scope="module")
def urls(servers: PostgresServers) -> Iterator[dict[str, str]]:
    """Two shards that are alike, one that differs, and one without the tables."""
    servers.start(0)
    with ExitStack() as stack:
        names = ("alike", "other", "bare")
        alike, other, bare = (
            stack.enter_context(ScratchDatabase(servers.url(0), f"catalog_{name}")).url
            for name in names
        )
        urls = {"s0": alike, "s1": alike, "other": other, "bare": bare}
        for shard, schema in (("s0", SCHEMA), ("other", OTHERWISE)):
            with Asked(urls).connect(shard) as connection:
                connection.execute(schema)
        yield urls


@pytest.fixture
def asked(urls: dict[str, str]) -> Asked:
    return Asked(urls)


class TestColumns:
    def test_types_are_named_with_schema_and_without_length(self, asked: Asked) -> None:
        found = ColumnTypes(["s0", "s1", "bare"], asked.connect).of_table('"Odd Name"').types

        assert {name: (each.sql, each.collation, each.base) for name, each in found.items()} == {
            "id": ("pg_catalog.int4", None, "integer"),
            "Code": ("pg_catalog.bpchar", None, "character"),
            "price": ('pg_catalog."numeric"', None, "numeric"),
            "word": ("pg_catalog.text", 'pg_catalog."POSIX"', "text"),
            "plain": ('pg_catalog."varchar"', None, "character varying"),
            "mood": ("away.mood", None, "away.mood"),
            "moods": ("away._mood", None, "away.mood[]"),
            "mail": ("away.email", 'pg_catalog."C"', "character varying"),
            "bit": ('pg_catalog."bit"', None, "bit"),
        }

    def test_a_column_that_shards_keep_differently_is_not_known(self, asked: Asked) -> None:
        found = ColumnTypes(["s0", "other"], asked.connect).of_table('"Odd Name"').types

        assert list(found) == ["price"]

    def test_a_table_is_asked_for_once(self, asked: Asked) -> None:
        types = ColumnTypes(["s1", "s0"], asked.connect)
        first = types.of_table('"Odd Name"').types
        second = types.of_table('"Odd Name"').types

        assert second == first
        assert asked.shards == ["s1", "s0"]

    def test_a_table_that_is_not_there_yet_is_asked_for_again(self, asked: Asked) -> None:
        types = ColumnTypes(["s0"], asked.connect)

        assert [types.of_table("nowhere").types for _ in range(2)] == [{}, {}]
        assert asked.shards == ["s0", "s0"]


class TestFunctions:
    @pytest.mark.parametrize(
        ("names", "depending"),
        [
            ("count avg lower row_number string_agg percentile_cont", ""),
            ("coalesce to_char date_trunc", ""),
            ("random gen_random_uuid", ""),
            ("statement_timestamp pg_backend_pid current_setting nextval", None),
            ("fixed_one away.farther", ""),
            ("stable_one", "stable_one"),
            ("two_ways", "two_ways"),
            ("never_heard_of", "never_heard_of"),
        ],
    )
    def test_what_gives_the_same_everywhere_is_known_from_the_catalog(
        self, asked: Asked, names: str, depending: str | None
    ) -> None:
        found = Functions(asked.connect, "s0").depending(names.split())

        assert found == sorted((names if depending is None else depending).split())

    def test_each_is_asked_for_once(self, asked: Asked) -> None:
        functions = Functions(asked.connect, "s1")
        functions.depending(["lower", "stable_one"])

        assert functions.depending(["stable_one", "lower"]) == ["stable_one"]
        assert asked.shards == ["s1"]

    def test_no_names_ask_nothing(self, asked: Asked) -> None:
        assert Functions(asked.connect, "s0").depending([*SETTINGS_ONLY, *DRAWN]) == []
        assert asked.shards == []
