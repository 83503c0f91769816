"""``python -m pytest -p tests.over_uvloop``: event loops are uvloop's; also over asyncio."""

from __future__ import annotations

import asyncio
import warnings

import uvloop

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of policies, from Python 3.14 on
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
