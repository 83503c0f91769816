"""What a killed run leaves is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from sqlalchemy_shards.testing.account import Account
from sqlalchemy_shards.testing.processes import (
    is_alive,
    processes_of,
    start_time,
    wait_until,
)
from sqlalchemy_shards.testing.remains import OWNER, PREFIX, claim_temporary_directory
from sqlalchemy_shards.testing.servers import PostgresServers

pytestmark = pytest.mark.slow

SERVING = """
import sys
from sqlalchemy_shards.testing.servers import PostgresServers

with PostgresServers(2) as servers:
    print(servers.url(0), flush=True)
    sys.stdin.read()
"""


def base_of(url: str) -> Path:
    return Path(make_url(url.strip()).query["host"]).parent


def sweep() -> Path:
    return claim_temporary_directory(Account.choose())


@pytest.fixture
def dead_process(run_python) -> int:
    process = run_python("-c", "")
    process.communicate()
    return process.pid


def test_servers_and_directory_of_a_killed_run_are_removed(temporary_root, run_python):
    run = run_python("-c", SERVING)
    base = base_of(run.stdout.readline())
    run.kill()
    run.wait()
    left = processes_of(base)
    assert len([process for process in left if "-D" in process.arguments]) == 2

    with PostgresServers(1):
        assert not any(is_alive(process.pid) for process in left)
        assert not base.exists()


def test_orphans_of_a_killed_postmaster_are_removed_even_when_stopped(temporary_root, run_python):
    run = run_python("-c", SERVING)
    base = base_of(run.stdout.readline())
    left = processes_of(base)
    orphan = next(process for process in left if "checkpointer" in process.arguments[0])
    os.kill(orphan.pid, signal.SIGSTOP)
    run.kill()
    run.wait()
    os.kill(orphan.parent, signal.SIGKILL)

    sweep()

    assert wait_until(lambda: not any(is_alive(process.pid) for process in left), 10)
    assert not base.exists()


def test_two_runs_at_once_leave_each_other_alone(temporary_root, run_python):
    (temporary_root / f"{PREFIX}remains" / "d0").mkdir(parents=True)
    runs = [run_python("-c", SERVING) for _ in range(2)]

    bases = [base_of(run.stdout.readline()) for run in runs]

    assert bases[0] != bases[1]
    for run, base in zip(runs, bases, strict=True):
        assert len(processes_of(base)) > 2
        run.communicate("")
        assert run.returncode == 0
    assert list(temporary_root.glob(f"{PREFIX}*")) == []


def test_a_process_number_in_use_again_is_not_the_owner(temporary_root):
    namespace = Path("/proc/self/ns/pid").readlink()
    remains = temporary_root / f"{PREFIX}remains"
    remains.mkdir()
    (remains / OWNER).write_text(f"{os.getpid()} {int(start_time(os.getpid())) - 1} {namespace}\n")

    sweep()

    assert not remains.exists()


def test_a_directory_whose_removal_did_not_end_is_removed(temporary_root):
    (temporary_root / f"{PREFIX}remains" / "d0").mkdir(parents=True)

    base = sweep()

    assert list(temporary_root.glob(f"{PREFIX}*")) == [base]


def test_a_living_owner_keeps_its_directory(temporary_root):
    first = sweep()

    second = sweep()

    assert set(temporary_root.glob(f"{PREFIX}*")) == {first, second}


def test_the_directory_of_another_container_is_left_alone(temporary_root, dead_process):
    other = temporary_root / f"{PREFIX}other"
    other.mkdir()
    (other / OWNER).write_text(f"{dead_process} 1 pid:[1]\n")

    sweep()

    assert other.exists()


def test_links_and_plain_files_are_left_alone(temporary_root, tmp_path):
    (tmp_path / "precious").touch()
    (temporary_root / f"{PREFIX}link").symlink_to(tmp_path)
    (temporary_root / f"{PREFIX}file").touch()

    sweep()

    assert (tmp_path / "precious").exists()
    assert (temporary_root / f"{PREFIX}file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's directory")
def test_the_directory_of_another_user_is_left_alone(temporary_root):
    other = temporary_root / f"{PREFIX}other"
    other.mkdir()
    os.chown(other, 65534, 65534)

    sweep()

    assert other.exists()


def test_a_process_that_only_has_the_number_of_a_postmaster_is_left_alone(temporary_root):
    with subprocess.Popen(["sleep", "60"]) as innocent:
        data = temporary_root / f"{PREFIX}remains" / "d0"
        data.mkdir(parents=True)
        (data / "postmaster.pid").write_text(f"{innocent.pid}\n{data}\n")

        sweep()

        assert innocent.poll() is None
        assert not data.exists()
        innocent.kill()
