"""Aggregates and window functions of every kind, over the fields of a scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, Text, cast, func, literal
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from tests.properties.relations import Relations
from tests.properties.scopes import COMPARED, ORDERED, Field, Scope, of_kind

if TYPE_CHECKING:
    from collections.abc import Callable

LISTED = ("int", "text", "date", "bool", "num", "time")
STATISTICS = ("stddev", "var_samp", "stddev_pop", "var_pop", "variance")
OF_TWO = ("corr", "covar_pop", "covar_samp", "regr_slope", "regr_r2", "regr_count", "regr_avgx")


class Aggregates(Relations):
    """Composes aggregates and windows."""

    def figure(self, scope: Scope) -> Field:
        """An aggregate, perhaps over some rows only."""
        own = Scope(scope.sources)
        if self.choices.chance(15 if self.is_simple else 45):
            return self.choices.pick((self._special, self._ordered_set, self._ordered))(own)
        found = self.plain_figure(own)
        if self.choices.chance(20):
            return Field(found.expression.filter(self.comparison(own, 0)), found.kind)
        return found

    def plain_figure(self, scope: Scope) -> Field:
        """count, sum, avg, min, max, with DISTINCT or without."""
        x = self.expression(Scope(scope.sources), None, 1)
        ways: list[Callable[[], Field]] = [
            lambda: Field(func.count(), "int"),
            lambda: Field(func.count(x.expression), "int"),
            lambda: Field(func.count(x.expression.distinct()), "int"),
        ]
        if x.kind in ("int", "num", "big"):
            ways += [
                lambda: Field(func.sum(x.expression), "num"),
                lambda: Field(func.sum(x.expression), "num"),
                lambda: Field(func.avg(x.expression), "num"),
                lambda: Field(func.sum(x.expression.distinct()), "num"),
                lambda: Field(func.avg(x.expression.distinct()), "num"),
            ]
        if x.kind in ("int", "num", "text", "big", "date", "time", "moment", "interval"):
            self.choosing(x.kind)
            ways += [lambda: Field(func.max(x.expression), x.kind)]
            ways += [lambda: Field(func.min(x.expression), x.kind)]
        if x.kind == "bool":
            ways += [lambda: Field(func.bool_and(x.expression), "bool")]
            ways += [lambda: Field(func.bool_or(x.expression), "bool")]
        if x.kind == "float":
            self.choosing("float")
            ways += [lambda: Field(func.avg(x.expression), "approximate")]
        return self.choices.pick(ways)()

    def _special(self, scope: Scope) -> Field:
        x = self.expression(scope, ("int", "num"), 0).expression
        y = self.expression(scope, ("int", "num"), 0).expression
        whole = self.expression(scope, ("int",), 0).expression
        self.choosing("float")
        ways: list[Callable[[], Field]] = [
            lambda: Field(getattr(func, self.choices.pick(STATISTICS))(x), "approximate"),
            # Of numbers as large as keys, even the first digits depend on the order of the rows.
            lambda: Field(
                getattr(func, self.choices.pick(OF_TWO))(x % 1000, y % 1000), "approximate"
            ),
            lambda: Field(func.bit_or(whole), "int"),
            lambda: Field(func.sum(func.abs(whole)) / func.nullif(func.count(), 3), "num"),
            lambda: Field(func.coalesce(func.sum(whole), 0), "num"),
            lambda: Field(func.count() + func.max(whole), "num"),
            lambda: Field(func.every(whole > self.value("int")), "bool"),
        ]
        return self.choices.pick(ways)()

    def _ordered_set(self, scope: Scope) -> Field:
        x = self.expression(scope, ("int", "num", "text", "date"), 0)
        self.choosing("float")
        number = self.expression(scope, ("int", "num"), 0)
        part = literal(self.choices.pick((0.5, 0.25, 0.0, 1.0)), Float(53))
        ways: list[Callable[[], Field]] = [
            lambda: Field(func.percentile_disc(part).within_group(x.expression), x.kind),
            lambda: Field(func.mode().within_group(x.expression), x.kind),
            lambda: Field(
                func.percentile_cont(part).within_group(number.expression.desc()), "approximate"
            ),
            lambda: Field(self._hypothetical(x), "approximate"),
        ]
        return self.choices.pick(ways)()

    def _hypothetical(self, x: Field) -> Any:
        name = self.choices.pick(("rank", "dense_rank", "percent_rank", "cume_dist"))
        return getattr(func, name)(self.bound(x.kind)).within_group(x.expression)

    def _ordered(self, scope: Scope) -> Field:
        """Aggregates whose value is in an order, which decides all of it."""
        x = self.expression(scope, LISTED, 0)
        self.choosing(x.kind)
        by = self.choices.pick((x.expression, x.expression.desc(), x.expression.nulls_first()))
        ordered = aggregate_order_by(x.expression, by, *scope.tiebreak())
        ways: list[Callable[[], Field]] = [
            lambda: Field(func.array_agg(ordered), "list"),
            lambda: Field(func.array_agg(x.expression.distinct()), "list"),
        ]
        if x.kind == "text":
            comma = literal(",", Text())
            text = aggregate_order_by(comma, by, *scope.tiebreak())
            ways += [lambda: Field(func.string_agg(x.expression, text), "text")]
        if x.kind in ("int", "text", "bool"):
            ways += [lambda: Field(cast(func.json_agg(ordered), JSONB), "list")]
            ways += [lambda: Field(func.jsonb_agg(ordered), "list")]
        return self.choices.pick(ways)()

    # -- windows ----------------------------------------------------------------------------

    def window(self, scope: Scope) -> Field:
        """A window function, whose value is determined."""
        own = Scope(scope.sources)
        parts = of_kind(own.fields, COMPARED)
        part = [f.expression for f in self.choices.some(parts, 0, 2)]
        if own.shard_keys() and self.choices.chance(35):
            # Windows that lie on one shard each.
            part = [*self.choices.pick(own.shard_keys()), *part[:1]]
        first = self.choices.pick(of_kind(own.fields, ORDERED) or own.fields)
        order = first.expression
        order = order.desc() if self.choices.chance(30) else order
        total = [order, *own.tiebreak()]
        x = self.expression(own, ("int", "text", "date", "num"), 0)
        self.choosing(x.kind)
        number = self.expression(own, ("int", "num"), 0).expression
        ways: list[Callable[[], Field]] = [
            lambda: Field(func.row_number().over(partition_by=part, order_by=total), "int"),
            lambda: Field(func.rank().over(partition_by=part, order_by=order), "int"),
            lambda: Field(func.dense_rank().over(partition_by=part, order_by=order), "int"),
            lambda: Field(func.count().over(partition_by=part), "int"),
            lambda: Field(func.sum(number).over(partition_by=part, order_by=order), "num"),
            lambda: Field(func.ntile(3).over(partition_by=part, order_by=total), "int"),
            lambda: Field(func.cume_dist().over(partition_by=part, order_by=order), "approximate"),
            lambda: self._shifted(x, part, total),
            lambda: self._framed(number, part, total),
            lambda: self._picked(x, part, total),
            lambda: Field(
                func.max(x.expression)
                .filter(self.comparison(own, 0))
                .over(partition_by=part, order_by=order),
                x.kind,
            ),
        ]
        return self.choices.pick(ways)()

    def _shifted(self, x: Field, part: list[Any], total: list[Any]) -> Field:
        function = self.choices.pick((func.lag, func.lead))
        by = self.choices.pick((1, 2))
        return Field(function(x.expression, by).over(partition_by=part, order_by=total), x.kind)

    def _picked(self, x: Field, part: list[Any], total: list[Any]) -> Field:
        frame = self.choices.pick(((None, 0), (-1, 1), (0, None)))
        function = self.choices.pick((func.first_value, func.last_value))
        window = function(x.expression).over(partition_by=part, order_by=total, rows=frame)
        return Field(window, x.kind)

    def _framed(self, number: Any, part: list[Any], total: list[Any]) -> Field:
        frame = self.choices.pick(((None, 0), (-1, 1), (0, None), (None, None), (1, 3), (-2, -1)))
        how = self.choices.pick(("rows", "groups", "range_"))
        order = total if how == "rows" else total[:1]
        if how == "range_":
            frame = self.choices.pick(((None, 0), (0, None), (None, None)))
        figure = self.choices.pick((func.sum, func.count, func.avg, func.min))(number)
        window = figure.over(partition_by=part, order_by=order, **{how: frame})
        return Field(window, "num")
