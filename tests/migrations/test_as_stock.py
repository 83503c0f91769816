"""On a cluster of one shard, Alembic does and says what it does and says on that database.

Each case runs the same commands through our environment and through the one of Alembic's template
`generic`, on a database each, and compares after each command how it ended, what it printed and
logged, and what is in the database and among the revisions.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.databases import ask, connect
from tests.migrations.commands import alembic
from tests.migrations.project import ENV, Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.slow

STOCK = """\
from alembic import context
from sqlalchemy import create_engine, pool
{models}
url = context.config.get_main_option("sqlalchemy.url")
if context.is_offline_mode():
    context.configure(
        url=url,
        target_metadata={metadata},
        literal_binds=True,
        dialect_opts={{"paramstyle": "named"}},
        {options}
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        context.configure(connection=connection, target_metadata={metadata}, {options})
        with context.begin_transaction():
            context.run_migrations()
"""

MODELS = """
from sqlalchemy import Column, Integer, MetaData, String, Table
models = MetaData()
Table("things", models, Column("id", Integer, primary_key=True), Column("name", String(20)))
Table("hidden", models, Column("id", Integer, primary_key=True))

def without_hidden(item, name, kind, reflected, beside):
    return name != "hidden"

def without_dropped(name, kind, parents):
    return not (kind == "table" and name == "b")

def renamed(context, revision, directives):
    directives[0].message = f"renamed after {revision}"

def noted(ctx, step, heads, run_args, **rest):
    print("applied", step.up_revision_id, sorted(heads))
"""

IN_ANY_ORDER = ("current", "heads", "show current")
"""Alembic takes several heads from a set."""

WHITE = re.compile(r"\s+")
GLOBAL = re.compile(r"ifop.is_global_shard\(\):|,info={'shards':'global'}|,if_exists=True")
"""What a revision says of where tables are, which is ours; without white space."""

BRACES = str.maketrans({"{": "{{", "}": "}}"})

COLUMNS = """
    SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns
    WHERE table_schema NOT IN ('pg_catalog', 'information_schema', 'shards') ORDER BY 1, 2, 3
"""


def create(name: str) -> str:
    return f'op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True))'


def linear(project: Project) -> None:
    project.revise("r1", None, create("a"), 'op.drop_table("a")')
    project.revise("r2", "r1", create("b"), 'op.drop_table("b")')
    project.revise("r3", "r2", create("c"), 'op.drop_table("c")')


def branching(project: Project) -> None:
    project.revise("r1", None, create("a"), 'op.drop_table("a")')
    project.revise("x1", "r1", create("b"), 'op.drop_table("b")', labels=("left",))
    project.revise("x2", "x1", create("c"), 'op.drop_table("c")')
    project.revise("y1", "r1", create("d"), 'op.drop_table("d")', labels=("right",))
    project.revise("z1", None, create("e"), 'op.drop_table("e")', labels=("own",), depends_on="x1")


def merged(project: Project) -> None:
    branching(project)
    project.revise("m1", ("x2", "y1"), create("f"), 'op.drop_table("f")')


def failing(project: Project) -> None:
    linear(project)
    project.revise("r4", "r3", f'{create("d")}\nop.execute("SELECT 1 / 0")', "pass")


def outside(project: Project) -> None:
    linear(project)
    block = "with op.get_context().autocommit_block():\n    "
    project.revise("r4", "r3", f'{block}op.execute("CREATE INDEX CONCURRENTLY ia ON a (id)")')


def nothing(project: Project) -> None:
    del project


Case = tuple["Callable[[Project], None]", str, str, str]

CASES: Mapping[str, Case] = {
    "up and down": (
        linear,
        "",
        "",
        """
        current; heads; history; history -i; upgrade r1; current; upgrade head; current; current -v
        upgrade head; downgrade -1; current --check-heads; upgrade +1; current --check-heads
        current --check-heads --verbose; show current; show r2; history -i --verbose
        history -r current:; history -r base:current; history --rev-range=-1:current; downgrade base
        current; upgrade r1+1; upgrade +9; upgrade nowhere; downgrade nowhere; downgrade -7
        downgrade r2-1; upgrade r1:head
        """,
    ),
    "stamps": (
        linear,
        "",
        "",
        """
        ensure_version; current; stamp r2; current; stamp head; stamp base; stamp nowhere
        stamp --purge r1; upgrade r3; stamp --purge base; show current; current --check-heads
        """,
    ),
    "an unknown revision in the database": (
        linear,
        "",
        "",
        """
        stamp r2; SQL:UPDATE alembic_version SET version_num = 'gone'; current; upgrade head; check
        downgrade -1; stamp r1; stamp --purge r1; current
        """,
    ),
    "branches": (
        branching,
        "",
        "",
        """
        heads; heads -v; heads --resolve-dependencies; branches; branches -v; history; upgrade head
        upgrade left@head; current; current -v; upgrade own@head; current; upgrade heads; current
        current --check-heads; history -i; downgrade right@base; downgrade left@r1; downgrade -1
        stamp left@x1; stamp heads; current; stamp x1 y1; stamp --purge x1 y1; downgrade base
        upgrade own@+1; upgrade right@+1; downgrade own@base; current
        """,
    ),
    "a merge": (
        merged,
        "",
        "",
        """
        upgrade heads; current; downgrade m1-1; current; upgrade head; upgrade m1; downgrade r1
        current; stamp m1; downgrade base; heads; history --verbose; branches
        """,
    ),
    "writing merges": (
        branching,
        "",
        "",
        """
        merge heads --rev-id m1 -m together; heads; upgrade heads; current; merge x2 x2 --rev-id m2
        revision -m more --rev-id n1 --head m1; revision -m root --rev-id n2 --head base --splice
        revision -m x --rev-id n3 --head nowhere; revision --rev-id n4 --depends-on y1 --head n1
        """,
    ),
    "a failure": (failing, "", "", "upgrade head; current; upgrade r3; upgrade +1; current"),
    "a failure, a transaction for each": (
        failing,
        "",
        "transaction_per_migration=True",
        "upgrade head; current; downgrade base; current",
    ),
    "outside of a transaction": (outside, "", "", "upgrade head; current"),
    "scripts": (
        merged,
        "",
        "",
        """
        upgrade heads --sql; upgrade r1:m1 --sql; downgrade m1:r1 --sql; downgrade base --sql
        stamp m1 --sql; stamp r1:x1 --sql; ensure_version --sql; upgrade nowhere --sql; current
        stamp m1 --purge --sql
        """,
    ),
    "scripts of a transaction for each": (
        linear,
        "",
        "transaction_per_migration=True",
        "upgrade head --sql; upgrade r2 --sql --tag x",
    ),
    "a version table of another name": (
        linear,
        "",
        'version_table="migrated", version_table_schema="elsewhere", version_table_pk=False',
        """
        current; SQL:CREATE SCHEMA elsewhere; upgrade r2; current; stamp r1; ensure_version
        upgrade head --sql
        """,
    ),
    "callbacks": (linear, "", "on_version_apply=noted", "upgrade r2; stamp r3; downgrade base"),
    "comparing": (
        linear,
        "models",
        "",
        """
        check; revision --autogenerate -m early --rev-id a1; upgrade head; check
        revision --autogenerate -m models --rev-id a1; upgrade head; check
        SQL:ALTER TABLE things ALTER name TYPE varchar(10); check
        revision --autogenerate --rev-id a2; upgrade head; check; downgrade r3
        revision --autogenerate --sql
        """,
    ),
    "comparing with hooks": (
        linear,
        "models",
        "include_object=without_hidden, include_name=without_dropped, include_schemas=True,"
        "compare_type=False, render_as_batch=True, process_revision_directives=renamed",
        """
        upgrade head; check; revision --autogenerate -m x --rev-id a1; upgrade head; check
        SQL:ALTER TABLE things ALTER name TYPE varchar(10); check
        """,
    ),
    "nothing to compare with": (
        linear,
        "",
        "",
        "upgrade head; check; revision --autogenerate --rev-id a1",
    ),
    "no revision at all": (
        nothing,
        "models",
        "",
        "current; heads; history; current --check-heads; upgrade head; downgrade -1; show current",
    ),
    "an environment for each command": (
        branching,
        "",
        "process_revision_directives=renamed",
        """
        INI:revision_environment = true; revision -m x --rev-id n1 --head x2; history
        merge heads --rev-id m1; upgrade heads; revision -m y --rev-id n2; history -v
        revision -m z --rev-id n3 --sql
        """,
    ),
}


@pytest.fixture
def ours(tmp_path: Path, clean_shards: Mapping[str, str]) -> Project:
    return Project(tmp_path / "ours", {"s0": clean_shards["s0"]})


@pytest.fixture
def stock(tmp_path: Path, clean_shards: Mapping[str, str]) -> Project:
    return Project(tmp_path / "stock", {"s1": clean_shards["s1"]})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_shard_is_migrated_as_stock_alembic_does(
    case: Case, ours: Project, stock: Project
) -> None:
    write_both(case, ours, stock)

    for step in steps(case[3]):
        expected, found = do(stock, step), do(ours, step)
        assert found == expected, step
        assert state(ours) == state(stock), step


def test_the_editor_is_opened_as_stock_alembic_does(
    ours: Project, stock: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\nbasename "$1" >> {tmp_path}/edited\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    write_both((linear, "", "", ""), ours, stock)

    for step in ("edit current", "upgrade r2", "edit current", "edit r1"):
        assert do(ours, step) == do(stock, step)

    assert (tmp_path / "edited").read_text().split() == ["r2.py", "r2.py", "r1.py", "r1.py"]


def write_both(case: Case, ours: Project, stock: Project) -> None:
    build, metadata, options, _ = case
    models = MODELS if metadata or options else ""
    target = ", ".join(filter(None, (metadata or "None", options)))
    ours.directory.mkdir()
    ours.write(target, cluster='undeclared = "global"', env=models.translate(BRACES) + ENV)
    stock.directory.mkdir()
    stock.write()
    env = STOCK.format(models=models, metadata=metadata or None, options=options)
    (stock.scripts / "env.py").write_text(env)
    with (stock.directory / "alembic.ini").open("a") as file:
        file.write(f"sqlalchemy.url = {stock.urls['s1'].replace('%', '%%')}\n")
    build(ours)
    build(stock)


def steps(text: str) -> list[str]:
    return [step for line in text.splitlines() for step in map(str.strip, line.split(";")) if step]


def do(project: Project, step: str) -> Any:
    """Run a command of Alembic's, SQL, or add a line to the configuration."""
    (url,) = project.urls.values()
    if step.startswith("SQL:"):
        return ask(url, step.removeprefix("SQL:"))
    if step.startswith("INI:"):
        with (project.directory / "alembic.ini").open("a") as file:
            return file.write(step.removeprefix("INI:") + "\n")
    ended = alembic(project.directory, *step.split())
    output = ended.output.replace(url, "URL")
    if step.startswith(IN_ANY_ORDER):
        output = "\n".join(sorted(output.splitlines()))
    return replace(ended, output=output)


def state(project: Project) -> Any:
    """Versions and columns in the database, and the revisions that are written."""
    (url,) = project.urls.values()
    with connect(url) as connection:
        columns = connection.execute(COLUMNS).fetchall()
        tables = {f"{schema}.{table}" for schema, table, *_ in columns}
        versions = [
            connection.execute(f"SELECT version_num FROM {table} ORDER BY 1".encode()).fetchall()
            for table in ("public.alembic_version", "elsewhere.migrated")
            if table in tables
        ]
    files = {
        path.name: GLOBAL.sub("", WHITE.sub("", path.read_text()))
        for path in (project.scripts / "versions").glob("*.py")
    }
    return versions, columns, files
