"""SQLAlchemy's private names stand in `_compat/`, and nowhere else.

What a class inherits from SQLAlchemy looks like its own private name: those are found at runtime,
by asking SQLAlchemy's classes which private names they have.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from functools import cache

import pytest
import sqlalchemy

from tests.architecture.source import MODULES, Module

OUTSIDE = [module for module in MODULES if module.path.parent.name != "_compat"]

ALLOWED = {
    "_asdict",
    "_replace",
    "_fields",
    "_make",  # of named tuples, public in spite of their names
}


@cache
def private_names_of_sqlalchemy() -> frozenset[str]:
    """Private attributes of the classes of SQLAlchemy, as far as no name of Python's own."""
    names: set[str] = set()
    for package in ("engine", "sql", "orm", "pool", "dialects.postgresql"):
        path = importlib.import_module(f"sqlalchemy.{package}").__path__  # type: ignore[attr-defined]
        for found in pkgutil.iter_modules(path, f"sqlalchemy.{package}."):
            names |= _private_names(found.name)
    return frozenset(name for name in names if not name.startswith("__")) - ALLOWED


def _private_names(module_name: str) -> set[str]:
    try:
        module = importlib.import_module(module_name)
    except ImportError:  # a dialect whose driver is not installed
        return set()
    names: set[str] = set()
    for _, class_ in inspect.getmembers(module, inspect.isclass):
        if class_.__module__.startswith("sqlalchemy."):
            names |= {name for name in vars(class_) if name.startswith("_")}
            names |= {n for n in getattr(class_, "__annotations__", {}) if n.startswith("_")}
    return names


@pytest.mark.parametrize("module", OUTSIDE, ids=lambda module: module.name)
def test_no_private_name_of_sqlalchemy_is_imported(module: Module) -> None:
    imported = [
        f"{module.at(node)} {node.module}.{alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy.")
        for alias in node.names
        if alias.name.startswith("_") or any(p.startswith("_") for p in node.module.split("."))
    ]

    assert imported == []


@pytest.mark.parametrize("module", OUTSIDE, ids=lambda module: module.name)
def test_no_private_attribute_of_sqlalchemy_is_read(module: Module) -> None:
    own = _own_names(module)

    read = [
        f"{module.at(node)} .{node.attr}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in private_names_of_sqlalchemy()
        and node.attr not in own
    ]

    assert read == []


def _own_names(module: Module) -> set[str]:
    """Private names that the module's own classes define, which SQLAlchemy may happen to have."""
    own: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            own |= {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef)}
            own |= _assigned_to_self(node)
            own |= {
                n.target.id
                for n in node.body
                if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
            }
            own |= {
                target.id
                for n in node.body
                if isinstance(n, ast.Assign)
                for target in n.targets
                if isinstance(target, ast.Name)
            }
    return own


def _assigned_to_self(class_: ast.ClassDef) -> set[str]:
    return {
        node.attr
        for node in ast.walk(class_)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_the_names_that_are_looked_for_are_those_of_this_release() -> None:
    names = private_names_of_sqlalchemy()

    assert sqlalchemy.__version__ >= "2.0"
    assert {"_limit_clause", "_order_by_clauses", "_dict_parameters"} <= names
