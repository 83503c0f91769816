"""Refuses to write a generated id that carries another bucket than that of its row's shard key.

Such a row would not be found by its id: a comparison with it goes to the shard of its bucket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import RoutingError, UnknownShard, UnsupportedStatement
from sqlalchemy_shards.routing.conditions import UnknownValue, UnusableValue, regions
from sqlalchemy_shards.routing.router import key_of_row
from sqlalchemy_shards.topology.generated_id import bucket_of_id
from sqlalchemy_shards.topology.key_regions import UNBOUND, InBucket, Interval

from .values import ExecutionValues

if TYPE_CHECKING:
    from sqlalchemy_shards.cluster.plans import StatementPlan
    from sqlalchemy_shards.routing.carried_ids import CarriedIds, WrittenId
    from sqlalchemy_shards.topology.shard_map import KeyspaceMap, ShardMap

    from .work import Given, Surroundings


def check_carried_buckets(given: Given, plan: StatementPlan, around: Surroundings) -> None:
    """Check the generated ids that a statement writes.

    :raises RoutingError: an id carries another bucket.
    :raises UnsupportedStatement: it cannot be told which bucket an id or its row has.
    """
    carried: CarriedIds | None = plan.carried_ids
    context: Any = given.context
    if carried is None or getattr(context, "shards_rows_done", 0) > 0:
        return  # later parts of one execution were looked at with the first
    if carried.set_on_conflict:
        raise _unknown(carried, carried.set_on_conflict[0], given.sql)
    keyspace = around.territory.shard_map.keyspaces[carried.keyspace]
    if carried.rows:
        values = ExecutionValues(_compat.raw_parameters(context), plan.processors)
        for index in range(len(carried.rows)):
            _check_row(given.sql, plan, keyspace, values, index)
        return
    for parameters in context.compiled_parameters:
        values = ExecutionValues(parameters, plan.processors)
        if plan.sources.inserted is not None:
            _check_row(given.sql, plan, keyspace, values, None)
        else:
            _check_change(given.sql, plan, keyspace, values, around)


def check_ids_of_row(
    sql: str, plan: StatementPlan, shard_map: ShardMap, values: ExecutionValues
) -> None:
    """Check the generated ids of one row of an INSERT; raises as `check_carried_buckets` does."""
    if plan.carried_ids is not None:
        keyspace = shard_map.keyspaces[plan.carried_ids.keyspace]
        _check_row(sql, plan, keyspace, values, None)


def _check_row(
    sql: str,
    plan: StatementPlan,
    keyspace: KeyspaceMap,
    values: ExecutionValues,
    index: int | None,
) -> None:
    inserted, carried = plan.sources.inserted, plan.carried_ids
    assert inserted is not None
    assert carried is not None
    if inserted.lies_beside:
        return  # its id is that of the row beside which it lies
    ids = carried.ids if index is None else carried.rows[index]
    buckets = [(each, _bucket_of(each, carried, keyspace, values, sql)) for each in ids]
    if any(bucket is not None for _, bucket in buckets):
        expected = _bucket_of_key(keyspace, key_of_row(inserted, values, index))
        for each, bucket in buckets:
            if bucket is not None and bucket != expected:
                raise _elsewhere(carried, each, sql)


def _check_change(
    sql: str,
    plan: StatementPlan,
    keyspace: KeyspaceMap,
    values: ExecutionValues,
    around: Surroundings,
) -> None:
    carried = plan.carried_ids
    assert carried is not None
    for each in carried.ids:
        bucket = _bucket_of(each, carried, keyspace, values, sql)
        if bucket is None:
            continue
        rows = _buckets_of_rows(plan, keyspace, values, around)
        if rows is None:
            raise _unknown(carried, each.column, sql)
        if rows - {bucket}:
            raise _elsewhere(carried, each, sql)


def _bucket_of(
    written: WrittenId,
    carried: CarriedIds,
    keyspace: KeyspaceMap,
    values: ExecutionValues,
    sql: str,
) -> int | None:
    """The bucket that an id carries, None: it is NULL or was not generated."""
    if written.parameter is None:
        raise _unknown(carried, written.column, sql)
    try:
        value: Any = values.one(written.parameter)
    except UnknownValue:
        return None  # the column is left out
    except UnusableValue as error:
        raise RoutingError(
            f"the value given for {carried.table}.{written.column} is of type {error.args[0]}, "
            "and no id",
            "give an id of the table's IdGenerator",
            statement=sql,
        ) from None
    if value is None:
        return None
    bucket = bucket_of_id(value)
    if bucket is not None and bucket < len(keyspace.placement):
        return bucket
    if written.is_identity:
        raise RoutingError(
            f"the value given for {carried.table}.{written.column} was not made by an IdGenerator, "
            "so that another shard could hold the same one",
            "let the IdGenerator make it, or promise that such values are unique over all shards "
            "(__globally_unique__ = True)",
            statement=sql,
        )
    return None


def _bucket_of_key(keyspace: KeyspaceMap, key: tuple[Any, ...]) -> int | None:
    try:
        return keyspace.bucket_for(key)
    except UnknownShard:
        return None  # a pinned key without a bucket: no id can carry it


def _buckets_of_rows(
    plan: StatementPlan, keyspace: KeyspaceMap, values: ExecutionValues, around: Surroundings
) -> set[int | None] | None:
    """The buckets of the rows that an UPDATE can change, None: they are not known."""
    if len(plan.sources.roots) != 1:
        return None
    (root,) = plan.sources.roots
    found = regions(root.condition, root.width, values)
    if found is None:
        key = None
        if around.locator is not None and root.primary_key is not None and root.table is not None:
            primary_key = tuple(values.parameters.get(each.name) for each in root.primary_key)
            key = around.locator.key_of(root.table, primary_key)
        return None if key is None else {_bucket_of_key(keyspace, key)}
    buckets: set[int | None] = set()
    for region in found:
        if isinstance(region[-1], InBucket):
            buckets.add(region[-1].bucket)
        elif any(part is UNBOUND or isinstance(part, Interval) for part in region):
            return None
        else:
            buckets.add(_bucket_of_key(keyspace, region))
    return buckets


def _elsewhere(carried: CarriedIds, written: WrittenId, sql: str) -> RoutingError:
    return RoutingError(
        f"the id given for {carried.table}.{written.column} carries another bucket than that of "
        "the row's shard key, and the row would not be found by it",
        "give an id that was made for this shard key, or let the column be a BigInteger if it "
        "holds ids of rows with other keys",
        statement=sql,
    )


def _unknown(carried: CarriedIds, column: str, sql: str) -> UnsupportedStatement:
    return UnsupportedStatement(
        f"it cannot be told whether what is written to {carried.table}.{column} carries the bucket "
        "of each row's shard key",
        "write plain values, to rows whose shard key or generated id the statement names",
        statement=sql,
    )
