"""The nouns of a dispatch: what is given, what it depends on, and what each shard is to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import psycopg
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.default import DefaultExecutionContext

    from sqlalchemy_shards.catalog.catalog import Catalog
    from sqlalchemy_shards.cluster.gather.gather import GatherStep
    from sqlalchemy_shards.cluster.gather.supplying import SupplyStep
    from sqlalchemy_shards.cluster.limits import GatherLimit
    from sqlalchemy_shards.cluster.moved_rows import Moving
    from sqlalchemy_shards.cluster.moved_sets import MovingSets
    from sqlalchemy_shards.cluster.plans import PlanCache
    from sqlalchemy_shards.plan import Merge
    from sqlalchemy_shards.planning.parts import Gathering, Question
    from sqlalchemy_shards.routing.route import Route
    from sqlalchemy_shards.routing.router import Locator, Territory
    from sqlalchemy_shards.routing.settings import Setting

    from .inserted import InsertedRows
    from .values import ExecutionValues


# Not frozen, as all three here: one of each is made for every statement, in a third of the time.
@dataclass(slots=True)
class Work:
    """What one shard is given to run."""

    shard: str
    sql: str
    parameters: Any
    is_many: bool = False


@dataclass(slots=True)
class Dispatch:
    """What all shards are given to run, and how their answers become one.

    :param works: none: the answer is known to have no rows.
    :param merge: None: one shard answers alone.
    :param values: parameter values by name, for LIMIT and OFFSET.
    :param writes: whether rows change; None: it cannot be told.
    :param is_ordered: the first shard runs before the others, so that two writers of the same
        rows meet there and not crosswise.
    :param is_raw: it is SQL text, of which nobody knows what else it does.
    :param believed: how many rows it touches at least, if what the locator said is right; None:
        the locator was not asked.
    :param description: DBAPI's description of the columns, where no shard is asked.
    :param limit: how many rows may be put in order at the workspace.
    :param gather: what the workspace runs over the rows that the shards ship.
    :param obstacle: why shards alone cannot answer, where they cannot.
    :param moving: the INSERT of the rows of a SELECT, which are read first.
    :param setting: it sets something for the transaction, also on shards that join later.
    :param supply: what the shards that write are given before.
    :param is_timed: they are to be told when the transaction began.
    """

    works: list[Work]
    route: Route
    merge: Merge | None = None
    values: Mapping[str, Any] | None = None
    writes: bool | None = None
    is_ordered: bool = False
    setting: Setting | None = None
    is_raw: bool = False
    believed: int | None = None
    description: list[Any] | None = None
    limit: GatherLimit | None = None
    gather: GatherStep | None = None
    obstacle: str | None = None
    supply: SupplyStep | None = None
    moving: Moving | MovingSets | None = None
    is_timed: bool = False


class Surroundings(Protocol):
    """What a dispatch depends on besides the statement; the cluster connection has it."""

    plans: PlanCache
    dialect: Dialect
    facts: Catalog
    scatter: str
    gather_limit: GatherLimit
    locator: Locator | None
    inserted: InsertedRows

    def ask(self, question: Callable[[psycopg.Connection[Any]], Any]) -> Any:
        """Ask the workspace something that changes nothing."""

    @property
    def territory(self) -> Territory:
        """The shards and their map, as they are now."""

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""

    @property
    def enlisted(self) -> Collection[str]:
        """The shards that take part in the transaction."""

    @property
    def rows_worth_waiting(self) -> int:
        """How many rows a shard must expect to be spared for keys to be worth a round trip."""

    def expected_rows(
        self,
        gathering: Gathering,
        questions: Mapping[Question, str],
        work_of: Callable[[Question, str], Work],
    ) -> Mapping[Question, int]:
        """How many rows statements would give, as the planners of their shards expect.

        :param questions: what is asked, and which shard.
        :param work_of: makes the statement in question.
        """


@dataclass(slots=True)
class Given:
    """One call of the dialect: SQL text, driver parameters and SQLAlchemy's context.

    :param can_look_again: its rows are counted, so that the locator's mistakes show.
    :param looks_again: the locator was mistaken about some of its rows.
    :param values: of a single execution, once they are read.
    """

    context: DefaultExecutionContext
    sql: str
    parameters: Any
    is_many: bool
    can_look_again: bool = True
    looks_again: bool = False
    values: ExecutionValues | None = None
