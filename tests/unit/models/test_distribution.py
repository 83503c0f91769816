from __future__ import annotations

import pickle

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, inspect, select

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.distribution import (
    Global,
    Reference,
    Sharded,
    distribution_of,
    note_distribution,
)

DISTRIBUTIONS = [Sharded(("tenant_id", "id"), "orders", True), Reference(), Global()]


def a_table() -> Table:
    return Table("things", MetaData(), Column("id", Integer, primary_key=True))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_what_was_noted_is_read_back(distribution):
    table = a_table()
    note_distribution(table, distribution)

    assert distribution_of(table) == distribution


def test_a_table_of_which_nothing_was_said_has_none():
    assert distribution_of(a_table()) is None


def test_an_alias_or_join_has_none():
    table = a_table()
    note_distribution(table, Reference())

    assert distribution_of(table.alias()) is None
    assert distribution_of(table.join(table.alias(), table.c.id == 1)) is None
    assert distribution_of(select(table).subquery()) is None


def test_noting_the_same_twice_is_fine():
    table = a_table()
    note_distribution(table, Sharded(("id",)))
    note_distribution(table, Sharded(("id",)))

    assert distribution_of(table) == Sharded(("id",))


def test_noting_something_else_is_refused():
    table = a_table()
    note_distribution(table, Sharded(("id",)))

    with pytest.raises(ConfigurationError, match="'things' is declared twice"):
        note_distribution(table, Reference())


def test_other_info_of_the_table_is_kept():
    table = Table("things", MetaData(), Column("id", Integer), info={"owner": "billing"})
    note_distribution(table, Reference())

    assert table.info["owner"] == "billing"


def test_a_copy_in_other_metadata_has_the_distribution():
    table = a_table()
    note_distribution(table, Reference())

    assert distribution_of(table.to_metadata(MetaData())) == Reference()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_a_distribution_can_be_pickled(distribution):
    assert pickle.loads(pickle.dumps(distribution)) == distribution


def test_an_annotated_copy_made_before_the_declaration_has_it(base):
    class Thing(base):
        __table__ = Table("things", base.metadata, Column("id", Integer, primary_key=True))

    annotated = inspect(Thing).__clause_element__()
    note_distribution(Thing.__table__, Reference())

    assert annotated is not Thing.__table__
    assert distribution_of(annotated) == Reference()
