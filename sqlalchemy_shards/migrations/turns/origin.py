"""Where an error comes from: out of which revision, or of somebody who has stopped it."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

INTERRUPTIONS: Final = (KeyboardInterrupt, CancelledError)
"""What is raised where somebody stops it; an event loop that is stopped cancels what waits."""


def revision_in(traceback: TracebackType | None) -> str | None:
    """The revision in which an error was raised: the last of its modules that says it is one."""
    found = None
    while traceback is not None:
        names = traceback.tb_frame.f_globals
        if "down_revision" in names and isinstance(names.get("revision"), str):
            found = names["revision"]
        traceback = traceback.tb_next
    return found
