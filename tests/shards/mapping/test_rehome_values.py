"""Values move unchanged between shards that write and read them in other ways."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, Date, DateTime, Double, String, event, text
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, MONEY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlalchemy_shards import ShardedSession, create_cluster
from sqlalchemy_shards.errors import UnsupportedStatement
from tests.databases import ask
from tests.shards.shop import SHARDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards import Cluster
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

pytestmark = pytest.mark.parametrize("world", ["four_shards"], indirect=True)

DAY = date(2024, 2, 1)
MOMENT = datetime(2024, 2, 1, 3, 4, 5, 678901, tzinfo=timezone.utc)
STYLES = [
    ("SQL, MDY", "sql_standard", "0", "LATIN1"),
    ("SQL, DMY", "iso_8601", "1", "UTF8"),
    ("Postgres, DMY", "postgres_verbose", "-15", "LATIN9"),
    ("German", "postgres", "3", "UTF8"),
]


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Thing(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "things"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        # Not loaded, as the driver cannot read each of the styles.
        day = mapped_column(Date, deferred=True)
        days = mapped_column(ARRAY(Date), deferred=True)
        moment = mapped_column(DateTime(timezone=True), deferred=True)
        span = mapped_column(INTERVAL, deferred=True)
        ratio = mapped_column(Double)
        price = mapped_column(MONEY)
        name = mapped_column(String)

    return SimpleNamespace(metadata=Base.metadata, Thing=Thing)


@contextmanager
def cluster_of_styles(world: World) -> Iterator[Cluster]:
    """A cluster whose shards have each their own way to write values."""
    cluster = create_cluster(world.urls, name="mapping")
    for name, (dates, intervals, digits, encoding) in zip(SHARDS, STYLES, strict=True):

        def set_up(
            driver: Any,
            record: Any,
            dates: str = dates,
            intervals: str = intervals,
            digits: str = digits,
            encoding: str = encoding,
        ) -> None:
            driver.execute("SELECT set_config('datestyle', %s, false)", (dates,))
            driver.execute("SELECT set_config('intervalstyle', %s, false)", (intervals,))
            driver.execute("SELECT set_config('extra_float_digits', %s, false)", (digits,))
            driver.execute("SELECT set_config('client_encoding', %s, false)", (encoding,))
            driver.commit()

        event.listen(cluster.shards[name].engine, "connect", set_up)
    try:
        yield cluster
    finally:
        cluster.dispose()


def test_values_are_the_same_wherever_they_go(world: World) -> None:
    m, span = world.models, timedelta(days=-3, hours=4, seconds=5)
    values = {"day": DAY, "days": [DAY, None], "moment": MOMENT, "span": span, "ratio": 0.1 + 0.2}
    homes, keys, found, styles = set(), range(1, 21), [], []
    with world.session() as session, session.begin():
        session.add(m.Thing(id=1, price="1234.56", name="naïve", **values))
    query = (
        "SELECT day::text, days::text, extract(epoch FROM moment)::text, span::text, "
        "ratio::text, price::numeric::text, name FROM things"
    )
    before = world.rows(query)
    with cluster_of_styles(world) as cluster:
        for old, new in pairwise(keys):
            with ShardedSession(cluster) as session, session.begin():
                thing = session.get(m.Thing, old)
                session.rehome(thing, id=new)
                homes.add(session.shard_of(thing))
                styles += session.execute(
                    text("SELECT current_setting('datestyle'), current_setting('intervalstyle')"),
                    execution_options={"shard": session.shard_of(thing)},
                ).all()
            found += world.rows(query)

    assert homes == set(SHARDS)
    assert found == before * len(found)
    assert {dates.partition(",")[0] for dates, _ in styles} == {"SQL", "Postgres", "German"}


def test_policies_that_bind_the_role_are_told(world: World) -> None:
    m = world.models
    for url in world.urls.values():
        ask(url, "CREATE ROLE rehome_poor")
        ask(url, "GRANT SELECT, INSERT, UPDATE, DELETE ON things TO rehome_poor")
        ask(url, "ALTER TABLE things ENABLE ROW LEVEL SECURITY")
        ask(url, "CREATE POLICY all_of_them ON things USING (name <> 'hidden')")
    try:
        with world.session() as session, session.begin():
            session.add(m.Thing(id=1, name="seen"))
        with world.session() as session:
            session.execute(text("SET LOCAL ROLE rehome_poor"), execution_options={"shard": "*"})
            thing = session.get(m.Thing, 1)
            with pytest.raises(UnsupportedStatement, match="policies of table 'things'"):
                session.rehome(thing, id=2)
        with world.session() as session, session.begin():
            session.rehome(session.get(m.Thing, 1), id=2)
    finally:
        for url in world.urls.values():
            ask(url, "DROP POLICY all_of_them ON things")
            ask(url, "ALTER TABLE things DISABLE ROW LEVEL SECURITY")
            ask(url, "DROP OWNED BY rehome_poor; DROP ROLE rehome_poor")

    assert world.rows("SELECT id FROM things") == [(2,)]
