"""Ctrl-C and the like, as something that a run hears of between two messages.

An exception out of nowhere could lose a message that was just taken; a handler that only leaves a
note cannot. What the application handles itself, or ignores, is left alone.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OTHERS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def stop_signals(wanted: Callable[[], None]) -> Iterator[None]:
    """Call ``wanted`` for signals that would interrupt or end the process, while this lasts.

    In another thread than the main one nothing is changed: no signal arrives there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual: dict[signal.Signals, Any] = dict.fromkeys(_OTHERS, signal.SIG_DFL)
    usual[signal.SIGINT] = signal.default_int_handler
    ours = [number for number, handler in usual.items() if signal.getsignal(number) == handler]

    def handle(number: int, frame: Any) -> None:
        del number, frame
        wanted()

    try:
        for number in ours:
            signal.signal(number, handle)
        yield
    finally:
        for number in ours:
            signal.signal(number, usual[number])
