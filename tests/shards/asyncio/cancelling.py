"""How tasks are cancelled, once or again and again, and while they wait for locks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.shards.asyncio.opened import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.shards.asyncio.opened import Servers


def once(task: asyncio.Task[Any]) -> None:
    task.cancel()


def until_it_has_ended(task: asyncio.Task[Any]) -> None:
    """As anyio's cancel scopes do it."""
    if not task.done():
        task.cancel()
        asyncio.get_running_loop().call_soon(until_it_has_ended, task)


CANCEL = pytest.mark.parametrize("cancel", [once, until_it_has_ended])


async def cancel_while_locked(
    looking: Servers,
    shards: set[str],
    work: Awaitable[None],
    cancel: Callable[[asyncio.Task[Any]], None],
) -> None:
    """Begin ``work`` where tables are locked on ``shards``; cancel it as soon as it waits there."""
    with looking.locked(*shards):
        task = asyncio.ensure_future(work)
        await until(lambda: looking.waiting() >= shards, "it waits for the locks")
        cancel(task)
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not looking.waiting(), "nobody waits")
