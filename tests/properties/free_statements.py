"""A seed -> a statement, composed freely, and how far the order of its rows is determined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.properties.entities import Entities

if TYPE_CHECKING:
    from tests.properties.choices import Choices
    from tests.properties.scopes import Query

NAMED_ORDER = "key_"


@dataclass(frozen=True)
class FreeStatement:
    """A statement and what its answer must be.

    :param is_total: its order is decided by its ORDER BY.
    :param keys: indexes of columns that hold the sort keys.
    :param whole: the same without LIMIT and OFFSET, where these may pick any rows.
    :param is_loose: which of equal values stands for all of them is left to PostgreSQL.
    :param is_unique: its rows are objects with joined collections.
    """

    statement: Any
    is_total: bool = False
    keys: tuple[int, ...] = ()
    whole: Any = None
    is_loose: bool = False
    is_unique: bool = False


def free_statement(choices: Choices, turn: int, collation: str) -> FreeStatement:
    """Compose a statement; the same choices give the same one, with other values per turn."""
    composer = Entities(choices, turn, collation)
    if choices.chance(2):
        return FreeStatement(composer.failing(), is_loose=True)
    if choices.chance(18):
        return _entities(composer)
    composer.is_simple = choices.chance(35)
    query = composer.select(choices.pick((0, 1, 0, 2, 2, 3)))
    found = _ordered(composer, query)
    if choices.chance(12):
        return replace(found, statement=found.statement.execution_options(yield_per=4))
    return found


def _entities(composer: Entities) -> FreeStatement:
    statement, source = composer.entities()
    keys = source.keys or []
    statement = statement.order_by(*composer.ordered(source), *keys)
    if composer.choices.chance(30):
        statement = statement.limit(composer.rows())
    return FreeStatement(statement, is_total=True, is_unique=True)


def _ordered(composer: Entities, query: Query) -> FreeStatement:
    choices, statement = composer.choices, query.statement
    chosen = choices.some(query.candidates, 0, 2) if query.candidates else []
    is_total = choices.chance(60)
    places = []
    if query.is_open and chosen and not is_total:
        # Sort keys that are seen, so that the order can be checked where it is not total.
        places = list(range(len(query.columns), len(query.columns) + len(chosen)))
        shown = [each.expression.label(f"{NAMED_ORDER}{n}") for n, each in enumerate(chosen)]
        statement = statement.add_columns(*shown)
    elif all(each.place is not None for each in chosen):
        places = [each.place for each in chosen if each.place is not None]
    order = [composer.directed(each.expression) for each in chosen]
    if is_total:
        order += [composer.directed(each) for each in query.tiebreak]
    whole = statement
    statement = statement.order_by(*order) if order else statement
    is_cut = choices.chance(60 if composer.is_simple else 40)
    if is_cut:
        statement = _cut(composer, statement, is_ordered=bool(order))
        if is_total:
            for _, kind in query.columns:
                composer.choosing(kind)
    return FreeStatement(
        statement,
        is_total=is_total,
        keys=tuple(places),
        whole=whole if is_cut and not is_total else None,
        is_loose=composer.is_loose,
    )


def _cut(composer: Entities, statement: Any, *, is_ordered: bool) -> Any:
    choices = composer.choices
    if choices.chance(15):
        rows = composer.rows()
        return statement.fetch(rows, with_ties=is_ordered and choices.chance(50))
    statement = statement.limit(composer.rows())
    return statement.offset(composer.rows()) if choices.chance(50) else statement
