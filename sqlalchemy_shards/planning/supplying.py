"""An UPDATE or DELETE that reads rows of other shards -> what its shards are supplied with.

The shards that hold the target's rows run the statement, each over its own. Of the other tables
that it names, rows are brought to all of these shards, where they stand under the table's name, as
at the workspace. What every shard has is read there, and so is what lies beside the target.

A SELECT within the statement that names nothing around it is answered once for all shards, and its
rows stand in its place: so all shards see the same rows, also where it may choose among them.

`now()` and its kin are a parameter, so that all shards are told one moment.

SQL before:  UPDATE orders SET price = offers.price FROM offers
             WHERE offers.item = orders.item AND orders.id IN (SELECT id FROM picks LIMIT 5)
per shard:   WITH offers AS (...), shards_answer_1 AS (...)
             UPDATE orders SET price = offers.price FROM offers
             WHERE offers.item = orders.item AND orders.id IN (SELECT c0 FROM shards_answer_1)

The condition is asked where the rows are written, so that a row that has changed meanwhile is
judged as it is then. So what is brought depends on no row of the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Integer, Select, Text, bindparam, column, literal_column, select, table
from sqlalchemy.exc import CompileError, InvalidRequestError
from sqlalchemy.sql.selectable import CTE, CompoundSelect, Exists
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.routing.nested import is_cut_off
from sqlalchemy_shards.routing.scopes import unwrapped_query

from .blocks import NO_HEADS, may_choose_itself, written
from .checks import check_statement
from .derived import check_compiled_alike, names_with
from .deterministic import check_deterministic
from .elsewhere import TIMES
from .gathering import Rest, plan_gathering
from .nodes import nodes_of
from .refusal import Refusal
from .splits import Piece, Whole
from .splitting import NotSplittable
from .wire import as_text, is_shippable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy import Table

    from sqlalchemy_shards.routing.sources import StatementSources

    from .asked import Facts
    from .blocks import Block, Written
    from .parts import Gathering

ANSWER: Final = "shards_answer"
"""How the names of answers begin."""

ASK_FIRST: Final = "run the subquery first, and give its values to the statement"


ONE: Final = bindparam("one_row", 1, type_=Integer(), unique=True)
"""Called like one of the application's: an answer may be gathered, as a statement of its own."""

_TRUE: Final[Any] = literal_column("true")

_OF_TEXT: Final = ColumnType("pg_catalog.text", None, "text", holds=frozenset({"text"}))


class Answer(NamedTuple):
    """A SELECT within the statement that is answered before it is run.

    :param name: under which its rows stand.
    :param rows: gives them, each value as text.
    :param names: its parameters, and the names that they have in the statement.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[ColumnType, ...]
    rows: Select[Any]
    names: tuple[tuple[str, str], ...]


class Supply(NamedTuple):
    """What the shards that write are given.

    :param gathering: the rows that are shipped to them, and the statement that they run.
    """

    answers: tuple[Answer, ...]
    gathering: Gathering


def plan_supply(compiled: Any, sources: StatementSources, facts: Facts) -> Supply:
    """Plan an UPDATE or DELETE that shards can run if they are given rows of others.

    :param compiled: a `ShardsCompiler`, which knows what it has rendered.
    :raises Refusal: it would not be done as one database would.
    """
    target = sources.written
    assert target is not None
    statement = _compat.plain_write(_compat.core_statement(compiled))
    check_statement(statement, compiled)
    check_deterministic(statement, compiled, facts.catalog, further=TIMES)
    check_compiled_alike(statement, compiled)
    try:
        return _Planning(compiled, statement, target.stay, facts).done()
    except NotSplittable as error:
        raise Refusal(error.reason, error.advice) from None
    except (CompileError, InvalidRequestError) as error:
        raise Refusal("its subqueries cannot be answered one by one", ASK_FIRST) from error


class _Planning:
    def __init__(
        self, compiled: Any, statement: Any, stay: Collection[Table], facts: Facts
    ) -> None:
        self._compiled = compiled
        self._statement = statement
        self._stay = stay
        self._facts = facts
        self._whole = Whole(compiled, statement, facts)
        self._tested = {
            id(unwrapped_query(node))
            for node in nodes_of(statement, compiled)
            if isinstance(node, Exists)
        }
        self._answers: list[Answer] = []
        self._heads: dict[Any, Any] = {}

    def done(self) -> Supply:
        """Answer blocks until none is left that stands alone; what is read then is shipped."""
        left = self._written(())
        while (block := self._next(left)) is not None:
            self._heads[block.select] = self._answered(block, left)
            left = self._written(())
        self._check_left(left)
        rest = self._written(self._stay)
        gathering = plan_gathering(
            self._compiled,
            types_of=self._facts.columns_of,
            depending=self._facts.depending,
            rest=Rest(rest, {}),
            stay=self._stay,
        )
        if gathering.needs_tables:
            raise Refusal(
                "what it reads of other shards would have to stand in temporary tables, with which "
                "no transaction of several shards could be committed",
                "do not group by a primary key in its subqueries, nor use whole rows",
            )
        return Supply(tuple(self._answers), gathering)

    def _written(self, stay: Collection[Table], further: Mapping[Any, Any] = NO_HEADS) -> Written:
        return written(
            self._statement,
            self._compiled.dialect,
            {**self._heads, **further},
            column_keys=self._compiled.column_keys,
            stay=stay,
        )

    def _next(self, left: Written) -> Block | None:
        """The next block that is to be answered: those around others before what they name."""
        blocks = [
            each for each in left.blocks if not each.is_recursive and left.is_self_contained(each)
        ]
        last = [each for each in blocks if each.select in left.ctes]
        first = [each for each in blocks if each.select not in left.ctes]
        return next(filter(self._has_its_ctes_alone, (*first, *last)), None)

    def _has_its_ctes_alone(self, block: Block) -> bool:
        """Whether nothing else names the CTEs that a block names; else both must see one choice."""
        ctes = {node.element for node in iterate(block.final) if isinstance(node, CTE)}
        if not ctes:
            return True
        return ctes.isdisjoint(self._written((), {block.select: select(_TRUE)}).ctes)

    def _answered(self, block: Block, around: Written) -> Any:
        """Note how a block is answered; return what stands in its place."""
        name = f"{ANSWER}_{len(self._answers) + 1}"
        alone = self._whole.written(block.final)
        rows = block.final.subquery()
        is_tested = id(block.select) in self._tested
        types: tuple[ColumnType, ...] = (_OF_TEXT,)
        labels = ["c0"]
        if is_tested:
            asked: Any = select(literal_column("'1'", Text).label("c0")).select_from(rows)
            asked = asked.limit(ONE)
        else:
            piece = Piece(block, around, alone, name)
            labels = list(piece.labels)
            known = self._types(rows, alone)
            types = tuple(known)
            asked = select(
                *(
                    as_text(each, type_).label(f"c{place}")
                    for place, (each, type_) in enumerate(zip(rows.c, known, strict=True))
                )
            )
        asked = _compat.without_orm(asked)
        columns = tuple(f"c{place}" for place in range(len(types)))
        self._answers.append(Answer(name, columns, types, asked, self._names(asked)))
        relation = table(name, *map(column, columns))
        shown = zip(relation.c, labels, strict=True)
        return select(*(each.label(label) for each, label in shown))

    def _types(self, rows: Any, alone: Written) -> list[ColumnType]:
        numbered = select(*(each.label(f"c{place}") for place, each in enumerate(rows.c)))
        relations = self._whole.relations(alone.tables)
        typed = self._whole.derived(_compat.without_orm(numbered))
        found = self._facts.types_of(typed, relations, len(rows.c))
        known = [each for each in found if each is not None and is_shippable(each)]
        if len(known) < len(found):
            raise Refusal("what a subquery of it gives cannot be shipped", ASK_FIRST)
        return known

    def _names(self, rows: Select[Any]) -> tuple[tuple[str, str], ...]:
        """The keys of the parameters in a SELECT, and the names that they have in the statement."""
        compiled = self._whole.written(rows).compiled
        names: Mapping[Any, str] = names_with(self._compiled.bind_names, compiled)
        binds = [bind for bind in compiled.bind_names if bind is not ONE]
        if any(bind not in names for bind in binds):
            raise Refusal("its subqueries make parameters of their own when they are compiled")
        return tuple((bind.key, names[bind]) for bind in binds)

    def _check_left(self, left: Written) -> None:
        """Refuse what each shard would choose for itself, and could choose otherwise."""
        for block in left.blocks:
            alone = self._whole.written(block.final).blocks[0]
            # One that correlates chooses for a row, which is on one shard.
            if alone.froms == block.froms and may_choose_itself(block.final):
                raise Refusal(
                    "each shard would choose rows for itself, of a CTE that is named in a subquery",
                    ASK_FIRST,
                )
        what = "a recursive CTE" if any(block.is_recursive for block in left.blocks) else None
        if any(isinstance(node, CompoundSelect) and _is_limited(node) for node in self._left()):
            what = "LIMIT of a UNION"
        if what is not None:
            raise Refusal(f"{what} in it would be answered by each shard for itself", ASK_FIRST)

    def _left(self) -> Iterator[Any]:
        """What the statement is made of, without what is answered."""
        pending = [self._statement, *_compat.extra_froms(self._compiled)]
        while pending:
            node = pending.pop()
            yield node
            pending += [child for child in node.get_children() if not self._is_answered(child)]

    def _is_answered(self, node: Any) -> bool:
        return isinstance(node, Select) and node in self._heads


def _is_limited(query: CompoundSelect[Any]) -> bool:
    return is_cut_off(_compat.select_shape(query))
