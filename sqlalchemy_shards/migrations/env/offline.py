"""``--sql``: what would be run, as a script, without a server.

A cluster of one shard gets the script that stock Alembic writes. Several get their parts in one
script, each behind a line that names its shard, or a file each.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.migrations.env.naming import named

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sqlalchemy_shards.migrations.env.invocation import Invocation

_AS_STOCK: Final = {"literal_binds": True, "dialect_opts": {"paramstyle": "named"}}
"""Options of the offline half of Alembic's own ``env.py``."""


def write_scripts(invocation: Invocation, shards: Iterable[str], directory: Path | None) -> None:
    """Write what the command at hand would run.

    :param directory: where each shard gets a file of its name; None: one script, to the output.
    """
    for shard in shards:
        with named(invocation.cluster, shard):
            if directory is None:
                _write_part(invocation, shard)
            else:
                _write_file(invocation, shard, directory)


def _write_part(invocation: Invocation, shard: str) -> None:
    _configure(invocation, shard)
    if len(invocation.cluster.shards) > 1:
        invocation.environment.static_output(f"-- shard {shard}")
    invocation.run()


def _write_file(invocation: Invocation, shard: str, directory: Path) -> None:
    script = StringIO()
    _configure(invocation, shard, output_buffer=script)
    invocation.run()
    # At the end: half a script would look like a whole one.
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{shard}.sql").write_text(script.getvalue(), encoding="utf-8")


def _configure(invocation: Invocation, shard: str, **further: Any) -> None:
    url = invocation.cluster.shards[shard].engine.url
    options = {**_AS_STOCK, **invocation.options}
    invocation.configure(shard, **{**options, "url": url, **further})
