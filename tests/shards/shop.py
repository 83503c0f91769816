"""The shop of the tests: one set of models, said twice, and the databases that it runs on.

`UNDECLARED` models say nothing of shards, as an application's did before; `DECLARED` ones are
spread. All else about them is the same, so that a test can be run on one PostgreSQL by plain
SQLAlchemy, on a cluster of one shard, and on four shards, and must see no difference.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    Numeric,
    String,
    Table,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Session,
    backref,
    column_property,
    deferred,
    mapped_column,
    relationship,
)

from sqlalchemy_shards import (
    GlobalMixin,
    ReferenceMixin,
    ShardedSession,
    ShardKeyMixin,
    shard_table,
)
from tests.databases import ask, connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster

SHARDS = ("s0", "s1", "s2", "s3")

# What `World.fill` fills; the other columns have defaults of the server.
FILLED = {
    "regions": ("code", "name"),
    "customers": ("id", "name", "region_code", "notes", "version"),
    "orders": ("customer_id", "id", "amount"),
    "labels": ("customer_id", "id", "text"),
}

# Many enough that every shard has customers; few enough to be read.
CUSTOMERS = range(1, 13)


class _Nothing:
    """Stands where a mixin would."""


def make_models(*, declared: bool) -> Any:
    """Return the shop's classes, spread over shards or saying nothing about them."""
    sharded = ShardKeyMixin if declared else _Nothing
    reference = ReferenceMixin if declared else _Nothing
    global_ = GlobalMixin if declared else _Nothing

    class Base(DeclarativeBase):
        pass

    class Region(reference, Base):  # type: ignore[misc, valid-type]
        __tablename__ = "regions"
        code = mapped_column(String(8), primary_key=True)
        name = mapped_column(String, nullable=False)

    class Customer(sharded, Base):  # type: ignore[misc, valid-type]
        __tablename__ = "customers"
        __shard_key__ = "id"
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name = mapped_column(String, nullable=False)
        region_code = mapped_column(ForeignKey("regions.code"))
        notes = deferred(mapped_column(String))
        # Made by the server; each value tells which database made it.
        home = mapped_column(String, server_default=text("current_database()"))
        created = mapped_column(DateTime(timezone=True), server_default=func.now())
        version = mapped_column(Integer, nullable=False)
        region = relationship(Region, backref="customers")
        orders = relationship(
            "Order",
            back_populates="customer",
            cascade="all, delete-orphan",
            order_by="Order.id",
        )
        labels = relationship(
            "Label", back_populates="customer", cascade="all, delete-orphan", order_by="Label.id"
        )
        topics = relationship("Topic", secondary="customer_topics", order_by="Topic.code")
        __mapper_args__ = {"version_id_col": version}

    class Order(sharded, Base):  # type: ignore[misc, valid-type]
        __tablename__ = "orders"
        __shard_key__ = "customer_id"
        customer_id = mapped_column(ForeignKey("customers.id"), primary_key=True)
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        amount = mapped_column(Integer, nullable=False)
        doubled = mapped_column(Integer, Computed("amount * 2", persisted=True))
        tripled = column_property(amount * 3)
        status = mapped_column(String, server_default="new")
        customer = relationship(Customer, back_populates="orders")
        labels = relationship(
            "Label",
            secondary="order_labels",
            primaryjoin="and_(Order.customer_id == order_labels.c.customer_id, "
            "Order.id == order_labels.c.order_id)",
            secondaryjoin="and_(Label.customer_id == order_labels.c.customer_id, "
            "Label.id == order_labels.c.label_id)",
            backref=backref("orders", order_by="Order.id", overlaps="orders"),
            order_by="Label.id",
            overlaps="orders",
        )

    class Label(sharded, Base):  # type: ignore[misc, valid-type]
        __tablename__ = "labels"
        __shard_key__ = "customer_id"
        customer_id = mapped_column(ForeignKey("customers.id"), primary_key=True)
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        text = mapped_column(String, nullable=False)
        customer = relationship(Customer, back_populates="labels")

    order_labels = Table(
        "order_labels",
        Base.metadata,
        Column("customer_id", BigInteger, primary_key=True),
        Column("order_id", BigInteger, primary_key=True),
        Column("label_id", BigInteger, primary_key=True),
        ForeignKeyConstraint(["customer_id", "order_id"], ["orders.customer_id", "orders.id"]),
        ForeignKeyConstraint(["customer_id", "label_id"], ["labels.customer_id", "labels.id"]),
    )

    class Topic(reference, Base):  # type: ignore[misc, valid-type]
        __tablename__ = "topics"
        code = mapped_column(String(8), primary_key=True)
        customers = relationship(
            Customer, secondary="customer_topics", overlaps="topics", order_by=Customer.id
        )

    customer_topics = Table(
        "customer_topics",
        Base.metadata,
        Column("customer_id", ForeignKey("customers.id"), primary_key=True),
        Column("topic_code", ForeignKey("topics.code"), primary_key=True),
    )

    class Comment(sharded, Base):  # type: ignore[misc, valid-type]
        """Refers to itself, beside its customer."""

        __tablename__ = "comments"
        __shard_key__ = "customer_id"
        __table_args__ = (
            ForeignKeyConstraint(
                ["customer_id", "parent_id"], ["comments.customer_id", "comments.id"]
            ),
        )
        customer_id = mapped_column(BigInteger, primary_key=True)
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        parent_id = mapped_column(BigInteger)
        text = mapped_column(String)
        replies = relationship(
            "Comment",
            primaryjoin="and_(Comment.customer_id == remote(foreign(Comment.customer_id)), "
            "Comment.id == remote(foreign(Comment.parent_id)))",
            order_by="Comment.id",
            backref=backref(
                "parent",
                primaryjoin="and_(remote(Comment.customer_id) == foreign(Comment.customer_id), "
                "remote(Comment.id) == foreign(Comment.parent_id))",
            ),
        )

    class Payment(sharded, Base):  # type: ignore[misc, valid-type]
        __tablename__ = "payments"
        __shard_key__ = "customer_id"
        customer_id = mapped_column(BigInteger, primary_key=True)
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        kind = mapped_column(String, nullable=False)
        amount = mapped_column(Integer, nullable=False)
        __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "cash"}

    class CardPayment(Payment):
        __tablename__ = "card_payments"
        __table_args__ = (
            ForeignKeyConstraint(["customer_id", "id"], ["payments.customer_id", "payments.id"]),
        )
        customer_id = mapped_column(BigInteger, primary_key=True)
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        card = mapped_column(String)
        __mapper_args__ = {"polymorphic_identity": "card"}

    class VoucherPayment(Payment):
        voucher = mapped_column(String)
        __mapper_args__ = {"polymorphic_identity": "voucher"}

    class Document(sharded, Base):  # type: ignore[misc, valid-type]
        """Its primary key does not hold the shard key."""

        __tablename__ = "documents"
        __shard_key__ = "owner_id"
        id = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
        owner_id = mapped_column(BigInteger, nullable=False)
        title = mapped_column(String)
        body = deferred(mapped_column(String))
        home = mapped_column(String, server_default=text("current_database()"))

    class Flag(global_, Base):  # type: ignore[misc, valid-type]
        __tablename__ = "flags"
        id = mapped_column(Integer, primary_key=True)
        name = mapped_column(String)

    class Ledger(sharded, Base):  # type: ignore[misc, valid-type]
        """A decimal, and a constraint that only the commit checks."""

        __tablename__ = "ledgers"
        __shard_key__ = "customer_id"
        customer_id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        balance = mapped_column(Numeric(12, 2), nullable=False)
        parent_id = mapped_column(
            BigInteger,
            ForeignKey(
                "ledgers.customer_id",
                deferrable=True,
                initially="DEFERRED",
                info={"per_shard": True},
            ),
        )

    if declared:
        shard_table(order_labels, key="customer_id")
        shard_table(customer_topics, key="customer_id")
    classes = (Region, Customer, Order, Label, Topic, Comment, Payment, CardPayment)
    more = (VoucherPayment, Document, Flag, Ledger)
    return SimpleNamespace(
        metadata=Base.metadata,
        Base=Base,
        order_labels=order_labels,
        customer_topics=customer_topics,
        **{each.__name__: each for each in (*classes, *more)},
    )


UNDECLARED = make_models(declared=False)
DECLARED = make_models(declared=True)


@dataclass
class World:
    """Somewhere the shop's models live: `session()` and `engine` are used alike everywhere."""

    name: str
    models: Any
    engine: Engine
    urls: dict[str, str]
    cluster: Cluster | None = None
    view: View | None = None
    # Database -> the statements that fill it again; shared by the worlds of the same databases.
    filling: dict[str, str] | None = None

    def session(self, **arguments: Any) -> Session:
        if self.cluster is None:
            return Session(**{"bind": self.engine, **arguments})
        return ShardedSession(self.cluster, **arguments)

    @property
    def is_spread(self) -> bool:
        return self.cluster is not None and len(self.cluster.shards) > 1

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of all databases, read beside SQLAlchemy, in order."""
        found: list[tuple[Any, ...]] = []
        for name in self.urls:
            found += self._ask(name, query)
        return sorted(found)

    def rows_by_shard(self, query: str) -> dict[str, list[tuple[Any, ...]]]:
        return {name: sorted(self._ask(name, query)) for name in self.urls}

    def fill(self) -> None:
        """Twelve customers with two orders and two labels each, in two regions.

        A session stores them the first time; then the same rows are put where it put them.
        """
        if self.filling:
            for name, statements in self.filling.items():
                self._ask(name, statements)
        else:
            self._store()
            if self.filling is not None:
                self.filling.update({name: self._statements(name) for name in self.urls})

    def _ask(self, name: str, query: str) -> list[tuple[Any, ...]]:
        view = self.view
        return ask(self.urls[name], query) if view is None else view.ask(self.urls[name], query)

    def _statements(self, name: str) -> str:
        statements = []
        for table, columns in FILLED.items():
            names, places = ", ".join(columns), ", ".join(["%L"] * len(columns))
            query = f"SELECT string_agg(format('({places})', {names}), ', ') FROM {table}"
            [(values,)] = self._ask(name, query)
            if values is not None:
                statements.append(f"INSERT INTO {table} ({names}) VALUES {values}")
        return "; ".join(statements)

    def _store(self) -> None:
        models = self.models
        with self.session() as session, session.begin():
            session.add_all(
                [models.Region(code="n", name="North"), models.Region(code="s", name="South")]
            )
            session.flush()
            session.add_all([make_customer(models, number) for number in CUSTOMERS])


def make_customer(models: Any, number: int) -> Any:
    return models.Customer(
        id=number,
        name=f"customer {number}",
        region_code="ns"[number % 2],
        notes=f"notes {number}",
        orders=[models.Order(id=number * 10 + each, amount=each) for each in (1, 2)],
        labels=[models.Label(id=each, text=f"label {number}.{each}") for each in (1, 2)],
    )


class View:
    """Runs SQL beside SQLAlchemy, in a connection to each database that is kept."""

    def __init__(self) -> None:
        self._connections: dict[str, psycopg.Connection[Any]] = {}

    def ask(self, url: str, query: str) -> list[tuple[Any, ...]]:
        cursor = self._connection(url).execute(query.encode())
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _connection(self, url: str) -> psycopg.Connection[Any]:
        kept = self._connections.get(url)
        if kept is not None:
            try:
                kept.execute("")
            except psycopg.OperationalError:  # its server was stopped, or its session ended
                kept.close()
            else:
                return kept
        self._connections[url] = connect(url)
        return self._connections[url]


def enlisted(session_or_connection: Any) -> set[str]:
    """Names of the shards that take part in the current transaction."""
    connection = session_or_connection
    if isinstance(connection, Session):
        connection = connection.connection()
    return set(connection.connection.driver_connection.enlisted)


class Statements:
    """The SQL that an engine is given, in order: ``with Statements(engine) as statements``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.texts: list[str] = []

    def __enter__(self) -> Statements:
        event.listen(self.engine, "before_cursor_execute", self._note)
        return self

    def __exit__(self, *error: object) -> None:
        event.remove(self.engine, "before_cursor_execute", self._note)

    def _note(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any
    ) -> None:
        self.texts.append(statement)

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)


def ids(objects: Sequence[Any]) -> list[Any]:
    return [each.id for each in objects]
