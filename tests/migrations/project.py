"""A migrated application, as a directory: models, a configuration, an Alembic environment.

Tests run Alembic on it in their own process (`Project.config`, `alembic.command`), and `shards`
(`Project.shards`), or both as processes of their own (`Project.run`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.config import Config
from typer.testing import CliRunner

from sqlalchemy_shards.cli.main import create_app

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.testing import Result

SCREEN = {"NO_COLOR": "1", "COLUMNS": "100"}

ENV = """\
from alembic import context

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.migrations import run_migrations

cluster = Cluster.from_file({config!r})
try:
    run_migrations(context, cluster, {metadata})
finally:
    cluster.dispose()
"""

MAKO = '''\
"""${message}"""
from alembic import op
import sqlalchemy as sa

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''

REVISION = '''\
"""{message}"""
from alembic import op
import sqlalchemy as sa

revision = {revision!r}
down_revision = {down!r}
branch_labels = {labels!r}
depends_on = {depends_on!r}


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
'''


@dataclass
class Project:
    """A directory with ``shards.toml``, ``migrations/`` and whatever a test adds."""

    directory: Path
    urls: Mapping[str, str]

    def write(self, metadata: str = "None", *, cluster: str = "", env: str = ENV) -> None:
        """Write the configuration and the environment.

        :param metadata: Python expression of the target metadata.
        :param cluster: further lines of the section ``[cluster]``.
        """
        self.write_cluster(cluster)
        (self.scripts / "versions").mkdir(parents=True, exist_ok=True)
        (self.scripts / "script.py.mako").write_text(MAKO)
        (self.scripts / "env.py").write_text(
            env.format(config=str(self.config_file), metadata=metadata)
        )
        (self.directory / "alembic.ini").write_text(
            "[alembic]\nscript_location = %(here)s/migrations\n"
            "prepend_sys_path = .\npath_separator = os\n"
        )

    def write_cluster(self, cluster: str = "") -> None:
        """Write the cluster's configuration.

        :param cluster: further lines of the section ``[cluster]``.
        """
        shards = "\n".join(f'{name} = "{url}"' for name, url in self.urls.items())
        self.config_file.write_text(
            f'[cluster]\nname = "app"\n{cluster}\n[shards]\n{shards}\n[keyspaces.default]\n'
            'partitioner = "hash"\nbuckets = 64\n'
        )

    def revise(
        self,
        revision: str,
        down: str | tuple[str, ...] | None,
        upgrade: str = "pass",
        downgrade: str = "pass",
        *,
        labels: tuple[str, ...] | None = None,
        depends_on: str | tuple[str, ...] | None = None,
    ) -> None:
        """Write a revision; its functions are lines of Python, one below the other."""
        text = REVISION.format(
            message=revision,
            revision=revision,
            down=down,
            labels=labels,
            depends_on=depends_on,
            upgrade=upgrade.replace("\n", "\n    "),
            downgrade=downgrade.replace("\n", "\n    "),
        )
        (self.scripts / "versions" / f"{revision}.py").write_text(text)

    @property
    def config_file(self) -> Path:
        """The cluster's configuration."""
        return self.directory / "shards.toml"

    @property
    def scripts(self) -> Path:
        """Alembic's script directory."""
        return self.directory / "migrations"

    def config(self) -> Config:
        """Alembic's configuration; what commands print is in its ``stdout``."""
        return Config(str(self.directory / "alembic.ini"), stdout=StringIO())

    def shards(self, *arguments: str) -> Result:
        """Run ``shards`` with these arguments in the directory of the project, in this process."""
        before = Path.cwd()
        os.chdir(self.directory)
        try:
            return CliRunner(env=SCREEN).invoke(create_app(), list(arguments))
        finally:
            os.chdir(before)

    def run(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``python -m`` with these arguments in the directory of the project."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.directory,
            env={**os.environ, **SCREEN},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin ``python -m`` with these arguments in the directory of the project."""
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
