"""Text under every sort of collation: of ICU, of libc, of bytes, and such as calls unlike equal.

The databases themselves sort by the bytes of text, or by ICU where PostgreSQL has that.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    case,
    collate,
    create_engine,
    func,
    make_url,
    or_,
    select,
    union,
)

from sqlalchemy_shards import create_cluster, shard_table
from tests.databases import libpq_url
from tests.types.answers import answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

COLLATIONS = {
    "the database's": "",
    "C": 'COLLATE "C"',
    "POSIX": 'COLLATE "POSIX"',
    "ucs_basic": "COLLATE ucs_basic",
    "libc": 'COLLATE "C.utf8"',
    "german": "COLLATE german",
    "upper first": "COLLATE upper_first",
    "by number": "COLLATE by_number",
    "any case": "COLLATE any_case",
    "any accent": "COLLATE any_accent",
}
NONDETERMINISTIC = {"any case", "any accent"}
OWN = {
    "german": "provider = icu, locale = 'de'",
    "upper_first": "provider = icu, locale = 'und-u-kf-upper'",
    "by_number": "provider = icu, locale = 'und-u-kn-true'",
    "any_case": "provider = icu, locale = 'und-u-ks-level2', deterministic = false",
    "any_accent": "provider = icu, locale = 'und-u-ks-level1-kc-true', deterministic = false",
}
WORDS = [
    *("a", "A", "b", "B", "z", "Z", "ä", "Ä", "a\u0308", "ß", "ss", "_", " ", "", None),
    *("item 2", "item 10", "Item 2", "é", "e", "E", "\U0001f600", "\uffee", "a b", "ab", "a-b"),
]
COPIES = 2
SHARDS = 3


@dataclass
class Worded:
    """A table of words for each collation, in one database and on three shards."""

    cluster: Cluster
    one: Engine
    tables: Mapping[str, Table]
    missing: set[str] = field(default_factory=set)

    def table(self, name: str) -> Table:
        """The table under a collation; skips the test where the server lacks it."""
        if name in self.missing:
            pytest.skip(f"this PostgreSQL has no collation {name}")
        return self.tables[name]


@pytest.fixture(scope="module", params=["bytes", "ICU"])
def words(servers: PostgresServers, request: pytest.FixtureRequest) -> Iterator[Worded]:
    """Databases that sort by bytes, and databases that sort by ICU."""
    with ExitStack() as stack:
        urls = {}
        for number in range(SHARDS + 1):
            servers.start(number % SHARDS)
            name = "words_one" if number == SHARDS else f"words_s{number}"
            server = make_url(servers.url(number % SHARDS))
            try:
                _create(stack, server, name, is_icu=request.param == "ICU")
            except (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError):
                pytest.skip("this PostgreSQL has no ICU")
            urls[name] = server.set(database=name).render_as_string(hide_password=False)
        one = create_engine(urls.pop("words_one"))
        stack.callback(one.dispose)
        cluster = create_cluster(urls, name="words")
        stack.callback(cluster.dispose)
        world = Worded(cluster, one, _tables())
        _fill(world)
        yield world


def _create(stack: ExitStack, server: Any, name: str, *, is_icu: bool) -> None:
    admin: Any = stack.enter_context(_connect(server.render_as_string(hide_password=False)))
    provider = "LOCALE_PROVIDER icu ICU_LOCALE 'und' LOCALE 'C.utf8'" if is_icu else ""
    admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 {provider}")
    stack.callback(admin.execute, f"DROP DATABASE {name} WITH (FORCE)")


def _tables() -> Mapping[str, Table]:
    metadata = MetaData()
    return {
        name: shard_table(
            Table(
                f"words {number}",
                metadata,
                Column("id", Integer, primary_key=True, autoincrement=False),
                Column("word", Text),
            )
        )
        for number, name in enumerate(COLLATIONS)
    }


def _fill(world: Worded) -> None:
    table = world.tables["C"]
    homes = [world.cluster.shard_for(table, n) for n in range(len(WORDS) * COPIES)]
    engines = {None: world.one, **{n: s.engine for n, s in world.cluster.shards.items()}}
    for shard, engine in engines.items():
        with _connect(engine.url.render_as_string(hide_password=False)) as connection:
            for name, options in OWN.items():
                try:
                    connection.execute(f"CREATE COLLATION {name} ({options})".encode())
                except psycopg.errors.FeatureNotSupported:
                    world.missing.add(name.replace("_", " "))
            for name, each in world.tables.items():
                if name in world.missing:
                    continue
                columns = f"id int PRIMARY KEY, word text {COLLATIONS[name]}"
                connection.execute(f'CREATE TABLE "{each.name}" ({columns})'.encode())
                rows = [
                    (number, word)
                    for number, word in enumerate(WORDS * COPIES)
                    if shard in (None, homes[number])
                ]
                with connection.cursor() as cursor:
                    cursor.executemany(f'INSERT INTO "{each.name}" VALUES (%s, %s)'.encode(), rows)


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(libpq_url(url), autocommit=True)


def statements(table: Table, *, is_vague: bool) -> Mapping[str, Any]:
    """Everything that compares words.

    :param is_vague: equal words may look different, so that only their number is certain.
    """
    t, other = table, table.alias("other")
    word = t.c.word
    shown: Any = [] if is_vague else [word]
    both = union(select(t.c.word), select(other.c.word).where(other.c.id > 9)).subquery()
    lowered = func.lower(word)
    some = select(word).distinct().subquery()
    return {
        "order": select(word, t.c.id).order_by(word, t.c.id),
        "descending": select(t.c.id).order_by(word.desc().nulls_first(), t.c.id).limit(9).offset(2),
        "order by lower": select(t.c.id).order_by(lowered, t.c.id.desc()),
        "order by C": select(t.c.id).order_by(collate(word, "C"), t.c.id),
        "order by another": select(t.c.id).order_by(collate(word, "ucs_basic").desc(), t.c.id),
        "order of an expression": select(t.c.id).order_by(word + "x", t.c.id),
        "order of CASE": select(t.c.id).order_by(case((t.c.id > 9, word), else_="m"), t.c.id),
        "distinct": select(func.count()).select_from(some),
        "distinct by lower": select(func.count(lowered.distinct())),
        "groups": select(*shown, func.count(), func.min(t.c.id)).group_by(word),
        "groups in order": select(func.count(), func.min(t.c.id)).group_by(word).order_by(word),
        "groups by the key": select(t.c.id, func.max(word)).group_by(t.c.id, word).order_by(t.c.id),
        "distinct with the key": select(t.c.id, word).distinct(),
        "count distinct": select(func.count(word.distinct())),
        "least": select(func.min(word).is_(None) if is_vague else func.min(word)),
        "greatest of halves": select(
            t.c.id % 2, func.count(), *shown and [func.max(word)]
        ).group_by(t.c.id % 2),
        "greatest under C": select(func.max(collate(word, "C"))),
        "equal": select(t.c.id).where(word == "A"),
        "not equal": select(t.c.id).where(word != "ss"),
        "in": select(t.c.id).where(word.in_(["A", "É", "item 2"])),
        "greater": select(t.c.id).where(word > "item 10"),
        "between": select(t.c.id).where(word.between("A", "b")),
        "like": select(t.c.id).where(word.like("%a%")),
        "like under C": select(t.c.id).where(collate(word, "C").like("a%")),
        "equal under C": select(t.c.id).where(collate(word, "C") == "a"),
        "self-join": select(t.c.id, other.c.id).join(other, t.c.word == other.c.word),
        "union": select(func.count()).select_from(both),
        "window": select(t.c.id, func.rank().over(order_by=word)),
        "partitions": select(t.c.id, func.count().over(partition_by=word)),
        "partitions with the key": select(
            t.c.id, func.row_number().over(partition_by=[t.c.id, word])
        ),
        "greater than one": select(t.c.id).where(
            word > select(other.c.word).where(other.c.id == 4).scalar_subquery()
        ),
        "in a subquery": select(t.c.id).where(
            word.in_(select(other.c.word).where(or_(other.c.id == 0, other.c.id == 7)))
        ),
        "having": select(func.min(t.c.id)).group_by(word).having(func.max(word) > "b"),
    }


GATHERED = ("self-join", "union", "window", "partitions", "greater than one", "groups in order")


@pytest.mark.parametrize("collation", COLLATIONS)
def test_answers_are_those_of_one_database(words: Worded, collation: str) -> None:
    asked = statements(words.table(collation), is_vague=collation in NONDETERMINISTIC)

    check_answers(words, asked)


@pytest.mark.parametrize("collation", COLLATIONS)
def test_temporary_tables_have_the_collation(
    words: Worded, monkeypatch: pytest.MonkeyPatch, collation: str
) -> None:
    asked = statements(words.table(collation), is_vague=collation in NONDETERMINISTIC)

    monkeypatch.setattr(words.cluster.workspace, "cte_rows_max", 0)

    check_answers(words, {name: asked[name] for name in GATHERED})


def check_answers(world: Worded, asked: Mapping[str, Any]) -> None:
    """Hold the shards' answers against those of one database."""
    expected = {name: answer(world.one, each) for name, each in asked.items()}
    found = {name: answer(world.cluster.engine, each) for name, each in asked.items()}

    assert found == expected
