"""The samples of docs/testing.md are files of an application's test suite: they run as such."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.samples import ROOT, Runner, Sample, read_samples

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MODELS = """
from decimal import Decimal

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sqlalchemy_shards import ShardKeyMixin


class Base(DeclarativeBase): ...


class User(ShardKeyMixin, Base):
    __tablename__ = "users"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    email: Mapped[str]
    orders: Mapped[list["Order"]] = relationship()


class Order(ShardKeyMixin, Base):
    __tablename__ = "orders"
    __shard_key__ = "user_id"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    amount: Mapped[Decimal]
"""


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    found = read_samples(ROOT / "docs" / "testing.md")
    return [each for each in found if each.language == "python"]


def test_the_samples_are_a_test_suite_that_passes(samples: list[Sample], tmp_path: Path) -> None:
    conftest = next(each for each in samples if each.file_name == "conftest.py")
    tests = [each for each in samples if "def test_" in each.text]
    imports = "from myapp.models import Order, User\n"
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "models.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest.text, encoding="utf-8")
    for number, each in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(imports + each.text, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_servers_can_be_run_by_hand(
    samples: list[Sample], clean_shards: Mapping[str, str], tmp_path: Path
) -> None:
    by_hand = next(each for each in samples if "PostgresServers(" in each.text)
    runner = Runner(clean_shards, tmp_path, {})

    exec("from sqlalchemy_shards import create_cluster", runner.namespace)

    runner.python(by_hand, None)
