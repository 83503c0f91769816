"""SQLAlchemy's bridge between greenlets and asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

if TYPE_CHECKING:
    from greenlet import greenlet

_PROVIDER: Final = "__sqlalchemy_greenlet_provider__"


def let_await(branch: greenlet) -> None:
    """Let ``await_only()`` work in a greenlet: it switches to the parent with what is awaited."""
    setattr(branch, _PROVIDER, True)


def check_may_await(current: greenlet) -> None:
    """Raise SQLAlchemy's `MissingGreenlet` where ``await_only()`` would."""
    if not getattr(current, _PROVIDER, False):
        await_only(_nothing())


async def _nothing() -> None:
    """Be awaited."""


__all__ = ["await_only", "check_may_await", "in_greenlet", "let_await"]
