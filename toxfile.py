"""Which Python each environment of tox gets: the oldest or newest that this machine really has.

A version manager's shims answer for versions that are not there, and an environment names one
Python only; so working interpreters are looked for here, beside the PATH too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from tox.config.loader.memory import MemoryLoader
from tox.plugin import impl

if TYPE_CHECKING:
    from tox.config.sets import ConfigSet
    from tox.session.state import State

MINORS = range(10, 14)
ON_OLDEST = ["lowest"]
ON_NEWEST = [
    "highest",
    "asyncio",
    "fuzz",
    "faults",
    "uvloop",
    "lint",
    "types",
    "arch",
    "docs",
    "quickstart",
    "bench",
]


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Give each environment its Python."""
    pythons = {minor: path for minor in MINORS if (path := _python(minor)) is not None}
    pythons = pythons or {sys.version_info.minor: sys.executable}
    chosen = dict.fromkeys(ON_OLDEST, pythons[min(pythons)])
    chosen |= dict.fromkeys(ON_NEWEST, pythons[max(pythons)])
    # The cells of the matrix (py312-sa21) look their Python up by its version.
    beside = [str(Path(path).parent) for path in pythons.values()]
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *beside])
    for name, path in chosen.items():
        state.conf.memory_seed_loaders[name].append(MemoryLoader(base_python=[path]))


def _python(minor: int) -> str | None:
    """Path of a Python 3.``minor`` that starts."""
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [which(f"python3.{minor}"), *managed.glob(f"3.{minor}.*/bin/python3.{minor}")]
    if sys.version_info[:2] == (3, minor):
        candidates.append(sys.executable)
    for candidate in filter(None, candidates):
        check = f"import sys, venv; sys.exit(sys.version_info[:2] != (3, {minor}))"
        if (
            subprocess.run([candidate, "-c", check], capture_output=True, check=False).returncode
            == 0
        ):
            return str(candidate)
    return None
