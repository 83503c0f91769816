"""`explain(analyze=True)`: a statement is run, each of its steps is measured, and all is undone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, func, insert, select, text, type_coerce, update
from sqlalchemy.exc import DataError, IntegrityError

from sqlalchemy_shards.errors import ConfigurationError, UnsupportedStatement
from sqlalchemy_shards.plan import ForeignOrder, Gather, Tier
from tests.shards.shop import CUSTOMERS, SHARDS, make_customer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards import Cluster, Explanation
    from tests.shards.shop import World


def analyzed(world: World, statement: Any, **options: Any) -> Explanation:
    return cluster_of(world).explain(statement, analyze=True, **options)


def cluster_of(world: World) -> Cluster:
    assert world.cluster is not None
    return world.cluster


def rows(explanation: Explanation, name: str) -> dict[str | None, int | None]:
    """Where a step was done -> its rows."""
    assert explanation.measured is not None
    return {step.shard: step.rows for step in explanation.measured.steps if step.name == name}


def sizes(explanation: Explanation, name: str) -> dict[str | None, int | None]:
    assert explanation.measured is not None
    return {step.shard: step.bytes for step in explanation.measured.steps if step.name == name}


def names(explanation: Explanation) -> list[str]:
    assert explanation.measured is not None
    return list(dict.fromkeys(step.name for step in explanation.measured.steps))


def homes(world: World, keys: Sequence[int] = CUSTOMERS) -> dict[str, list[int]]:
    """Shard -> the customers that live there."""
    found: dict[str, list[int]] = {name: [] for name in SHARDS}
    for key in keys:
        found[cluster_of(world).shard_for(world.models.Customer, key)].append(key)
    return found


class TestTiers:
    def test_a_single_shard_tells_its_rows_and_bytes(self, spread_shop: World) -> None:
        m = spread_shop.models
        home = cluster_of(spread_shop).shard_for(m.Customer, 5)

        found = analyzed(spread_shop, select(m.Customer.id, m.Customer.name).filter_by(id=5))

        assert found.tier is Tier.SINGLE_SHARD
        assert names(found) == ["plan", "connect", "run", "read"]
        assert rows(found, "run") == {home: 1}
        assert sizes(found, "run") == {home: len("5" + "customer 5")}
        assert found.measured.rows == 1  # type: ignore[union-attr]

    def test_a_merge_tells_what_each_shard_gave_and_what_is_left_of_it(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        found = analyzed(spread_shop, select(m.Customer.id).order_by(m.Customer.id).limit(2))

        assert names(found) == ["plan", "connect", "run", "merge"]
        assert rows(found, "run") == {
            name: min(2, len(keys)) for name, keys in homes(spread_shop).items()
        }
        assert rows(found, "merge") == {None: 2}

    def test_aggregates_are_one_row_of_each_shard(self, spread_shop: World) -> None:
        found = analyzed(spread_shop, select(func.count()).select_from(spread_shop.models.Order))

        assert rows(found, "run") == dict.fromkeys(SHARDS, 1)
        assert rows(found, "merge") == {None: 1}

    def test_a_gather_tells_what_is_shipped_and_what_the_workspace_makes_of_it(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        statement = select(func.row_number().over(order_by=m.Order.id)).where(m.Order.amount > 1)

        found = analyzed(spread_shop, statement)

        assert isinstance(found.merge, Gather)
        assert names(found) == ["plan", "connect", "ship", "workspace", "read"]
        assert rows(found, "ship") == {name: len(keys) for name, keys in homes(spread_shop).items()}
        assert rows(found, "workspace") == rows(found, "read") == {None: len(CUSTOMERS)}
        assert all(sizes(found, "ship").values())

    def test_an_order_of_postgresql_is_one_step_at_the_workspace(self, spread_shop: World) -> None:
        m = spread_shop.models

        found = analyzed(spread_shop, select(m.Customer.id).order_by(func.lower(m.Customer.name)))

        assert isinstance(found.merge, ForeignOrder)
        assert names(found) == ["plan", "connect", "run", "workspace", "merge"]
        assert rows(found, "workspace") == {None: len(CUSTOMERS)}

    def test_no_query_has_no_step_on_a_shard(self, spread_shop: World) -> None:
        m = spread_shop.models

        found = analyzed(spread_shop, select(m.Customer.id).where(m.Customer.id.in_([])))

        assert found.tier is Tier.NO_QUERY
        assert names(found) == ["plan", "read"]

    def test_rows_that_proved_not_to_merge_are_told_beside_those_that_were_shipped(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models

        found = analyzed(spread_shop, select(func.max(type_coerce(m.Customer.name, Integer))))

        assert found.tier is Tier.GATHER
        assert rows(found, "run") == dict.fromkeys(SHARDS, 1)
        assert rows(found, "ship").keys() == set(SHARDS)
        assert "├─ run: s0: 1 row" in str(found)

    def test_a_streamed_statement_counts_the_rows_of_each_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        streamed = select(m.Customer.id).order_by(m.Customer.id).execution_options(yield_per=2)

        found = analyzed(spread_shop, streamed)

        assert rows(found, "run") == {name: len(keys) for name, keys in homes(spread_shop).items()}
        assert set(sizes(found, "run").values()) == {None}
        assert rows(found, "merge") == {None: len(CUSTOMERS)}


class TestWritesAreUndone:
    def test_an_update_of_all_shards(self, spread_shop: World) -> None:
        m = spread_shop.models

        found = analyzed(spread_shop, update(m.Order).values(amount=99), shard="*")

        assert found.measured.rows == 2 * len(CUSTOMERS)  # type: ignore[union-attr]
        assert rows(found, "run") == {
            name: 2 * len(keys) for name, keys in homes(spread_shop).items()
        }
        assert spread_shop.rows("SELECT count(*) FROM orders WHERE amount = 99") == [(0,)] * 4

    def test_every_copy_of_a_reference_table(self, spread_shop: World) -> None:
        m = spread_shop.models

        found = analyzed(spread_shop, insert(m.Region).values(code="w", name="West"))

        assert found.tier is Tier.EVERY_COPY
        assert rows(found, "run") == dict.fromkeys(SHARDS, 1)
        assert spread_shop.rows("SELECT code FROM regions WHERE code = 'w'") == []

    def test_in_a_session_its_own_changes_stay(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.execute(update(m.Order).values(amount=7).execution_options(shard="*"))
            found = session.explain(  # type: ignore[attr-defined]
                update(m.Order).where(m.Order.amount == 7).values(amount=8),
                analyze=True,
                shard="*",
            )
            session.commit()

        assert found.measured.rows == 2 * len(CUSTOMERS)
        assert set(spread_shop.rows("SELECT DISTINCT amount FROM orders")) == {(7,)}

    def test_a_setting_of_the_transaction(self, spread_shop: World) -> None:
        with spread_shop.session() as session:
            session.explain(text("SET LOCAL app.tenant = 'even'"), analyze=True)  # type: ignore[attr-defined]
            told = session.execute(
                text("SELECT current_setting('app.tenant', true)"),
                execution_options={"shard": "*"},
            )
            left = set(told.scalars())

        assert left <= {"", None}


class TestInASession:
    def test_what_is_pending_is_flushed_and_counted(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer.id).where(m.Customer.id == 500)
        with spread_shop.session() as session:
            session.add(make_customer(m, 500))
            found = session.explain(statement, analyze=True)  # type: ignore[attr-defined]
            session.rollback()

        assert found.measured.rows == 1

    def test_nothing_is_flushed_where_autoflush_is_off(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer.id).where(m.Customer.id == 500)
        with spread_shop.session() as session, session.no_autoflush:
            session.add(make_customer(m, 500))
            found = session.explain(statement, analyze=True)  # type: ignore[attr-defined]

            assert found.measured.rows == 0
            assert session.new

    def test_objects_stay_as_they_are(self, spread_shop: World) -> None:
        m = spread_shop.models
        change = update(m.Customer).where(m.Customer.id == 5).values(name="changed")
        with spread_shop.session() as session:
            customer = session.get(m.Customer, 5)
            assert customer is not None
            session.explain(change, analyze=True)  # type: ignore[attr-defined]

            assert customer.name == "customer 5"
            assert customer in session
            assert not session.dirty

    def test_the_session_goes_on_after_an_error(self, spread_shop: World) -> None:
        m = spread_shop.models
        failing = select(1 / (m.Order.amount - m.Order.amount))
        with spread_shop.session() as session:
            session.execute(update(m.Order).values(amount=7).execution_options(shard="*"))
            with pytest.raises(DataError, match="division by zero"):
                session.explain(failing, analyze=True)  # type: ignore[attr-defined]
            session.commit()

        assert set(spread_shop.rows("SELECT DISTINCT amount FROM orders")) == {(7,)}

    def test_its_shards_need_not_be_connected_twice(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.scalars(select(m.Customer.id)).all()
            found = session.explain(select(m.Customer.id), analyze=True)  # type: ignore[attr-defined]

        assert names(found) == ["plan", "run", "merge"]

    def test_autocommit_is_refused_as_nothing_could_be_undone(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            with pytest.raises(UnsupportedStatement, match="AUTOCOMMIT"):
                session.explain(  # type: ignore[attr-defined]
                    update(m.Order).values(amount=7), analyze=True, shard="*"
                )

        assert spread_shop.rows("SELECT count(*) FROM orders WHERE amount = 7") == [(0,)] * 4


class TestInWords:
    def test_the_tree_has_what_was_measured_below_what_was_planned(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models

        first, *lines = str(analyzed(spread_shop, select(m.Customer.id))).splitlines()

        assert first == "scatter and merge: s0, s1, s2, s3, because the shard key is not known"
        assert [line.partition(":")[0] for line in lines] == [
            "├─ plan",
            "├─ connect",
            "├─ s0, s1, s2, s3",
            *(f"│    · {name}" for name in SHARDS),
            "├─ merge",
            "│    · 12 rows, " + lines[-2].partition(", ")[2],
            "└─ in all",
        ]

    def test_a_long_statement_has_a_line_for_each_clause(self, spread_shop: World) -> None:
        m = spread_shop.models
        wide = select(m.Customer).where(m.Customer.name != "").order_by(m.Customer.id).limit(3)

        lines = str(cluster_of(spread_shop).explain(wide)).splitlines()

        assert lines[1] == "├─ s0, s1, s2, s3:"
        assert lines[2].startswith("│    SELECT customers.id,")
        assert any(line.startswith("│    FROM customers") for line in lines)
        assert any(line.startswith("│    WHERE customers.name") for line in lines)
        assert max(map(len, lines)) <= 110

    def test_a_gather_says_why_shards_alone_cannot_answer(self, spread_shop: World) -> None:
        m = spread_shop.models
        ranked = cluster_of(spread_shop).explain(select(func.rank().over(order_by=m.Order.id)))

        assert "├─ why: a window function is not known to be the same on every shard" in str(ranked)
        assert ranked.as_dict()["obstacle"] == ranked.obstacle
        assert cluster_of(spread_shop).explain(select(m.Order.id)).obstacle is None

    def test_it_is_plain_values_for_json(self, spread_shop: World) -> None:
        m = spread_shop.models

        found = json.loads(json.dumps(analyzed(spread_shop, select(m.Customer.id)).as_dict()))

        assert found["measured"]["rows"] == len(CUSTOMERS)
        run = next(step for step in found["measured"]["steps"] if step["step"] == "run")
        assert run.keys() == {"step", "shard", "rows", "bytes", "milliseconds"}
        assert 0 < run["milliseconds"] < found["measured"]["milliseconds"]

    def test_what_was_not_run_has_no_measures(self, spread_shop: World) -> None:
        found = cluster_of(spread_shop).explain(select(spread_shop.models.Customer.id))

        assert found.measured is None
        assert "measured" not in found.as_dict()


class TestNothingIsLeft:
    def test_later_statements_are_not_observed(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            driver: Any = session.connection().connection.driver_connection
            session.explain(select(m.Customer.id), analyze=True)  # type: ignore[attr-defined]
            after_success = driver.observer
            with pytest.raises(IntegrityError):
                session.explain(  # type: ignore[attr-defined]
                    insert(m.Region).values(code="n", name="twice"), analyze=True
                )

            assert after_success is driver.observer is None

    def test_an_unknown_option_is_refused_before_anything_runs(self, spread_shop: World) -> None:
        m = spread_shop.models
        with pytest.raises(ConfigurationError, match="no option 'shrad'"):
            analyzed(spread_shop, update(m.Order).values(amount=7), shrad="*")

        assert spread_shop.rows("SELECT count(*) FROM orders WHERE amount = 7") == [(0,)] * 4
