"""What finding the shard costs, and what checking the models costs: no server is asked.

The plan of each statement is there already, as it is from a statement's second execution on.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ForeignKey, bindparam, inspect, select
from sqlalchemy.orm import DeclarativeBase, configure_mappers, mapped_column, relationship

from sqlalchemy_shards import HashPartitioner, Keyspace, RangePartitioner, ShardKeyMixin
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.cluster.dispatch.by_key import shard_by_key
from sqlalchemy_shards.cluster.dispatch.values import ExecutionValues
from sqlalchemy_shards.cluster.plans import PlanCache
from sqlalchemy_shards.models.checks import check_mappers
from sqlalchemy_shards.routing.router import Territory, route_of
from sqlalchemy_shards.topology.shard_map import ShardMap

from .report import Figure
from .tables import Account
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Few, in many rounds: most slices then run undisturbed by what else the machine does.
CALLS = 20
ROUTE_US_MAX = 5.0
MODELS = 300
CHECKS_US_MAX = 1_000_000.0

SHARDS = ("s0", "s1", "s2", "s3")


def measure(*, rounds: int) -> Iterator[Figure]:
    """The route of statements that were seen before, and the checks of many models."""
    by_hash, by_range = Keyspace(HashPartitioner()), Keyspace(RangePartitioner([10, 20, 30]))
    one = select(Account).where(Account.id == bindparam("key"))
    several = select(Account).where(Account.id.in_(bindparam("keys", expanding=True)))
    between = select(Account).where(Account.id.between(bindparam("low"), bindparam("high")))
    ways: list[tuple[str, Callable[[], Any], bool]] = [
        ("route: one key, the quick way", _quick(one, by_hash, {"key": 5}), True),
        ("route: one key, the long way", _long(one, by_hash, {"key": 5}), False),
        ("route: IN of 10 keys", _long(several, by_hash, {"keys": [*range(10)]}), False),
        ("route: BETWEEN", _long(between, by_range, {"low": 5, "high": 15}), False),
    ]
    times = take_turns(
        [Contender(name, call) for name, call, _ in ways], rounds=rounds, calls=CALLS
    )
    for name, _, has_goal in ways:
        yield _against(name, times[name].typical, times[name].least, ROUTE_US_MAX, has_goal)
    checks = _checks()
    found = take_turns([Contender("checks", checks)], rounds=max(3, rounds // 100), calls=1)
    name = f"configuration checks of {MODELS} models"
    yield _against(name, found["checks"].typical, found["checks"].least, CHECKS_US_MAX, True)


def _against(name: str, typical: float, least: float, limit_us: float, has_goal: bool) -> Figure:
    own = typical * 1e6
    return Figure(
        name,
        "the goal",
        limit_us,
        own,
        own / limit_us,
        least * 1e6 / limit_us,
        f"{limit_us:,.0f} us" if has_goal else "",
        own <= limit_us if has_goal else None,
        is_ratio=False,
    )


def _prepared(statement: Any, keyspace: Keyspace) -> tuple[Any, PlanCache, Territory]:
    dialect = ShardsDialect()
    compiled = statement.compile(dialect=dialect)
    plans = PlanCache(dialect, undeclared_is_global=False)
    plans.plan_of(compiled)
    return compiled, plans, Territory(SHARDS, ShardMap.build({"default": keyspace}, SHARDS), "s0")


def _quick(statement: Any, keyspace: Keyspace, parameters: dict[str, Any]) -> Callable[[], Any]:
    """As a cursor asks, with what it asks for of SQLAlchemy's context."""
    compiled, plans, territory = _prepared(statement, keyspace)
    context: Any = SimpleNamespace(
        compiled=compiled,
        execution_options={},
        compiled_parameters=[parameters],
        current_parameters=None,
    )
    around: Any = SimpleNamespace(plans=plans, territory=territory)
    assert shard_by_key(context, around) in SHARDS
    return lambda: shard_by_key(context, around)


def _long(statement: Any, keyspace: Keyspace, parameters: dict[str, Any]) -> Callable[[], Any]:
    """As a dispatch asks: the values of this execution, then the route."""
    compiled, plans, territory = _prepared(statement, keyspace)

    def route() -> Any:
        plan = plans.plan_of(compiled)
        values = ExecutionValues(parameters, plan.processors)
        return route_of(plan.sources, territory, values, may_be_empty=True)

    assert route().shards
    return route


def _checks() -> Callable[[], None]:
    """Families of a parent and two children, each with relationships to and fro."""

    class Base(DeclarativeBase):
        pass

    # SQLAlchemy itself holds classes weakly.
    classes = [each for number in range(MODELS // 3) for each in _family(Base, number)]
    configure_mappers()
    mappers = [inspect(each) for each in classes]
    dialect = ShardsDialect()
    return lambda: check_mappers(mappers, dialect)


def _family(base: type[DeclarativeBase], number: int) -> Iterator[type[Any]]:
    parent, children = f"Parent{number}", (f"Left{number}", f"Right{number}")
    id_ = {"primary_key": True, "autoincrement": False}
    of_parent: dict[str, Any] = {
        "__tablename__": parent.lower(),
        "__shard_key__": "id",
        "id": mapped_column(BigInteger, **id_),
    }
    for child in children:
        of_parent[child.lower()] = relationship(child, back_populates="parent")
    yield type(parent, (ShardKeyMixin, base), of_parent)
    for child in children:
        columns: dict[str, Any] = {
            "__tablename__": child.lower(),
            "__shard_key__": "parent_id",
            "parent_id": mapped_column(ForeignKey(f"{parent.lower()}.id"), primary_key=True),
            "id": mapped_column(BigInteger, **id_),
            "parent": relationship(parent, back_populates=child.lower()),
        }
        columns |= {f"value_{each}": mapped_column(BigInteger) for each in range(10)}
        yield type(child, (ShardKeyMixin, base), columns)
