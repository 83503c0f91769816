"""The rules of the house that neither linter nor type checker knows."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.source import FUNCTIONS, MODULES, ROOT, Module

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 50

every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


@every_module
def test_a_module_is_not_too_long(module: Module) -> None:
    lines = len(module.text.splitlines())

    assert lines <= MODULE_LINES_MAX


@every_module
def test_functions_are_not_too_long(module: Module) -> None:
    too_long = [
        f"{module.at(node)} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(module.tree)
        if isinstance(node, FUNCTIONS)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
        and not _is_mostly_arguments(node)
    ]

    assert too_long == []


@every_module
def test_what_is_public_says_what_it_is(module: Module) -> None:
    silent = [
        f"{module.at(node)} {node.name}"
        for node in module.public_definitions()
        if ast.get_docstring(node) is None and not _needs_none(node)
    ]

    assert ast.get_docstring(module.tree) is not None
    assert silent == []


@every_module
def test_a_module_keeps_no_state_that_changes(module: Module) -> None:
    mutable = [
        module.at(node)
        for node in module.tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and isinstance(node.value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp))
        and not _is_constant(node)
    ]

    assert mutable == []


@every_module
def test_nothing_is_left_to_be_done(module: Module) -> None:
    marks = re.findall(r"\b(TODO|FIXME|XXX|HACK)\b", module.text)

    assert marks == []


def _is_mostly_arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Signature and docstring are not what makes a function hard to follow."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body or node.end_lineno is None:
        return True
    return node.end_lineno - body[0].lineno < FUNCTION_LINES_MAX


def _needs_none(node: ast.AST) -> bool:
    """Overloads and setters are described where the function or property is."""
    decorators = getattr(node, "decorator_list", [])
    spoken = [ast.unparse(decorator) for decorator in decorators]
    return any(each.endswith(("overload", ".setter")) for each in spoken)


def _is_constant(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return all(name.strip("_").isupper() or name == "__all__" for name in names)


def test_the_readme_names_no_file_that_is_not_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    missing = [
        target
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text)
        if "://" not in target and not (ROOT / target).exists()
    ]

    assert missing == []
