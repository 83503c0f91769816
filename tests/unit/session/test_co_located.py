"""What hangs on a row by the shard key, told from tables alone."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, ForeignKeyConstraint, Integer, MetaData, Table

from sqlalchemy_shards import shard_table
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.session.co_located import Link, co_located, torn


def table(metadata: MetaData, name: str, *references: tuple[str, str]) -> Table:
    """A table of rows by tenant; ``references`` are (column, table) and carry the tenant."""
    columns = {"tenant", "id", *(column for column, _ in references)}
    constraints = [
        ForeignKeyConstraint(["tenant", column], [f"{other}.tenant", f"{other}.id"])
        for column, other in references
    ]
    made = Table(
        name,
        metadata,
        *(
            Column(each, Integer, primary_key=each in ("tenant", "id"), autoincrement=False)
            for each in sorted(columns)
        ),
        *constraints,
    )
    return shard_table(made, key="tenant")


def links(metadata: MetaData) -> list[Link]:
    return [
        Link(
            each,
            constraint.referred_table,
            frozenset((element.parent, element.column) for element in constraint.elements),
        )
        for each in metadata.tables.values()
        for constraint in each.foreign_key_constraints
    ]


def test_tables_come_after_all_those_that_they_name() -> None:
    metadata = MetaData()
    root = table(metadata, "root")
    table(metadata, "leaf", ("a_id", "a"), ("b_id", "b"), ("root_id", "root"))
    table(metadata, "a", ("root_id", "root"), ("b_id", "b"))
    table(metadata, "b", ("root_id", "root"))
    table(metadata, "elsewhere")
    moved = co_located(root, root.c.id == 1, {"tenant": 2}, links(metadata))

    assert [each.table.name for each in moved] == ["root", "b", "a", "leaf"]
    assert all(each.changes == {each.table.c.tenant: 2} for each in moved)


def test_a_tree_within_a_table_moves_with_its_root() -> None:
    metadata = MetaData()
    root = table(metadata, "root", ("parent_id", "root"))
    (moved,) = co_located(root, root.c.id == 1, {"tenant": 2}, links(metadata))

    assert "WITH RECURSIVE" in str(moved.condition)


def test_a_circle_of_tables_is_refused() -> None:
    metadata = MetaData()
    root = table(metadata, "root", ("favourite_id", "child"))
    table(metadata, "child", ("root_id", "root"))

    with pytest.raises(UnsupportedStatement, match="'child', 'root' name each other in a circle"):
        co_located(root, root.c.id == 1, {"tenant": 2}, links(metadata))


def test_a_link_without_the_key_would_be_torn() -> None:
    metadata = MetaData()
    root = table(metadata, "root")
    other = table(metadata, "other", ("root_id", "root"))
    loose = Link(other, root, frozenset({(other.c.root_id, root.c.id)}))
    moved = co_located(root, root.c.id == 1, {"tenant": 2}, [loose])

    assert [each.table.name for each in moved] == ["root"]
    assert [link for link, _ in torn(moved, [loose])] == [loose]
