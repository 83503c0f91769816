"""What the tests of the servers share: a temporary directory that no other run sweeps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sqlalchemy_shards
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing.binaries import find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def temporary_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The temporary directory of this test and of the processes that it starts."""
    # pytest makes its own where the temporary directory is when it first needs one.
    tmp_path_factory.getbasetemp()
    directory = Path(tempfile.mkdtemp(prefix="root-", dir="/tmp"))
    directory.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=["system", "embedded"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each kind of PostgreSQL programs that this machine has."""
    try:
        find_binaries(request.param)
    except ConfigurationError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def run_python(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start another Python on a script, with pipes; what is still alive at the end is killed."""
    package_root = str(Path(sqlalchemy_shards.__file__).parents[1])
    processes = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": package_root}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
