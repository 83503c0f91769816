"""``shards explain``: where a statement would run, and how its result would be made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

from sqlalchemy_shards.cli.failures import readable_failures
from sqlalchemy_shards.cli.modules import evaluate, import_module, statement_of
from sqlalchemy_shards.cli.output import console, print_json
from sqlalchemy_shards.cluster.cluster import Cluster

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy_shards.cluster.explain.explanation import Explanation

_GUIDE_WIDTH = 4
_OPTIONS = ("shard", "shard_key", "scatter")


@readable_failures()
def explain(
    context: typer.Context,
    statement: Annotated[
        str,
        typer.Argument(
            help="A Python expression in the names of the module and of SQLAlchemy, such as "
            "'select(User).where(User.id == 1)'. It is evaluated; the statement is run with "
            "--analyze only.",
            show_default=False,
        ),
    ],
    models: Annotated[
        str,
        typer.Option(
            metavar="MODULE",
            help="The module of the models. It is imported, which runs its code.",
            show_default=False,
        ),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An execution option, again and again: shard=s1, shard=s0,s1, 'shard=*', "
            "'shard_key=(User, 42)', scatter=refuse.",
        ),
    ] = None,
    analyze: Annotated[
        bool,
        typer.Option(
            "--analyze",
            help="Run the statement, in a transaction that is rolled back, and tell rows, bytes "
            "and times.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell where a statement would run, and why.

    Without --analyze the statement is not run, but the global shard is asked for its version and
    collations.
    """
    module = import_module(models)
    to_explain = statement_of(statement, module)
    options = dict(_option(text, module) for text in option or ())
    cluster = Cluster.from_file(context.obj)
    try:
        explanation = cluster.explain(to_explain, analyze=analyze, **options)
    finally:
        cluster.dispose()
    if as_json:
        print_json(explanation.as_dict())
    else:
        screen = console()
        screen.print(tree_of(explanation, width=screen.width))


def tree_of(explanation: Explanation, *, width: int, shorten: bool = False) -> Tree:
    """Return an explanation as a tree for a terminal.

    :param width: how long its lines may be.
    :param shorten: leave out most of a long list of columns.
    """
    shards = ", ".join(explanation.shards) or "no shard"
    tree = Tree(
        f"[bold]{explanation.tier.value}[/]: {escape(shards)}, because {explanation.reason}",
        guide_style="dim",
    )
    for branch in explanation.branches():
        shown = branch._replace(text=_shortened(branch.text)) if shorten else branch
        title, colon, rest = "\n".join(shown.lines(width - _GUIDE_WIDTH)).partition(":")
        tree.add(Text.assemble((title, "bold"), colon, rest))
    return tree


def _shortened(sql: str) -> str:
    """The statement with a list of more than two columns cut."""
    head, found, rest = " ".join(sql.split()).partition(" FROM ")
    columns = head.split(", ")
    if not found or len(columns) < 3 or "(" in head:
        return sql
    return f"{columns[0]}, … {len(columns) - 1} more …{found}{rest}"


def _option(text: str, module: ModuleType) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name not in _OPTIONS:
        raise typer.BadParameter(
            f"{text!r} is none of {', '.join(f'{known}=…' for known in _OPTIONS)}"
        )
    if name == "shard_key":
        return name, evaluate(value, module)
    if name == "shard" and "," in value:
        return name, tuple(value.split(","))
    return name, value
