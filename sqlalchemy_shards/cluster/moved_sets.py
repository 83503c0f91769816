"""INSERT ... SELECT with several parameter sets, where rows belong elsewhere than they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.sql.dml import Insert

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import ScatterNotAllowed
from sqlalchemy_shards.planning.moved_rows import user_values
from sqlalchemy_shards.planning.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.default import DefaultExecutionContext

    from .connection import ClusterConnection
    from .cursor import ClusterCursor

    Row = tuple[Any, ...]

_OPTIONS: Final = ("shard", "shard_key", "scatter", "gather_limit", "schema_translate_map")


class Inserted(NamedTuple):
    """What an INSERT gave.

    :param row_count: how many rows it counts.
    :param description: DBAPI's, of the rows that it returned; None: it returns none.
    """

    rows: list[Row]
    row_count: int
    description: Any


class MovingSets:
    """An INSERT with several parameter sets, which is run once for each of them.

    Each is a statement of its own, wherever its rows are made: what one has inserted, the next
    one's SELECT reads, as on one PostgreSQL.

    :raises Refusal: it cannot be run one by one.
    """

    def __init__(self, context: DefaultExecutionContext) -> None:
        compiled: Any = context.compiled
        self._context: Any = context
        self._insert = insert_of(context)
        made = set(_compat.client_side_defaults(compiled))  # which are made again
        given = (user_values(compiled, each) for each in context.compiled_parameters)
        self._sets = [
            {name: value for name, value in each.items() if name not in made} for each in given
        ]

    def perform(
        self, connection: ClusterConnection, _make_cursor: Callable[[], ClusterCursor]
    ) -> Inserted:
        """Run it, and add up the rows.

        :raises ScatterNotAllowed: each of them would be committed by itself.
        """
        if connection.autocommit:
            raise ScatterNotAllowed(
                "an INSERT of selected rows with several parameter sets in AUTOCOMMIT mode could "
                "be half done",
                "use a transaction",
            )
        options = {**kept_options(self._context), "preserve_rowcount": True}
        count = 0
        for place, values in enumerate(self._sets):
            try:
                with self._context.root_connection.execute(
                    self._insert, values, execution_options=options
                ) as result:
                    count += result.rowcount
            except BaseException as error:
                if place:
                    shard = getattr(error, "shard", None)
                    connection.fail(shard or connection.cluster.global_shard)
                raise
        return Inserted([], count, None)


def insert_of(context: DefaultExecutionContext) -> Any:
    """The INSERT that is executed, as it was given.

    :raises Refusal: something else was given.
    """
    insert = context.invoked_statement
    if not isinstance(insert, Insert):
        raise Refusal("SQLAlchemy compiles it differently once more")
    return insert


def kept_options(context: DefaultExecutionContext) -> dict[str, Any]:
    """The options of an execution that hold for the statements that it is made of."""
    options = context.execution_options
    return {name: options[name] for name in _OPTIONS if name in options}
