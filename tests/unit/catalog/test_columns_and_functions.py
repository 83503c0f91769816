"""What the catalogs of PostgreSQL say of columns and functions."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url

from sqlalchemy_shards.catalog.columns import ColumnTypes
from sqlalchemy_shards.catalog.functions import DRAWN, SETTINGS_ONLY, Functions
from sqlalchemy_shards.connections.fan_out import Branch, Outcome, SequentialFanOut
from sqlalchemy_shards.testing.databases import ScratchDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
CREATE FUNCTION defaults(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION defaults(int, text, int DEFAULT 2) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION listed(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION listed(int, text, VARIADIC int[]) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION away.farther() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
"""


OTHERWISE = """
CREATE SCHEMA away;
CREATE TABLE "Odd Name" (id bigint PRIMARY KEY, price numeric, word text COLLATE "C");
"""


class NotedFanOut(SequentialFanOut):
    """Notes which shards are asked together."""

    def __init__(self) -> None:
        self.together: list[list[str]] = []

    def run(
        self, branches: Sequence[Branch[Any]], *, deadline_seconds: float | None = None
    ) -> list[Outcome[Any]]:
        self.together.append([branch.shard for branch in branches])
        return super().run(branches, deadline_seconds=deadline_seconds)


class Asked:
    """Opens connections, and notes to which shards."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self.shards: list[str] = []
        self.fan_out = NotedFanOut()

    @contextmanager
    def connect(self, shard: str) -> Iterator[psycopg.Connection[Any]]:
        self.shards.append(shard)
        url = make_url(self._urls[shard]).set(drivername="postgresql")
        text = url.render_as_string(hide_password=False)
        with psycopg.connect(text, autocommit=True) as connection:
            yield connection

    def types(self, *shards: str) -> ColumnTypes:
        return ColumnTypes(shards, self.connect, self.fan_out)


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
        found = asked.types("s0", "s1", "bare").of_table('"Odd Name"').types

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
        found = asked.types("s0", "other").of_table('"Odd Name"').types

        assert list(found) == ["price"]

    def test_a_table_is_asked_for_once(self, asked: Asked) -> None:
        types = asked.types("s1", "s0")
        first = types.of_table('"Odd Name"').types
        second = types.of_table('"Odd Name"').types

        assert second == first
        assert asked.shards == ["s1", "s0"]

    def test_all_shards_are_asked_together(self, asked: Asked) -> None:
        assert asked.types("s1", "s0", "bare").of_table('"Odd Name"').types
        assert asked.fan_out.together == [["s1", "s0", "bare"]]

    def test_a_table_that_is_not_there_yet_is_asked_for_again(self, asked: Asked) -> None:
        types = asked.types("s0")

        assert [types.of_table("nowhere").types for _ in range(2)] == [{}, {}]
        assert asked.shards == ["s0", "s0"]


class TestFunctions:
    @pytest.mark.parametrize(
        ("calls", "depending"),
        [
            ("count avg lower row_number string_agg percentile_cont", ""),
            ("coalesce to_char date_trunc date", ""),
            ("random gen_random_uuid", ""),
            ("statement_timestamp pg_backend_pid current_setting nextval", None),
            ("fixed_one away.farther", ""),
            ("stable_one", "stable_one"),
            ("two_ways", "two_ways"),
            ("two_ways/0 two_ways/1", "two_ways/1"),
            ("age age/1 age/2", "age age/1"),
            ("to_tsquery/1 to_tsquery/2 to_tsvector/2", "to_tsquery/1"),
            ("quote_literal/1", None),
            ("ts_headline/3 ts_headline/3c ts_headline/4c", "ts_headline/3"),
            ("defaults/1 defaults/2 defaults/3", "defaults/2 defaults/3"),
            ("listed/1 listed/2 listed/9", "listed/2 listed/9"),
            ("count/0 string_agg/2 percentile_cont/1 mode/0 lag/1 lag/3", ""),
            ("regclass/1", "regclass/1"),
        ],
    )
    def test_what_gives_the_same_everywhere_is_known_from_the_catalog(
        self, asked: Asked, calls: str, depending: str | None
    ) -> None:
        found = Functions(asked.connect, "s0").depending(map(call, calls.split()))

        assert {doubt[:2] for doubt in found} == {
            call(each)[:2] for each in (calls if depending is None else depending).split()
        }
        assert not any(doubt.is_missing for doubt in found)

    def test_what_is_not_there_is_missing(self, asked: Asked) -> None:
        calls = ["never_heard_of", "fixed_one/2", "away.nobody/0", "fixed_one/1"]

        found = Functions(asked.connect, "s0").depending(map(call, calls))

        assert {doubt[:2] for doubt in found} == {call(each)[:2] for each in calls[:3]}
        assert all(doubt.is_missing for doubt in found)

    def test_what_a_row_may_be_given_is_known_from_the_catalog(self, asked: Asked) -> None:
        calls = "to_char/2 format/2 random/0 md5/1 fixed_one/0 two_ways/0"
        others = "stable_one/0 count/1 jsonb_agg/1 generate_series/2 now/0 nextval/1 nowhere/0"

        found = Functions(asked.connect, "s0").row_wise(map(call, f"{calls} {others}".split()))

        assert found == {name.partition("/")[0] for name in calls.split()}

    def test_a_namesake_of_what_draws_is_not_taken_for_it(self, asked: Asked) -> None:
        with asked.connect("s0") as connection:
            connection.execute(
                "CREATE FUNCTION gen_random_uuid(bool) RETURNS int LANGUAGE sql AS 'SELECT 1';"
                "CREATE FUNCTION row_to_json(int) RETURNS int LANGUAGE sql AS 'SELECT 1'"
            )
        functions = Functions(asked.connect, "s0")
        calls = map(call, ["gen_random_uuid/0", "row_to_json/1", "to_json/1"])

        assert functions.row_wise(calls) == {"to_json"}

    def test_each_is_asked_for_once(self, asked: Asked) -> None:
        functions = Functions(asked.connect, "s1")
        functions.depending([("lower", 1, False), ("stable_one", 0, False)])

        assert functions.depending([("stable_one", 0, False), ("lower", 1, False)])
        assert asked.shards == ["s1"]

    def test_what_is_missing_is_asked_for_again(self, asked: Asked) -> None:
        functions = Functions(asked.connect, "s0")
        functions.depending([("later", 0, False)])
        with asked.connect("s0") as connection:
            connection.execute(
                "CREATE FUNCTION later() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'"
            )

        assert functions.depending([("later", 0, False)]) == []

    def test_no_names_ask_nothing(self, asked: Asked) -> None:
        unasked = [(name, None, False) for name in (*SETTINGS_ONLY, *DRAWN)]

        assert Functions(asked.connect, "s0").depending(unasked) == []
        assert asked.shards == []


def call(written: str) -> tuple[str, int | None, bool]:
    name, _, count = written.partition("/")
    number = count.removesuffix("c")
    return name, int(number) if number else None, count.endswith("c")
