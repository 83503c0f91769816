"""Alembic finds the plug-in, whatever is imported first."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards import migrations
from tests.architecture.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FIRST = (
    "from alembic import op",
    "import alembic.command",
    "from sqlalchemy_shards.migrations import run_migrations",
)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory for Python's path in which the package's entry point is found.

    It has the package's name, so that it stands before an installation that may be there, too.
    """
    package = tmp_path / "sqlalchemy_shards-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sqlalchemy-shards\nVersion: 1\n"
    )
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    point = lines[lines.index('[project.entry-points."alembic.plugins"]') + 1].replace('"', "")
    (package / "entry_points.txt").write_text(f"[alembic.plugins]\n{point}\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST)
def test_operations_are_there(installed: Path, first: str) -> None:
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(installed)!r}]; {first}\n"
        "from alembic import op; print(op.create_index_concurrently.__doc__)"
    )

    outcome = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )

    assert (outcome.stderr, "CREATE INDEX CONCURRENTLY" in outcome.stdout) == ("", True)


@pytest.mark.parametrize("name", migrations.__all__)
def test_what_is_public_is_imported_when_it_is_asked_for(name: str) -> None:
    assert not isinstance(getattr(migrations, name), ModuleType)
