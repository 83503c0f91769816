"""Whether the tables of the models are there, alike on every shard, and may be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .report import Finding, Status, listed, shards_by, some, told_by_shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .seen import ColumnSeen, Expectation, ShardFacts, TableExpected, TableSeen, TablesSeen

_SENTENCES: Final = "; "
_MIGRATE: Final = "call cluster.create_all(metadata), or run the migrations"


def judge_declarations(expectation: Expectation) -> Iterator[Finding]:
    """Yield what is to be said of the models themselves."""
    if expectation.tables is None:
        yield Finding(
            None,
            "tables",
            Status.SKIPPED,
            "nobody said which tables there should be",
            "name the models (--models), or give check() the metadata",
        )
    if expectation.undeclared:
        names = some(expectation.undeclared)
        yield Finding(
            None,
            "declarations",
            Status.FAILED,
            f"{len(expectation.undeclared)} of the models' tables do not say how they spread: "
            f"{names}",
            "give their models ShardKeyMixin, ReferenceMixin or GlobalMixin, or call "
            "shard_table(), reference_table() or global_table()",
        )


def judge_tables(shard: str, facts: ShardFacts, expectation: Expectation) -> Iterator[Finding]:
    """Yield what is to be said of one shard's tables."""
    tables = facts.tables
    if tables is None or expectation.tables is None:
        return
    yield _missing(shard, tables)
    yield from _unlike_the_models(shard, tables, expectation.tables)
    yield from _privileges(shard, tables)
    if tables.others:
        yield Finding(
            shard,
            "other tables",
            Status.WARNING,
            f"{len(tables.others)} that the models do not place here: {some(tables.others)}",
            "declare them in the models, or drop them if nobody needs them",
        )


def judge_likeness_of_tables(seen: Mapping[str, ShardFacts]) -> Iterator[Finding]:
    """Yield what differs between the shards without being wrong by the models."""
    shards = {name: facts.tables.known for name, facts in seen.items() if facts.tables is not None}
    names = dict.fromkeys(name for tables in shards.values() for name in tables)
    differing: list[str] = []
    for name in names:
        there = {shard: table for shard, tables in shards.items() if (table := tables.get(name))}
        differing += _differences(name, there)
    if differing:
        yield Finding(
            None,
            "tables alike",
            Status.FAILED,
            f"tables differ between shards: {some(differing, _SENTENCES)}",
            "run the same migrations on every shard",
        )
    elif shards:
        yield Finding(None, "tables alike", Status.OK, f"{len(names)} tables, the same everywhere")


def judge_likeness_of_types(seen: Mapping[str, ShardFacts]) -> Iterator[Finding]:
    """Yield what differs between the types that an application has made on the shards."""
    shards = {
        name: facts.tables.own_types for name, facts in seen.items() if facts.tables is not None
    }
    names = sorted({name for types in shards.values() for name in types})
    differing: list[str] = []
    for name in names:
        values = shards_by({shard: types[name] for shard, types in shards.items() if name in types})
        if len(values) > 1:
            differing.append(f"{name} is {told_by_shard(values)}")
    if differing:
        yield Finding(
            None,
            "types alike",
            Status.FAILED,
            f"types differ between shards: {some(differing, _SENTENCES)}",
            "run the same migrations on every shard; to put the labels of an enum in another "
            "order, make the type anew",
        )
    elif names:
        yield Finding(None, "types alike", Status.OK, f"{len(names)} types, the same everywhere")


def judge_order_of_columns(seen: Mapping[str, ShardFacts]) -> Iterator[Finding]:
    """Yield which tables have the same columns in another order on some shards."""
    shards = {name: facts.tables.known for name, facts in seen.items() if facts.tables is not None}
    differing: list[str] = []
    for name in dict.fromkeys(name for tables in shards.values() for name in tables):
        there = {shard: table for shard, tables in shards.items() if (table := tables.get(name))}
        orders = shards_by({shard: tuple(table.columns) for shard, table in there.items()})
        if len(orders) > 1 and len(set(map(frozenset, orders))) == 1:
            told = {", ".join(order): where for order, where in orders.items()}
            differing.append(f"{name} has {told_by_shard(told)}")
    if differing:
        yield Finding(
            None,
            "order of columns",
            Status.WARNING,
            f"tables have their columns in different orders: {some(differing, _SENTENCES)}",
            "name the columns in raw SQL: SELECT * of such a table is refused over several shards",
        )


def _missing(shard: str, tables: TablesSeen) -> Finding:
    missing = [name for name, table in tables.known.items() if table is None]
    if not missing:
        return Finding(shard, "tables", Status.OK, "all there")
    found = f"{len(missing)} missing: {some(missing)}"
    return Finding(shard, "tables", Status.FAILED, found, _MIGRATE)


def _unlike_the_models(
    shard: str, tables: TablesSeen, expected: Mapping[str, TableExpected]
) -> Iterator[Finding]:
    faults: list[str] = []
    for name, table in tables.known.items():
        if table is not None:
            faults += _faults_of(expected[name], table, tables.types)
    if faults:
        yield Finding(
            shard,
            "columns",
            Status.FAILED,
            f"unlike the models: {some(faults, _SENTENCES)}",
            "run the migrations, or correct the models",
        )


def _faults_of(
    expected: TableExpected, table: TableSeen, types: Mapping[str, str]
) -> Iterator[str]:
    for name, wanted in expected.columns.items():
        column = table.columns.get(name)
        label = f"{expected.name}.{name}"
        if column is None:
            yield f"{label} is missing"
            continue
        wanted_type = types.get(wanted.type, column.type)
        if column.type != wanted_type:
            yield f"{label} is {column.type}, not {wanted_type}"
        if column.is_nullable != wanted.is_nullable:
            yield f"{label} {'may' if column.is_nullable else 'must not'} be NULL"


def _privileges(shard: str, tables: TablesSeen) -> Iterator[Finding]:
    lacking = [
        f"{', '.join(table.lacking)} on {name}"
        for name, table in tables.known.items()
        if table is not None and table.lacking
    ]
    if lacking:
        yield Finding(
            shard,
            "privileges",
            Status.FAILED,
            f"the role of the application lacks {some(lacking)}",
            "GRANT them to it, and USAGE on the schemas",
        )
    else:
        yield Finding(shard, "privileges", Status.OK, "all tables may be read and written")


def _differences(name: str, there: Mapping[str, TableSeen]) -> Iterator[str]:
    """What the shards do not agree about, one sentence for each column and rule."""
    columns = dict.fromkeys(column for table in there.values() for column in table.columns)
    for column in columns:
        values = shards_by(
            {shard: _shown(table.columns.get(column)) for shard, table in there.items()}
        )
        if len(values) > 1:
            yield f"{name}.{column} is {told_by_shard(values)}"
    rules = dict.fromkeys(rule for table in there.values() for rule in sorted(table.rules))
    for rule in rules:
        lacking = [shard for shard, table in there.items() if rule not in table.rules]
        if lacking:
            yield f"{name} has no {rule} on {listed(lacking)}"


def _shown(column: ColumnSeen | None) -> str:
    if column is None:
        return "missing"
    shown = column.type + (f" {column.collation}" if column.collation else "")
    return shown + ("" if column.is_nullable else " NOT NULL")
