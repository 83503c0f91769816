"""Where the workspace could read a statement otherwise than one PostgreSQL: it must not.

Names that are looked up, settings of the transaction, names with awkward characters, SQL that was
changed on its way.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    column,
    create_engine,
    event,
    exists,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ENUM, TIMESTAMP
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlalchemy.types import UserDefinedType

from sqlalchemy_shards import create_cluster, shard_table
from sqlalchemy_shards.errors import UnsupportedStatement
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers


class Wages(UserDefinedType[Any]):
    """A domain over a domain over money."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "wages"


METADATA = MetaData()
MOOD = ENUM("z", "a", "m", name="mood", schema="away", create_type=False)
PEOPLE = shard_table(
    Table(
        "people",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("boss", Integer),
        Column("name", Text),
        Column("score", Integer),
        Column("height", Float),
        Column("raw", LargeBinary),
        Column("seen", TIMESTAMP(timezone=True)),
        Column("pay", Wages),
    ),
    key="id",
)
PETS = shard_table(
    Table(
        "pets",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("owner", Integer),
        Column("title", Text),
    ),
    key="id",
)
AWKWARD = shard_table(
    Table(
        'Äwk: %s "x"',
        METADATA,
        Column("select", Integer, primary_key=True, autoincrement=False),
        Column("part", Integer),
        Column("c0", Integer),
        Column("shards_cells", Integer),
        Column("100%: (x)", Integer),
        Column("mood", MOOD),
        schema="a way",
    ),
    key="select",
)
BOSS = PEOPLE.alias()
IDS = range(1, 13)


@pytest.fixture(scope="module")
def urls(servers: PostgresServers) -> Iterator[dict[str, str]]:
    with own_urls(servers, "borders", ("s0", "s1", "s2", "one")) as urls:
        yield urls


@pytest.fixture(scope="module")
def binds(urls: dict[str, str]) -> Iterator[SimpleNamespace]:
    """The same rows on three shards and in one database."""
    one = create_engine(urls["one"])
    cluster = create_cluster({n: url for n, url in urls.items() if n != "one"}, name="borders")
    for engine in (one, *(shard.engine for shard in cluster.shards.values())):
        with engine.begin() as connection:
            connection.execute(text('CREATE SCHEMA "a way"'))
            connection.execute(text("CREATE SCHEMA away"))
            connection.execute(text("CREATE TYPE away.mood AS ENUM ('z', 'a', 'm')"))
            connection.execute(text("CREATE DOMAIN earned AS money"))
            connection.execute(text("CREATE DOMAIN wages AS earned"))
    cluster.create_all(METADATA)
    METADATA.create_all(one)
    for engine in (one, cluster.engine):
        with engine.begin() as connection:
            connection.execute(insert(PEOPLE), [_person(id_) for id_ in IDS])
            connection.execute(insert(PETS), [{"id": i, "owner": i % 3, "title": "t"} for i in IDS])
            connection.execute(insert(AWKWARD), [_awkward(id_) for id_ in IDS])
    yield SimpleNamespace(cluster=cluster, one=one)
    cluster.dispose()
    one.dispose()


def _person(id_: int) -> dict[str, Any]:
    return {
        "id": id_,
        "boss": id_ * 5 % 14,
        "name": "abc"[id_ % 3],
        "score": id_ % 4 or None,
        "height": id_ / 3,
        "raw": bytes([id_, 0]),
        "seen": f"2020-10-25 0{id_ % 4}:30+00",
    }


def _awkward(id_: int) -> dict[str, Any]:
    names = ("part", "c0", "shards_cells", "100%: (x)")
    return {
        "select": id_,
        **{n: id_ % (i + 2) for i, n in enumerate(names)},
        "mood": "zam"[id_ % 3],
    }


@pytest.fixture(params=["ctes", "tables"], autouse=True)
def _way(
    request: pytest.FixtureRequest, binds: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways in which shipped rows can stand."""
    if request.param == "tables":
        monkeypatch.setattr(binds.cluster.workspace, "cte_rows_max", -1)


def answers(binds: SimpleNamespace, statement: Any, *settings: str) -> tuple[Any, Any]:
    """What one database says, and what the cluster says."""
    found = []
    for engine in (binds.one, binds.cluster.engine):
        with engine.connect() as connection:
            for each in settings:
                connection.execute(text(each))
            rows = connection.execute(statement).all()
            found.append(sorted((tuple(row) for row in rows), key=repr))
    assert found[0]
    return found[0], found[1]


def pairs(*columns: Any) -> Any:
    """A join that no shard can answer alone."""
    return select(PEOPLE.c.id, *columns).join(BOSS, BOSS.c.id == PEOPLE.c.boss)


def test_a_name_in_group_by_is_a_column_before_it_is_a_label(binds: SimpleNamespace) -> None:
    statement = select(literal(1).label("score"), func.count()).select_from(PEOPLE)

    one, cluster = answers(binds, statement.group_by("score"))

    assert cluster == one
    assert len(one) == 4


@pytest.mark.parametrize("by", ["id", column("id")], ids=["as a name", "as a column"])
def test_a_label_that_hides_the_key_in_group_by(binds: SimpleNamespace, by: Any) -> None:
    hiding = func.lower(PEOPLE.c.name).label("id")
    pets = select(PETS.c.owner, PETS.c.id.label("pet")).subquery()
    statement = select(hiding, PEOPLE.c.score, func.count(pets.c.pet))
    joined = statement.join_from(PEOPLE, pets, pets.c.owner == PEOPLE.c.boss, isouter=True)

    one, cluster = answers(binds, joined.group_by(by))

    assert cluster == one
    assert len(one) == len(IDS)


def test_a_name_without_a_table_is_looked_up_where_it_was(binds: SimpleNamespace) -> None:
    # In one database ``title`` is a column of the pets; not shipped, it would be no column at all.
    inner = select(literal_column("1")).select_from(PETS).where(column("title") == "t")
    statement = select(PEOPLE.c.id).where(exists(inner)).distinct()

    one, cluster = answers(binds, statement)

    assert cluster == one


def test_a_name_without_a_table_is_not_taken_from_an_outer_query(binds: SimpleNamespace) -> None:
    # Pets have an id as well as people: the inner one counts.
    inner = select(literal_column("1")).select_from(PETS).where(column("id") == 5)
    statement = select(PEOPLE.c.id, PEOPLE.c.name).where(exists(inner)).distinct()

    one, cluster = answers(binds, statement)

    assert cluster == one
    assert len(one) == len(IDS)


def test_system_columns_of_shipped_rows_are_refused(binds: SimpleNamespace) -> None:
    with binds.cluster.engine.connect() as connection, pytest.raises(UnsupportedStatement) as error:
        connection.execute(select(column("ctid"), func.rank().over(order_by=PEOPLE.c.id)))

    assert "system column" in str(error.value)


@pytest.mark.parametrize(
    "statement",
    [
        select(AWKWARD).distinct(),
        select(AWKWARD, func.count(PETS.c.id))
        .join(PETS, PETS.c.owner == AWKWARD.c.c0)
        .group_by(AWKWARD.c.select),
        select(AWKWARD.c.select, cast("a", MOOD), PETS.c.id).where(
            AWKWARD.c.part == PETS.c.owner, AWKWARD.c["100%: (x)"] > 1, AWKWARD.c.mood < "m"
        ),
    ],
    ids=["distinct", "grouped by key", "joined"],
)
def test_awkward_names_are_names(binds: SimpleNamespace, statement: Any) -> None:
    one, cluster = answers(binds, statement)

    assert cluster == one


@pytest.mark.parametrize("name", ["current_timestamp", "localtimestamp", "localtime"])
def test_the_time_is_rounded_as_it_is_asked_for(binds: SimpleNamespace, name: str) -> None:
    whole = getattr(func, name)(literal_column("0"))
    second = func.date_part("second", whole)

    one, cluster = answers(binds, pairs(second == func.trunc(second)))

    assert cluster == one


def test_a_function_called_as_the_time_is_not_the_time(binds: SimpleNamespace) -> None:
    with binds.cluster.engine.connect() as connection, pytest.raises(UnsupportedStatement) as error:
        connection.execute(pairs(func.away.now()))

    assert "away.now()" in str(error.value)


def test_parameters_with_names_of_ours_are_refused(binds: SimpleNamespace) -> None:
    with binds.cluster.engine.connect() as connection, pytest.raises(UnsupportedStatement) as error:
        connection.execute(pairs().where(PEOPLE.c.id == bindparam("shards_now", 1)))

    assert "names of its parameters" in str(error.value)


@pytest.mark.parametrize(
    "grouping",
    [
        func.cube(PEOPLE.c.name, PEOPLE.c.score),
        func.rollup(PEOPLE.c.name, PEOPLE.c.score),
        func.grouping_sets(tuple_(PEOPLE.c.name), tuple_(PEOPLE.c.score)),
    ],
    ids=["cube", "rollup", "grouping sets"],
)
def test_grouping_sets_are_answered(binds: SimpleNamespace, grouping: Any) -> None:
    level = func.grouping(PEOPLE.c.name, PEOPLE.c.score)
    statement = select(PEOPLE.c.name, PEOPLE.c.score, level, func.count()).group_by(grouping)

    one, cluster = answers(binds, statement)

    assert cluster == one


def test_everyday_functions_are_answered(binds: SimpleNamespace) -> None:
    size = func.length(PEOPLE.c.name)

    one, cluster = answers(binds, select(size, func.count()).group_by(size))

    assert cluster == one


@pytest.mark.parametrize(
    "setting",
    [
        "SET LOCAL bytea_output = 'escape'",
        "SET LOCAL TIME ZONE 'Asia/Kolkata'",
        "SET LOCAL extra_float_digits = 3",
        "SET TRANSACTION READ ONLY",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    ],
)
def test_what_the_transaction_is_set_to_holds(binds: SimpleNamespace, setting: str) -> None:
    raw, seen = (cast(each, Text) for each in (BOSS.c.raw, BOSS.c.seen))
    statement = pairs(raw.label("a"), seen.label("b"), BOSS.c.seen, BOSS.c.height)

    one, cluster = answers(binds, statement, setting)

    assert cluster == one


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("SET LOCAL extra_float_digits = 0", "extra_float_digits is below 1 on a shard"),
        ("SET LOCAL datestyle = 'SQL, DMY'", "DateStyle"),
        ("SET LOCAL search_path = away, public", "search_path"),
    ],
)
def test_settings_that_would_change_values_or_names_are_refused(
    binds: SimpleNamespace, setting: str, sentence: str
) -> None:
    with binds.cluster.engine.connect() as connection:
        connection.execute(text(setting))
        with pytest.raises(UnsupportedStatement, match=sentence):
            connection.execute(pairs(BOSS.c.height, BOSS.c.seen))
        assert connection.scalar(select(func.count()).select_from(PEOPLE)) > 0


def test_money_is_found_inside_other_types(binds: SimpleNamespace) -> None:
    with binds.cluster.engine.connect() as connection, pytest.raises(UnsupportedStatement) as error:
        connection.execute(pairs(BOSS.c.pay))

    assert "money" in str(error.value)


@contextmanager
def changed(engine: Engine, change: Callable[[str], str]) -> Iterator[None]:
    """SQL changed by an event, as tools that add comments do."""

    def listener(
        _connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        return change(sql), parameters

    event.listen(engine, "before_cursor_execute", listener, retval=True)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", listener)


@pytest.mark.parametrize("change", ["/* a */ -- b\n{}", "{} /*route='/x',line='1'*/", "{} -- c"])
def test_comments_around_a_statement_do_no_harm(binds: SimpleNamespace, change: str) -> None:
    statement = pairs(func.now() > BOSS.c.seen)
    with changed(binds.cluster.engine, change.format):
        one, cluster = answers(binds, statement)

    assert cluster == one


@pytest.mark.parametrize(
    "statement",
    [
        select(func.count(PEOPLE.c.id.distinct())).where(PEOPLE.c.score > 1),
        select(PEOPLE.c.id).where(PEOPLE.c.score > 1).order_by(PEOPLE.c.id).limit(3),
    ],
    ids=["gathered", "merged in order"],
)
def test_sql_that_an_event_changed_is_not_half_used(binds: SimpleNamespace, statement: Any) -> None:
    engine = binds.cluster.engine
    with (
        changed(engine, lambda sql: sql.replace("score >", "score <=")),
        engine.connect() as connection,
        pytest.raises(UnsupportedStatement) as error,
    ):
        connection.execute(statement)

    assert "before_cursor_execute" in str(error.value)


def test_tables_can_be_made_where_transactions_only_read_by_default(urls: dict[str, str]) -> None:
    shards = {name: url for name, url in urls.items() if name != "one"}
    options: dict[str, Any] = {"connect_args": {"options": "-c default_transaction_read_only=on"}}
    with closing_cluster(create_cluster(shards, name="borders", **options)) as cluster:
        cluster.workspace.cte_rows_max = -1
        with cluster.engine.connect() as connection:
            found = connection.scalar(select(func.count(PEOPLE.c.name.distinct())))

    assert found == 3


def test_a_workspace_that_sorts_otherwise_is_refused(urls: dict[str, str]) -> None:
    shards = {name: url for name, url in urls.items() if name != "one"}
    statement = select(func.rank().over(order_by=PEOPLE.c.name))
    with database_that_sorts_otherwise(urls["one"]) as url:
        made = create_cluster(shards, name="borders", workspace=url)
        with (
            closing_cluster(made) as cluster,
            cluster.engine.connect() as connection,
            pytest.raises(UnsupportedStatement) as error,
        ):
            connection.execute(statement)

    assert "sorts text otherwise" in str(error.value)


@contextmanager
def database_that_sorts_otherwise(url: str) -> Iterator[str]:
    name = "sorting_otherwise"
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        try:
            connection.execute(
                text(
                    f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' "
                    "LOCALE_PROVIDER icu ICU_LOCALE 'en' LC_COLLATE 'C' LC_CTYPE 'C'"
                )
            )
        except DBAPIError:
            pytest.skip("this PostgreSQL has no ICU")
        try:
            yield engine.url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def closing_cluster(cluster: Cluster) -> Iterator[Cluster]:
    try:
        yield cluster
    finally:
        cluster.dispose()
