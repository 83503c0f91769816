"""PostgreSQL settings of servers that are started for tests.

Committed data survive a crash of the server, prepared transactions included, but not of the
machine: what is not flushed to disk still lies in the kernel's cache.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SETTINGS: Mapping[str, str | int] = MappingProxyType(
    {
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "on",
        "wal_level": "logical",
        "max_prepared_transactions": 64,
        "max_connections": 200,
        "shared_buffers": "32MB",
        "jit": "off",
        # Files in the data directory, so that a killed server leaves nothing in /dev/shm.
        "dynamic_shared_memory_type": "mmap",
    }
)
