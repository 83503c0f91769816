"""Every private name of Alembic that this package reads.

Apart from those of SQLAlchemy, so that who migrates nothing imports no Alembic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from alembic.runtime import plugins
from alembic.runtime.environment import EnvironmentContext

if TYPE_CHECKING:
    from types import ModuleType

_COMMANDS: Final = {"do_stamp": "stamp", "do_ensure_version": "ensure_version"}


def environment_of(context: EnvironmentContext | ModuleType) -> EnvironmentContext:
    """The environment behind ``alembic.context``, a module with functions of the same names.

    It has what the module has not, the options of the command at hand.
    """
    if isinstance(context, EnvironmentContext):
        return context
    return cast("EnvironmentContext", context._proxy)


def command_of(environment: EnvironmentContext) -> str:
    """What runs: ``"upgrade"``, ``"downgrade"``, ``"stamp"``, ``"ensure_version"``, or another.

    Alembic tells it nowhere but by the name of the function that it would call.
    """
    name = str(getattr(environment.context_opts["fn"], "__name__", ""))
    return _COMMANDS.get(name, name)


def target_of(environment: EnvironmentContext) -> str | None:
    """The revisions that were asked for, as they were written; None: the command asks for none."""
    target: Any = environment.context_opts.get("destination_rev")
    return " ".join(map(str, target)) if isinstance(target, (tuple, list)) else target


def has_plugin(name: str) -> bool:
    """Whether a plug-in is registered. Alembic refuses a second one, and logs that it is set up."""
    return name in plugins._all_plugins
