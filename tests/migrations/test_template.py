"""The environments that an application begins with work at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards.migrations.env.template import template, write_environment
from tests.databases import ask
from tests.migrations.project import Project

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def bare(tmp_path: Path, clean_shards: Mapping[str, str]) -> Project:
    """A directory with the cluster's configuration alone, on two shards."""
    project = Project(tmp_path, {shard: clean_shards[shard] for shard in ("s0", "s1")})
    project.write_cluster()
    return project


def test_what_shards_init_writes_migrates_every_shard(
    bare: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bare.directory)

    write_environment(Path("shards.toml"))

    assert migrated(bare) == ["INFO  [alembic.shards] shard s0", "INFO  [alembic.shards] shard s1"]


def test_a_template_keeps_options_in_pyproject(bare: Project) -> None:
    made = bare.run("alembic", "init", "-t", template("pyproject"), "migrations")
    (bare.directory / "alembic.ini").write_text(
        (bare.directory / "alembic.ini").read_text().replace("level = INFO", "level = ERROR")
    )

    assert made.returncode == 0, made.stderr
    assert "shards_config" not in (bare.directory / "alembic.ini").read_text()
    assert migrated(bare) == []


def test_the_templates_share_what_they_can() -> None:
    for name in ("env.py", "script.py.mako"):
        assert Path(template(), name).read_text() == Path(template("pyproject"), name).read_text()


def test_there_is_no_template_of_another_name() -> None:
    with pytest.raises(ValueError, match="there is no template 'async'; there are: generic, pypro"):
        template("async")


def migrated(project: Project) -> list[str]:
    """Write a revision and go there; what the log says of shards."""
    for arguments in (("revision", "--rev-id", "r1"), ("upgrade", "head")):
        done = project.run("alembic", *arguments)
        assert done.returncode == 0, done.stderr
    for url in project.urls.values():
        assert ask(url, "SELECT version_num FROM alembic_version") == [("r1",)]
    return [line for line in done.stderr.splitlines() if "alembic.shards" in line]
