"""Each shard is given its own values of a list of keys, and the answer is that of one database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    and_,
    bindparam,
    case,
    delete,
    event,
    exists,
    func,
    not_,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import aliased, joinedload, selectinload

from tests.arrays import items_of
from tests.observing import told
from tests.shards.shop import CUSTOMERS, World, ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

LISTED = [7, 3, 11, 1, 12, 2]


@contextmanager
def dispatched(session: Session) -> Iterator[list[dict[str, Any]]]:
    """What each shard is given, as driver parameters, statement by statement."""
    found: list[dict[str, Any]] = []

    def note(decided: Any) -> None:
        found.append({work.shard: dict(work.parameters) for work in decided.works})

    with told(session.connection(), note):
        yield found


def homes(world: World, numbers: Any = LISTED) -> dict[str, set[int]]:
    """Shard -> the customers of a list that live there."""
    assert world.cluster is not None
    found: dict[str, set[int]] = {}
    for number in numbers:
        shard = world.cluster.shard_for(world.models.Customer, number)
        found.setdefault(shard, set()).add(number)
    return found


def sent(parameters: dict[str, dict[str, Any]], name: str = "id_1") -> dict[str, set[Any]]:
    """Shard -> the values of one list parameter, which is sent as an array."""
    return {shard: set(items(given[name])) for shard, given in parameters.items()}


def items(array: str) -> list[int | None]:
    """The whole numbers of an array."""
    return [None if item is None else int(item) for item in items_of(array)]


class TestWhatIsSent:
    def test_a_shard_is_given_its_own_values(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer.id).where(m.Customer.id.in_(LISTED))
        with spread_shop.session() as session, dispatched(session) as given:
            once = session.scalars(statement).all()
            twice = session.scalars(statement.where(true())).all()

        assert sorted(once) == sorted(twice) == sorted(LISTED)
        assert [sent(each) for each in given] == [homes(spread_shop)] * 2

    def test_the_sql_is_that_of_any_number_of_values(self, spread_shop: World) -> None:
        assert spread_shop.cluster is not None
        m = spread_shop.models
        explanation = spread_shop.cluster.explain(
            select(m.Customer.id).where(m.Customer.id.in_(LISTED))
        )

        assert {step.shard for step in explanation.steps} == set(homes(spread_shop))
        assert all("id = ANY (%(id_1)s::BIGINT[])" in step.sql for step in explanation.steps)

    def test_other_values_of_the_same_statement(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, dispatched(session) as given:
            for numbers in (LISTED, list(CUSTOMERS), [5, 6, 7, 8]):
                session.execute(select(m.Customer.id).where(m.Customer.id.in_(numbers))).all()

        assert [sent(each) for each in given] == [
            homes(spread_shop, numbers) for numbers in (LISTED, CUSTOMERS, [5, 6, 7, 8])
        ]

    def test_with_an_order_and_a_limit(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer).where(m.Customer.id.in_(LISTED))
        with spread_shop.session() as session, dispatched(session) as given:
            found = session.scalars(statement.order_by(m.Customer.id.desc()).limit(4)).all()

        assert ids(found) == [12, 11, 7, 3]
        assert sent(given[0]) == homes(spread_shop)

    def test_null_is_sent_everywhere(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, dispatched(session) as given:
            statement = select(m.Customer.id).where(m.Customer.id.in_([*LISTED, None]))
            found = session.scalars(statement).all()

        assert sorted(found) == sorted(LISTED)
        expected = {shard: {*own, None} for shard, own in homes(spread_shop).items()}
        assert sent(given[0]) == expected

    def test_a_list_of_a_joined_table(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer.id).join(m.Customer.orders)
        with spread_shop.session() as session, dispatched(session) as given:
            found = session.scalars(statement.where(m.Order.customer_id.in_(LISTED))).all()

        assert sorted(found) == sorted(LISTED * 2)
        assert sent(given[0], "customer_id_1") == homes(spread_shop)

    def test_two_lists(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer.id).join(m.Customer.orders)
        statement = statement.where(m.Customer.id.in_(LISTED), m.Order.customer_id.in_([1, 2, 4]))
        with spread_shop.session() as session, dispatched(session) as given:
            found = session.scalars(statement).all()

        assert sorted(found) == [1, 1, 2, 2]
        both = homes(spread_shop, [1, 2]).keys()
        assert given[0].keys() == both
        assert sent(given[0]) == {s: v for s, v in homes(spread_shop).items() if s in both}

    def test_the_loader_of_a_collection(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer).options(selectinload(m.Customer.orders))
        with spread_shop.session() as session, dispatched(session) as given:
            session.scalars(statement).all()

        assert sent(given[1], "primary_keys") == homes(spread_shop, CUSTOMERS)

    def test_update_and_delete(self, spread_shop: World) -> None:
        m = spread_shop.models
        orders = m.Order.customer_id.in_(LISTED)
        with spread_shop.session() as session, dispatched(session) as given:
            updated = session.execute(update(m.Order).where(orders).values(amount=7))
            deleted = session.execute(delete(m.Order).where(orders).returning(m.Order.id))
            gone = sorted(deleted.scalars().all())
            session.commit()

        assert updated.rowcount == 12
        assert gone == sorted(number * 10 + each for number in LISTED for each in (1, 2))
        assert [sent(each, "customer_id_1") for each in given] == [homes(spread_shop)] * 2
        assert len(spread_shop.rows("SELECT id FROM orders")) == 12


class TestWhatIsLeftWhole:
    """What is not one of the conditions that every row must meet, or is not surely so."""

    def statements(self, m: Any) -> dict[str, Any]:
        listed = m.Customer.id.in_(LISTED)
        numbers = bindparam("numbers", LISTED, expanding=True)
        other = aliased(m.Customer)
        ids_ = select(m.Customer.id)
        return {
            "or": ids_.where(or_(listed, m.Customer.name == "customer 5")),
            "not": ids_.where(not_(listed)),
            "not and": ids_.where(not_(and_(listed, m.Customer.version == 1))),
            "is false": ids_.where(listed.is_(False)),
            "in the columns": select(m.Customer.id, listed.label("is_listed")),
            "in a case": ids_.where(case((listed, 1), else_=0) == 0),
            "on of an outer join": select(m.Customer.id, m.Order.id).outerjoin(
                m.Order,
                and_(m.Order.customer_id == m.Customer.id, m.Order.customer_id.in_(LISTED)),
            ),
            "a parameter used twice": ids_.where(
                m.Customer.id.in_(numbers), m.Customer.version.in_(numbers)
            ),
            "a subquery": ids_.where(
                exists().where(other.id == m.Customer.id, other.id.not_in(LISTED))
            ),
        }

    @pytest.mark.parametrize(
        "name",
        [
            "or",
            "not",
            "not and",
            "is false",
            "in the columns",
            "in a case",
            "on of an outer join",
            "a parameter used twice",
            "a subquery",
        ],
    )
    def test_the_answer_is_that_of_one_database(
        self, plain: World, spread_shop: World, name: str
    ) -> None:
        plain.fill()
        answers = []
        for world in (plain, spread_shop):
            with world.session() as session:
                statement = self.statements(world.models)[name]
                answers.append(sorted(map(tuple, session.execute(statement)), key=repr))

        assert answers[0] == answers[1]
        assert answers[0]

    @pytest.mark.parametrize("name", ["or", "not", "in the columns", "a parameter used twice"])
    def test_every_shard_is_given_the_whole_list(self, spread_shop: World, name: str) -> None:
        statement = self.statements(spread_shop.models)[name]
        with spread_shop.session() as session, dispatched(session) as given:
            session.execute(statement).all()

        listed = "numbers" if "twice" in name else "id_1"
        assert [items(each[listed]) for each in given[0].values()] == [LISTED] * 4

    def test_a_statement_whose_shards_are_named(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer.id).where(m.Customer.id.in_(LISTED))
        with spread_shop.session() as session, dispatched(session) as given:
            session.execute(statement, execution_options={"shard": "*"}).all()

        assert sent(given[0]) == {shard: set(LISTED) for shard in spread_shop.urls}

    def test_sql_that_a_listener_has_changed(self, spread_shop: World) -> None:
        m = spread_shop.models

        def comment(*arguments: Any) -> tuple[str, Any]:
            return f"{arguments[2]} /* a comment */", arguments[3]

        event.listen(spread_shop.engine, "before_cursor_execute", comment, retval=True)
        with spread_shop.session() as session, dispatched(session) as given:
            statement = select(m.Customer.id).where(m.Customer.id.in_(LISTED))
            found = session.scalars(statement).all()
        event.remove(spread_shop.engine, "before_cursor_execute", comment)

        assert sorted(found) == sorted(LISTED)
        # What a listener has seen, each shard is given as it is.
        listed = [[v for key, v in each.items() if "id_1" in key] for each in given[0].values()]
        assert listed == [LISTED] * len(homes(spread_shop))


class TestAnswers:
    def test_statements_with_lists(self, shop: World) -> None:
        m = shop.models
        listed = m.Customer.id.in_(LISTED)
        with shop.session() as session:
            for _ in range(2):
                assert session.scalar(select(func.count()).where(listed)) == 6
                assert (
                    session.scalar(
                        select(func.sum(m.Order.amount)).where(m.Order.customer_id.in_(LISTED))
                    )
                    == 18
                )
                statement = select(m.Customer).options(joinedload(m.Customer.orders)).where(listed)
                found = session.scalars(statement.order_by(m.Customer.id)).unique().all()
                assert ids(found) == sorted(LISTED)
                assert all(len(each.orders) == 2 for each in found)
                rows = tuple_(m.Order.customer_id, m.Order.id).in_(
                    [(number, number * 10 + 1) for number in LISTED]
                )
                assert len(session.scalars(select(m.Order).where(rows)).all()) == 6

    def test_a_typed_list(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            documents = [m.Document(owner_id=number, title=str(number)) for number in CUSTOMERS]
            session.add_all(documents)
            session.flush()
            keys = [each.id for each in documents]
            statement = select(m.Document.title).where(
                m.Document.id.in_(keys[:6]), m.Document.owner_id.in_(LISTED)
            )
            found = session.scalars(statement).all()

        assert sorted(found) == ["1", "2", "3"]
