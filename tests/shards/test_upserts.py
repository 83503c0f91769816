"""ON CONFLICT: what each shard can keep for all is kept, and what it cannot is refused."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from sqlalchemy_shards import shard_table
from sqlalchemy_shards.errors import ShardKeyChanged, UnsupportedStatement
from tests.shards.shop import CUSTOMERS, World

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def members(world: World) -> Iterator[Table]:
    """A table with constraints of every kind."""
    table = Table(
        "members",
        MetaData(),
        Column("team", BigInteger, primary_key=True, autoincrement=False),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("email", String, info={"per_shard": True}),
        Column("nick", String, nullable=False),
        Column("badge", BigInteger, nullable=False),
        UniqueConstraint("team", "nick"),
        UniqueConstraint("team", "badge", name="members_badges"),
        UniqueConstraint("email"),
        Index("members_lower", "team", func.lower("nick"), unique=True),
    )
    if world.is_spread:
        shard_table(table, key="team")
    table.metadata.create_all(world.engine)
    try:
        yield table
    finally:
        table.metadata.drop_all(world.engine)


def row(team: int, id_: int) -> dict[str, Any]:
    return {"team": team, "id": id_, "nick": f"nick {id_}", "badge": id_, "email": f"{team}.{id_}"}


ROWS = [row(team, 1) for team in CUSTOMERS]


class TestTargetsWithTheKey:
    @pytest.mark.parametrize(
        "target",
        [
            {"index_elements": ["team", "nick"]},
            {"index_elements": ["badge", "team"]},
            {"constraint": "members_badges"},
            {"constraint": "members_pkey"},
            {"constraint": "members_team_nick_key"},
        ],
    )
    @pytest.mark.parametrize("is_list", [True, False])
    def test_conflicts_are_found(self, world: World, target: Any, is_list: bool) -> None:
        with members(world) as table, world.engine.begin() as connection:
            connection.execute(insert(table), ROWS[:6])
            statement = upsert(table).values(ROWS) if is_list else upsert(table)
            given = [] if is_list else [ROWS]
            connection.execute(
                statement.on_conflict_do_update(**target, set_={"badge": 100}), *given
            )
            connection.execute(statement.on_conflict_do_nothing(), *given)
            badges = sorted(connection.scalars(select(table.c.badge)).all())

        assert badges == [1] * 6 + [100] * 6

    def test_the_key_itself_may_be_set_to_what_it_is(self, world: World) -> None:
        with members(world) as table, world.engine.begin() as connection:
            connection.execute(insert(table), ROWS)
            statement = upsert(table).values([{**each, "email": None} for each in ROWS])
            statement = statement.on_conflict_do_update(
                index_elements=["team", "id"], set_=dict(statement.excluded)
            )
            returned = connection.execute(statement.returning(table.c.team, table.c.email)).all()

        assert returned == [(team, None) for team in CUSTOMERS]

    def test_what_is_kept_per_shard_is_looked_for_per_shard(self, world: World) -> None:
        with members(world) as table, world.engine.begin() as connection:
            connection.execute(insert(table), ROWS)
            statement = upsert(table).values(ROWS)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["email"], set_={"badge": 7})
            )
            badges = connection.scalars(select(table.c.badge)).all()

        assert badges == [7] * 12


class TestRefusals:
    def test_a_target_without_the_key(self, four_shards: World) -> None:
        with members(four_shards) as table, four_shards.engine.begin() as connection:
            statement = (
                upsert(table).values(row(1, 1)).on_conflict_do_nothing(index_elements=["badge"])
            )
            with pytest.raises(UnsupportedStatement, match=r"columns \(badge\) lack the shard key"):
                connection.execute(statement)

    def test_a_constraint_that_the_model_does_not_have(self, four_shards: World) -> None:
        with members(four_shards) as table, four_shards.engine.begin() as connection:
            statement = upsert(table).values(row(1, 1)).on_conflict_do_nothing(constraint="other")
            with pytest.raises(UnsupportedStatement, match="which columns the constraint 'other'"):
                connection.execute(statement)

    @pytest.mark.parametrize(
        ("target", "value"),
        [
            (["team", "id"], lambda statement: 5),
            (["team", "id"], lambda statement: statement.excluded.badge),
            (["team", "id"], lambda statement: statement.excluded.team + 1),
            (["email"], lambda statement: statement.excluded.team),
        ],
    )
    def test_another_key(self, four_shards: World, target: Any, value: Any) -> None:
        with members(four_shards) as table, four_shards.engine.begin() as connection:
            statement = upsert(table).values([row(1, 1), row(2, 2)])
            statement = statement.on_conflict_do_update(
                index_elements=target, set_={"team": value(statement)}
            )
            with pytest.raises(ShardKeyChanged, match="'team'"):
                connection.execute(statement)
