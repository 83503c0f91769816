"""The application's own modules: importing them, their tables, expressions in their names.

What is imported and evaluated here is the user's own code, named on the user's own command line.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import sqlalchemy
import typer
from sqlalchemy import MetaData, orm
from sqlalchemy.sql.expression import Executable

from sqlalchemy_shards.errors import ConfigurationError, ShardsError

if TYPE_CHECKING:
    from types import ModuleType


def import_module(name: str) -> ModuleType:
    """Import ``module`` or the module of ``module:name``, also out of the current directory.

    :raises ConfigurationError: it cannot be imported; says why.
    """
    module = name.partition(":")[0]
    if os.getcwd() not in sys.path:  # noqa: PTH109 (sys.path holds strings)
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        return importlib.import_module(module)
    except ShardsError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the module {module!r} cannot be imported: {type(error).__name__}: {error}",
            "name it with dots, as seen from the current directory or an installed package",
        ) from error


def metadata_of(module: ModuleType, name: str) -> MetaData:
    """Return the `MetaData` of a module's models: a declarative base's, or a variable.

    :param name: as given to `import_module`; what follows a colon is looked at alone.
    :raises ConfigurationError: there is none, or there are several.
    """
    _, _, attribute = name.partition(":")
    values = [getattr(module, attribute, None)] if attribute else list(vars(module).values())
    candidates = [getattr(value, "metadata", value) for value in values]
    found = {id(each): each for each in candidates if isinstance(each, MetaData)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise ConfigurationError(
            f"there is no MetaData in {name!r}", "name a module that defines models, or its base"
        )
    raise ConfigurationError(
        f"there are {len(found)} MetaData in {name!r}",
        "say which one, as myapp.models:Base or myapp.models:metadata",
    )


def evaluate(expression: str, module: ModuleType) -> Any:
    """Return the value of a Python expression, in the names of SQLAlchemy and of the module.

    :raises typer.BadParameter: it has none; says why.
    """
    names = {**_public(sqlalchemy), **_public(orm), **vars(module)}
    try:
        return eval(compile(expression, "<expression>", "eval"), names)
    except Exception as error:
        raise typer.BadParameter(f"{expression!r}: {type(error).__name__}: {error}") from error


def statement_of(expression: str, module: ModuleType) -> Executable:
    """Return the statement that an expression makes.

    :raises typer.BadParameter: it makes none; says why.
    """
    value = evaluate(expression, module)
    if not isinstance(value, Executable):
        raise typer.BadParameter(
            f"{expression!r} is a {type(value).__name__}, not a statement such as select(User)"
        )
    return value


def _public(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}
