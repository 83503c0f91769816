"""A row and what hangs on it by the shard key, over the tables of its metadata: pure.

A *link* is a foreign key, or a relationship that is mapped without one. Where it equates the shard
keys of both tables, the rows that name a moved row move with it, and take its new key; so do rows
that lie beside it. Any other link would be torn, if there are rows that it joins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, and_, exists, select, tuple_
from sqlalchemy.orm import RelationshipDirection

from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.models.distribution import Sharded, anchor_of, distribution_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Column, ColumnElement
    from sqlalchemy.orm import Mapper

    Pairs = frozenset[tuple[Column[Any], Column[Any]]]


@dataclass(frozen=True, slots=True)
class Link:
    """Rows of ``child`` name rows of ``parent``.

    :param pairs: (column of the child, column of the parent) that are equal.
    """

    child: Table
    parent: Table
    pairs: Pairs

    @property
    def carries_key(self) -> bool:
        """Whether the two rows have one shard key, because the link equates it."""
        one, other = distribution_of(self.child), distribution_of(self.parent)
        if not isinstance(one, Sharded) or not isinstance(other, Sharded):
            return False
        if one.beside is not None:
            return anchor_of(self.child, one) in (self.parent, anchor_of(self.parent, other))
        if one.keyspace != other.keyspace or other.beside is not None:
            return False
        keys = zip(one.key, other.key, strict=False)
        return len(one.key) == len(other.key) and all(
            (self.child.c[mine], self.parent.c[theirs]) in self.pairs for mine, theirs in keys
        )


@dataclass(slots=True)
class Moved:
    """The rows of one table that move.

    :param condition: what they are, as a condition on their table.
    :param changes: the values that columns have afterwards.
    """

    table: Table
    condition: ColumnElement[bool]
    changes: dict[Column[Any], Any] = field(default_factory=dict)


def links_of(mapper: Mapper[Any]) -> set[Link]:
    """Every link between the tables that a mapper's registry and metadata know."""
    found = set()
    for table in mapper.base_mapper.local_table.metadata.tables.values():  # type: ignore[attr-defined]
        for constraint in table.foreign_key_constraints:
            pairs = frozenset((each.parent, each.column) for each in constraint.elements)
            found.add(Link(table, constraint.referred_table, pairs))
    for each in mapper.registry.mappers:
        found.update(_links_of_relationships(each))
    return found


def co_located(
    table: Table, identity: ColumnElement[bool], key: Mapping[str, Any], links: Iterable[Link]
) -> list[Moved]:
    """What moves with a row, in an order in which each table comes after those that it names.

    :param identity: names the row.
    :param key: the new shard key, by columns of ``table``.
    :raises UnsupportedStatement: tables name each other in a circle.
    """
    carrying = [link for link in links if link.carries_key]
    order = _in_order(table, carrying)
    root = Moved(table, identity, {table.c[name]: value for name, value in key.items()})
    moved = {table: root}
    for each in order:
        upward = [link for link in carrying if link.child is each and link.parent in moved]
        if each is not table:
            condition = [_names(link, moved[link.parent]) for link in upward if link.parent != each]
            moved[each] = Moved(each, _any(condition))
        for link in upward:
            if link.parent is each:
                _add_own_descendants(moved[each], link)
            for mine, theirs in link.pairs:
                if theirs in moved[link.parent].changes:
                    moved[each].changes[mine] = moved[link.parent].changes[theirs]
    return [moved[each] for each in order]


def torn(moved: Iterable[Moved], links: Iterable[Link]) -> Iterator[tuple[Link, Any]]:
    """The links that would not hold afterwards, each with the condition on the child's rows."""
    rows = {each.table: each for each in moved}
    for link in links:
        parent = rows.get(link.parent)
        if parent is None or link.carries_key:
            continue
        condition = _names(link, parent)
        if link.child in rows:
            condition = and_(condition, ~rows[link.child].condition)
        if not isinstance(distribution_of(link.child), Sharded):
            continue
        yield link, condition


def _links_of_relationships(mapper: Mapper[Any]) -> Iterator[Link]:
    for relation in mapper.relationships:
        if relation.viewonly or relation.secondary is not None:
            continue  # a secondary table has its own foreign keys
        pairs: Any = relation.local_remote_pairs or ()
        if relation.direction is RelationshipDirection.ONETOMANY:
            turned = frozenset((remote, local) for local, remote in pairs)
        else:
            turned = frozenset(pairs)
        children = {child.table for child, _ in turned}
        parents = {parent.table for _, parent in turned}
        if len(children) == len(parents) == 1:
            yield Link(children.pop(), parents.pop(), turned)


def _in_order(root: Table, links: list[Link]) -> list[Table]:
    """The tables below ``root``, each after all those that it names."""
    below, pending = {root}, [root]
    while pending:
        here = pending.pop()
        for link in links:
            if link.parent is here and link.child not in below:
                below.add(link.child)
                pending.append(link.child)
    order: list[Table] = []
    while len(order) < len(below):
        ready = [
            each
            for each in below.difference(order)
            if all(
                link.parent in order or link.parent is each or link.parent not in below
                for link in links
                if link.child is each
            )
        ]
        if not ready:
            names = ", ".join(sorted(repr(each.fullname) for each in below.difference(order)))
            raise UnsupportedStatement(
                f"tables {names} name each other in a circle, so that their rows cannot be moved "
                "to another shard key one table after the other",
                "delete the rows and insert them under the new key",
            )
        order.extend(sorted(ready, key=lambda each: each.fullname))
    return order


def _names(link: Link, parent: Moved) -> ColumnElement[bool]:
    """The child's rows that name one of the parent's moved rows."""
    if link.child is link.parent:
        other = link.parent.alias()
        pairs = [mine == other.c[theirs.key] for mine, theirs in link.pairs]
        keys = list(link.parent.primary_key)
        inner = select(*keys).where(parent.condition)
        chosen = tuple_(*(other.c[key.key] for key in keys)).in_(inner)
        return exists().select_from(other).where(*pairs, chosen)
    pairs = [mine == theirs for mine, theirs in link.pairs]
    return exists().select_from(link.parent).where(*pairs, parent.condition)


def _any(conditions: list[ColumnElement[bool]]) -> ColumnElement[bool]:
    found = conditions[0]
    for each in conditions[1:]:
        found = found | each
    return found


def _add_own_descendants(moved: Moved, link: Link) -> None:
    """Let a table's rows that name its moved rows move, too, and those that name them."""
    table = moved.table
    columns = list(dict.fromkeys([*table.primary_key, *(theirs for _, theirs in link.pairs)]))
    chosen = select(*columns).where(moved.condition).cte(recursive=True)
    below = table.alias()
    pairs = [below.c[mine.key] == chosen.c[theirs.key] for mine, theirs in link.pairs]
    more = select(*(below.c[each.key] for each in columns)).join(chosen, and_(*pairs))
    everything = chosen.union(more)
    keys = list(table.primary_key)
    moved.condition = tuple_(*keys).in_(select(*(everything.c[each.key] for each in keys)))
