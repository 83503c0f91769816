"""The sentences with which the package refuses, read from its source.

Nothing is run: a sentence is the literal text (an f-string with `…` for what it fills in) that

- is the first argument of an error class or of `Refusal`, or of a function in `TELLERS`;
- is assigned to a name in `REASONS`, or returned by a function whose name begins with `why`;
- is yielded or returned as a fault of a model, in `models/faults` and `models/checks.py`, where
  the part behind the semicolon, the mend, does not count.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.architecture.source import FUNCTIONS, MODULES, Module

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES = frozenset(
    {"UnsupportedStatement", "ShardKeyChanged", "ScatterNotAllowed", "MissingShardKey", "Refusal"}
)
TELLERS = frozenset({"hinder"})
REASONS = frozenset({"unreadable", "obstacle"})

# What an application declares, or a revision says. Faults of URLs, files and databases are in
# docs/errors.md and docs/configuration.md.
DECLARATIONS = ("models/", "session/", "migrations/autogenerate/", "migrations/operations/")
FAULTS = ("models/faults/", "models/checks.py")


def sentences() -> dict[str, str]:
    """Each sentence, with a place where it stands."""
    found: dict[str, str] = {}
    for module in MODULES:
        name = module.name.partition("/")[2]
        if name.startswith(("testing/", "cli/")) or name == "errors.py":
            continue
        for node in _spoken(module, name):
            sentence = _text(node)
            if sentence is None or " " not in sentence:
                continue
            if name.startswith(FAULTS):
                sentence = sentence.partition("; ")[0]
            found.setdefault(" ".join(sentence.split()), module.at(node))
    return found


def _spoken(module: Module, name: str) -> Iterator[ast.expr]:
    classes = CLASSES | TELLERS
    if name.startswith(DECLARATIONS):
        classes |= {"ConfigurationError"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and node.args and _name(node.func) in classes:
            yield node.args[0]
        elif isinstance(node, ast.Assign) and _name(node.targets[0]) in REASONS:
            yield from _alternatives(node.value)
        elif isinstance(node, FUNCTIONS) and node.name.lstrip("_").startswith("why"):
            yield from _returned(node)
    if name.startswith(FAULTS):
        yield from _faults(module)


def _faults(module: Module) -> Iterator[ast.expr]:
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Yield, ast.Return)) and node.value is not None:
            text = _text(node.value)
            if text is not None and "; " in text:
                yield node.value


def _returned(function: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from _alternatives(node.value)


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield from _alternatives(node.body)
        yield from _alternatives(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _alternatives(value)
    else:
        yield node


def _name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        return "".join(str(part) for part in parts)
    return None
