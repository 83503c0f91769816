"""The examples do what examples/README.md says: its commands run, and print what is below them."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.samples import ROOT, Sample, check_text, read_samples

if TYPE_CHECKING:
    from sqlalchemy_shards.testing.servers import PostgresServers

SAMPLES = read_samples(ROOT / "examples" / "README.md")
COMMANDS = [
    (command, printed) for command, printed in pairwise(SAMPLES) if command.language == "shell"
]

# Of the five stages of the help desk, these lie between plain SQLAlchemy and four shards.
SLOW = ("--stage undeclared", "--stage one-shard", "--stage back")


def parameters() -> list[Any]:
    """The commands with what they print; stages in between are slow."""
    return [
        pytest.param(
            command,
            printed,
            id=command.text.strip(),
            marks=[pytest.mark.slow] * any(each in command.text for each in SLOW),
        )
        for command, printed in COMMANDS
    ]


def environment(servers: PostgresServers) -> dict[str, str]:
    """That of this process, but with servers that run already and without pytest's own state."""
    urls = []
    for number in range(servers.count):
        servers.start(number)
        urls.append(servers.url(number))
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return own | {
        "SHARDS_TEST_BACKEND": "urls",
        "SHARDS_TEST_URLS": ",".join(urls),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        # Rewriting the assertions of the installed plugin's package costs more than the tests.
        "PYTEST_ADDOPTS": "-p no:cacheprovider --assert=plain",
    }


@pytest.mark.timeout(300)  # a whole test suite runs in it
@pytest.mark.parametrize(("command", "printed"), parameters())
def test_a_command_prints_what_the_page_says(
    command: Sample, printed: Sample, servers: PostgresServers
) -> None:
    done = subprocess.run(
        command.text,
        shell=True,
        cwd=ROOT,
        env=environment(servers),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    # Lines of dots, whose number and breaks say nothing, come before pytest's last line.
    lines = done.stdout.splitlines(keepends=True)
    check_text(printed, "".join(lines[-printed.text.count("\n") :]))
