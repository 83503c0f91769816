"""Which operations of a revision stand where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.autogenerate import render_python_code
from alembic.operations import ops
from sqlalchemy import Column, Index, Integer, MetaData, Table

from sqlalchemy_shards.migrations.autogenerate.arranging import arrange
from sqlalchemy_shards.migrations.plugin import ensure_plugin

if TYPE_CHECKING:
    from collections.abc import Sequence

GLOBAL = ("plans", "flags")


def lines(operations: Sequence[ops.MigrateOperation]) -> tuple[list[str], list[str]]:
    """A revision of these operations: its lines upwards, and downwards."""
    ensure_plugin()
    upgrade = ops.UpgradeOps(arrange(operations, lambda table: table[1] in GLOBAL, "public"))
    texts = [render_python_code(each) for each in (upgrade, upgrade.reverse())]
    up, down = ([line[4:] for line in text.splitlines()[1:-1]] for text in texts)
    return up, down


def index(table: str, column: str = "a", **options: Any) -> ops.CreateIndexOp:
    columns = Table(table, MetaData(), Column("a", Integer), Column("b", Integer)).c
    return ops.CreateIndexOp.from_index(Index(f"{table}_{column}", columns[column], **options))


def add(table: str, column: str) -> ops.AddColumnOp:
    return ops.AddColumnOp(table, Column(column, Integer))


def test_neighbours_for_the_global_shard_share_a_block() -> None:
    up, down = lines(
        [
            ops.ModifyTableOps("plans", [add("plans", "a")]),
            ops.ModifyTableOps("flags", [add("flags", "a")]),
            ops.ModifyTableOps("users", [add("users", "a")]),
            ops.ModifyTableOps("plans", [add("plans", "b")], schema="public"),
        ]
    )

    assert up == [
        "if op.is_global_shard():",
        "    op.add_column('plans', sa.Column('a', sa.Integer(), nullable=True))",
        "    op.add_column('flags', sa.Column('a', sa.Integer(), nullable=True))",
        "op.add_column('users', sa.Column('a', sa.Integer(), nullable=True))",
        "if op.is_global_shard():",
        "    op.add_column('plans', sa.Column('b', sa.Integer(), nullable=True))",
    ]
    assert down == [
        "if op.is_global_shard():",
        "    op.drop_column('plans', 'b')",
        "op.drop_column('users', 'a')",
        "if op.is_global_shard():",
        "    op.drop_column('flags', 'a')",
        "    op.drop_column('plans', 'a')",
    ]


def test_what_is_outside_of_a_transaction_comes_first_in_both_directions() -> None:
    up, down = lines(
        [
            ops.ModifyTableOps("users", [add("users", "b"), index("users")]),
            ops.ModifyTableOps(
                "plans", [add("plans", "b"), index("plans", postgresql_concurrently=True)]
            ),
        ]
    )

    assert up == [
        "if op.is_global_shard():",
        "    op.create_index_concurrently('plans_a', 'plans', ['a'], unique=False)",
        "op.add_column('users', sa.Column('b', sa.Integer(), nullable=True))",
        "op.create_index('users_a', 'users', ['a'], unique=False)",
        "if op.is_global_shard():",
        "    op.add_column('plans', sa.Column('b', sa.Integer(), nullable=True))",
    ]
    assert down == [
        "if op.is_global_shard():",
        "    op.drop_index_concurrently('plans_a', 'plans')",
        "if op.is_global_shard():",
        "    op.drop_column('plans', 'b')",
        "op.drop_index('users_a', table_name='users')",
        "op.drop_column('users', 'b')",
    ]


def test_a_changed_index_is_changed_outside_of_a_transaction() -> None:
    old = ops.DropIndexOp.from_index(index("users", unique=True).to_index())
    new = index("users", postgresql_concurrently=True)

    up, down = lines([ops.ModifyTableOps("users", [old, new])])

    drop = "op.drop_index_concurrently('users_a', 'users')"
    create = "op.create_index_concurrently('users_a', 'users', ['a'], unique={})"
    assert up == [drop, create.format(False)]
    assert down == [drop, create.format(True)]


def test_an_index_of_a_new_table_is_built_with_it() -> None:
    table = Table("users", MetaData(), Column("a", Integer), schema="public")
    up, _ = lines(
        [
            ops.CreateTableOp.from_table(table),
            ops.ModifyTableOps("users", [index("users", postgresql_concurrently=True)]),
        ]
    )

    assert up[-1] == "op.create_index('users_a', 'users', ['a'], unique=False)"


def test_empty_groups_are_not_rendered() -> None:
    up, down = lines([ops.ModifyTableOps("plans", [])])

    assert (up, down) == (["pass"], ["pass"])
