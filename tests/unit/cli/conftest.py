"""The command line in this process, in an empty directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from sqlalchemy_shards.cli.main import create_app

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[cluster]
name = "shop"

[shards]
s0 = "postgresql+psycopg://app:hunter2@db0.invalid/app"
s1 = "postgresql+psycopg://app:hunter2@db1.invalid/app"

[keyspaces.default]
partitioner = "hash"
buckets = 64

[keyspaces.region]
partitioner = "list"
values = { west = ["Goa", "Gujarat"], north = ["Delhi"] }
placement = { west = "s0", north = "s1" }

[keyspaces.year]
partitioner = "range"
bounds = [2024, 2025]
pins = [{ key = 1999, shard = "s1" }]
"""

Shards = Callable[..., Any]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shards(directory: Path) -> Shards:
    """Runs ``shards`` with arguments; the result has exit_code, stdout and stderr."""
    return lambda *arguments: CliRunner().invoke(create_app(), list(arguments))


@pytest.fixture
def config(directory: Path) -> Path:
    path = directory / "shards.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run_python(directory: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs this Python in a process of its own, with warnings as errors."""
    return lambda *arguments: subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
