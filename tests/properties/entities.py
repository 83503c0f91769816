"""SELECTs of the ORM: objects with everything that is loaded beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import (
    Bundle,
    aliased,
    contains_eager,
    defer,
    joinedload,
    load_only,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
    with_polymorphic,
)

from tests.properties.scopes import KINDS, ORDERED, Field, Scope, Source, of_kind
from tests.properties.selects import Selects
from tests.properties.world import Bike, Car, Country, Document, Order, Page, User, Vehicle

if TYPE_CHECKING:
    from collections.abc import Callable

LOADERS = (selectinload, joinedload, subqueryload)


class Entities(Selects):
    """Composes statements that return mapped objects.

    Each gives the statement and the expressions that order its rows totally.
    """

    def entities(self) -> tuple[Any, Source]:
        ways: list[Callable[[], tuple[Any, Source]]] = [
            self._whole,
            self._with_collections,
            self._contained,
            self._polymorphic,
            self._with_column,
            self._from_subquery,
        ]
        return self.choices.pick(ways)()

    def _entity(self, entity: Any, model: type[Any]) -> Source:
        fields = [
            Field(getattr(entity, c.key), KINDS[c.key]) for c in model.__table__.c if c.key in KINDS
        ]
        keys = [getattr(entity, c.key) for c in model.__table__.primary_key.columns]
        return Source(entity, fields, keys, model, lambda name: getattr(entity, name))

    def _filtered(self, query: Any, source: Source) -> Any:
        if self.choices.chance(70):
            query = query.where(self.condition(Scope([source]), 2))
        return query

    def _whole(self) -> tuple[Any, Source]:
        model = self.choices.pick((User, Order, Document, Country))
        entity = aliased(model) if self.choices.chance(50) else model
        source = self._entity(entity, model)
        query = self._filtered(select(entity), source)
        if model is User:
            option = self.choices.pick((None, load_only, defer, undefer))
            if option is load_only:
                query = query.options(load_only(entity.name, entity.score))
            elif option is defer:
                query = query.options(defer(entity.price))
            elif option is undefer:
                query = query.options(undefer(entity.order_count))
        if self.choices.chance(15):
            criteria = with_loader_criteria(Order, Order.amount == self.value("int"))
            query = query.options(criteria)
        return query, source

    def _with_collections(self) -> tuple[Any, Source]:
        entity: Any
        model: type[Any]
        if self.choices.chance(30):
            model, entity = Document, Document
            options = [self.choices.pick(LOADERS)(Document.pages)]
        elif self.choices.chance(30):
            model, entity = Order, Order
            way = self.choices.pick(LOADERS)
            options = [way(Order.user).options(self.choices.pick(LOADERS)(User.country))]
        else:
            model, entity = User, User
            options = [self.choices.pick(LOADERS)(User.orders)]
            if self.choices.chance(40):
                options.append(self.choices.pick(LOADERS)(User.country))
            if self.choices.chance(30):
                some = User.orders.and_(Order.amount.is_not(None))
                options = [self.choices.pick(LOADERS)(some)]
        source = self._entity(entity, model)
        return self._filtered(select(entity), source).options(*options), source

    def _contained(self) -> tuple[Any, Source]:
        source, orders = self._entity(User, User), self._entity(Order, Order)
        query = select(User).join(User.orders, isouter=self.choices.chance(50))
        query = query.options(contains_eager(User.orders))
        both = Source(User, [*source.fields, *orders.fields], source.keys)
        query = self._filtered(query, both)
        return query.order_by(*source.keys or (), Order.id), Source(User, [], source.keys)

    def _polymorphic(self) -> tuple[Any, Source]:
        if self.choices.chance(40):
            entity = with_polymorphic(Vehicle, [Bike, Car], aliased=self.choices.chance(50))
            source = self._entity(entity, Vehicle)
            seats = Field(entity.Car.seats, "int")
            source.fields += [seats, Field(entity.Bike.gears, "int")]
            return self._filtered(select(entity), source), source
        model = self.choices.pick((Vehicle, Car, Bike))
        source = self._entity(model, Vehicle)
        query = self._filtered(select(model), source)
        if model is Vehicle:
            query = query.options(selectin_polymorphic(Vehicle, [Bike, Car]))
        return query, source

    def _with_column(self) -> tuple[Any, Source]:
        source = self._entity(User, User)
        scalar = self.scalar(Scope([source]), 1)
        query = select(User, scalar.label("found"))
        if self.choices.chance(40):
            query = select(Bundle("both", User.name, User.score), User.id, scalar.label("found"))
        elif self.choices.chance(40):
            spent = func.sum(Order.amount).label("spent")
            query = select(User, spent).outerjoin(User.orders).group_by(User.id)
        return self._filtered(query, source), source

    def _from_subquery(self) -> tuple[Any, Source]:
        """An entity over a subquery that is cut or combined, as recipes of the ORM have it."""
        source = self._entity(Page, Page)
        keys = source.keys or []
        inner = self._filtered(select(Page), source)
        if self.choices.chance(50):
            inner = inner.order_by(*keys).limit(self.rows())
        entity = aliased(Page, inner.subquery())
        outside = self._entity(entity, Page)
        query = self._filtered(select(entity), outside)
        if self.choices.chance(40):
            beside = and_(entity.tenant == Document.tenant, entity.weight == Document.weight)
            query = query.join(Document, beside).where(Document.id == self.value("int"))
        return query, outside

    def ordered(self, source: Source) -> list[Any]:
        """Sort keys in front of the total order."""
        fields = of_kind(source.fields, ORDERED)
        some = self.choices.some(fields, 0, 2) if fields else []
        return [self.directed(each.expression) for each in some]
