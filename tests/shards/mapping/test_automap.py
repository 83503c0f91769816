"""Automap: classes made from what a shard's catalog says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import MetaData, func, select, text
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import joinedload, selectinload
from sqlalchemy.orm.exc import UnmappedClassError

from sqlalchemy_shards import ShardKeyMixin, reference_table, shard_table

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

TABLES = """
CREATE TABLE country (code varchar(2) PRIMARY KEY, name text NOT NULL);
CREATE TABLE account (
    id bigint PRIMARY KEY, name text, country_code varchar(2) REFERENCES country
);
CREATE TABLE invoice (
    account_id bigint REFERENCES account, id bigint, total numeric(10, 2) DEFAULT 0,
    PRIMARY KEY (account_id, id)
);
CREATE TABLE tag (account_id bigint REFERENCES account, id bigint, PRIMARY KEY (account_id, id));
CREATE TABLE invoice_tag (
    account_id bigint, invoice_id bigint, tag_id bigint,
    PRIMARY KEY (account_id, invoice_id, tag_id),
    FOREIGN KEY (account_id, invoice_id) REFERENCES invoice,
    FOREIGN KEY (account_id, tag_id) REFERENCES tag
)
"""
ACCOUNTS = range(1, 9)


def make_models(say: Saying) -> Any:
    """Nothing: the databases have tables before the application has models."""
    return SimpleNamespace(metadata=MetaData())


@pytest.fixture(scope="module")
def _reflected(mapping_worlds: dict[str, World]) -> dict[str, Any]:
    for name in ("plain", "four_shards"):  # one shard lives where the plain database does
        world = mapping_worlds[name]
        options = {} if world.cluster is None else {"shard": "*"}
        with world.engine.begin() as connection:
            connection.execution_options(**options).execute(text(TABLES))
    return {name: _mapped(world) for name, world in mapping_worlds.items()}


def _mapped(world: World) -> Any:
    base = automap_base()
    # SQLAlchemy forgets a class that nobody holds.
    held = {} if world.cluster is None else {"tag": _named_before(base)}
    # The catalog of any shard; through the engine of the cluster it is the global shard's.
    base.prepare(autoload_with=world.engine)
    if world.cluster is not None:
        shard_table(base.classes.account, "id")
        shard_table(base.classes.invoice, "account_id")
        shard_table(base.metadata.tables["invoice_tag"], "account_id")
        reference_table(base.classes.country)
    return SimpleNamespace(metadata=base.metadata, **{**dict(base.classes.items()), **held})


def _named_before(base: Any) -> type[Any]:
    """A class whose columns are not known until the catalog is read."""

    class Tag(ShardKeyMixin, base):  # type: ignore[misc]
        __tablename__ = "tag"
        __shard_key__ = "account_id"

    return Tag


@pytest.fixture
def accounts(world: World, _reflected: dict[str, Any]) -> World:
    world.models = m = _reflected[world.name.replace(" ", "_")]
    with world.session() as session, session.begin():
        session.add(m.country(code="in", name="India"))
        session.flush()
        for number in ACCOUNTS:
            account = m.account(id=number, name=f"account {number}", country_code="in")
            tags = [m.tag(id=each) for each in (1, 2)]
            account.tag_collection = tags
            account.invoice_collection = [m.invoice(id=each, total=each) for each in (1, 2)]
            account.invoice_collection[0].tag_collection = list(tags)
            session.add(account)
    return world


def test_generated_relationships_load(accounts: World) -> None:
    m = accounts.models
    with accounts.session() as session:
        found = session.scalars(
            select(m.account)
            .options(
                joinedload(m.account.country),
                selectinload(m.account.invoice_collection).selectinload(m.invoice.tag_collection),
            )
            .order_by(m.account.id)
        ).all()
        seen = [
            (each.country.name, [len(one.tag_collection) for one in each.invoice_collection])
            for each in found
        ]

    assert seen == [("India", [2, 0])] * len(ACCOUNTS)


def test_rows_of_a_generated_secondary_table_move_with_their_collection(accounts: World) -> None:
    m = accounts.models
    with accounts.session() as session:
        for account in session.scalars(select(m.account)).all():
            first, second = sorted(account.invoice_collection, key=lambda each: each.id)
            second.tag_collection.append(first.tag_collection.pop())
        session.commit()

    rows = accounts.rows("SELECT invoice_id, count(*) FROM invoice_tag GROUP BY 1")
    totals = {number: sum(n for each, n in rows if each == number) for number in (1, 2)}
    assert totals == {1: 8, 2: 8}


def test_updates_and_deletes_of_generated_classes(accounts: World) -> None:
    m = accounts.models
    with accounts.session() as session:
        invoices = session.scalars(select(m.invoice).where(m.invoice.id == 2)).all()
        for invoice in invoices:
            invoice.total += 5
        session.delete(invoices[0])
        session.commit()
        count = session.scalar(select(func.count()).select_from(m.invoice))

    assert count == 15
    assert len(accounts.rows("SELECT * FROM invoice WHERE total = 7")) == 7


@pytest.mark.usefixtures("_reflected")
def test_any_shards_catalog_serves_for_all(mapping_worlds: dict[str, World]) -> None:
    cluster = mapping_worlds["four_shards"].cluster
    assert cluster is not None
    base = automap_base()

    base.prepare(autoload_with=cluster.shards["s3"].engine)

    assert sorted(base.classes.keys()) == ["account", "country", "invoice", "tag"]


def test_classes_are_declared_after_prepare() -> None:
    base = automap_base()

    class Account(base):  # type: ignore[misc, valid-type]
        __tablename__ = "account"

    with pytest.raises(UnmappedClassError, match=r"prepare\(\)"):
        shard_table(Account, "id")
