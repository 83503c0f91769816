"""Processes of an application, of one version or another, on shards that are being migrated."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from sqlalchemy_shards import Cluster, create_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping


class Fleet:
    """Four shards, and the processes on them."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._clusters: list[Cluster] = []
        self.shards = tuple(urls)

    def start(self, model: Any) -> Process:
        """Start a process of the version that has this model."""
        return Process(self._cluster(), model)

    def upgrade(self, revision: str, *shards: str) -> None:
        """Run ``alembic -x shards=... upgrade``, on all shards or on some."""
        names = ",".join(shards or self.shards)
        config = Config(cmd_opts=Namespace(x=[f"shards={names}"]))
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["cluster"] = self._cluster()
        command.upgrade(config, revision)

    def stop(self) -> None:
        """Stop all processes and forget the tables."""
        administration = self._cluster()
        for shard in administration.shards.values():
            with shard.engine.begin() as connection:
                connection.exec_driver_sql("DROP TABLE IF EXISTS customers, alembic_version")
        for cluster in self._clusters:
            cluster.dispose()

    def _cluster(self) -> Cluster:
        cluster = create_cluster(self._urls, name="crm")
        self._clusters.append(cluster)
        return cluster


class Process:
    """A process of the application: it has a cluster of its own, with whatever it has looked at."""

    def __init__(self, cluster: Cluster, model: Any) -> None:
        self._cluster = cluster
        self._model = model

    def add(self, customers: Mapping[int, str]) -> None:
        """Write customers on all shards: half of them as objects, half by a bulk INSERT."""
        model, labelled = self._model, self._model.labelled
        rows = [{"id": key, **labelled(label)} for key, label in customers.items()]
        with Session(self._cluster.engine) as session, session.begin():
            session.add_all(model(**row) for row in rows[::2])
            returned = session.scalars(insert(model).returning(model.id), rows[1::2])
            assert sorted(returned) == sorted(row["id"] for row in rows[1::2])

    def rename(self, key: int, label: str) -> None:
        """Write one customer."""
        model = self._model
        with Session(self._cluster.engine) as session, session.begin():
            changed = update(model).where(model.id == key).values(**model.labelled(label))
            session.execute(changed)

    def read(self) -> dict[int, str]:
        """All customers: rows merged in order, and the same, gathered, with their numbers."""
        model = self._model
        numbered = select(model.id, model.label, func.row_number().over(order_by=model.label))
        with Session(self._cluster.engine) as session:
            merged = session.scalars(select(model).order_by(model.id)).all()
            gathered = session.execute(numbered).all()
            count = session.scalar(select(func.count()).select_from(model))
        found = {customer.id: customer.label for customer in merged}
        assert {key: label for key, label, _ in gathered} == found
        assert sorted(number for *_, number in gathered) == list(range(1, len(found) + 1))
        assert count == len(found)
        return found
