"""What README and docs show is so: every sample runs, and says what the page says.

The pages that go on from the getting-started page begin with its models, its cluster over real
shards and its rows.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards import Cluster
from tests.docs.samples import PAGES, ROOT, Runner, file_sample, read_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START = ROOT / "docs" / "guide" / "getting-started.md"
ELSEWHERE = (ROOT / "docs" / "testing.md", ROOT / "docs" / "guide" / "moving-over.md")
"""Pages of applications, run by `test_application_tests.py` and `test_moving_over.py`."""

MIGRATIONS = ROOT / "docs" / "guide" / "migrations.md"
"""Has the files of the getting-started page, and begins on empty shards."""

ON_THEIR_OWN = (ROOT / "README.md", START, ROOT / "docs" / "hashing.md")

BEGINNING = """
from sqlalchemy.orm import sessionmaker
from sqlalchemy_shards import *
from shop import Base, Country, FeatureFlag, Order, User

cluster = Cluster.from_file("shards.toml")
cluster.create_all(Base.metadata)
Session = sessionmaker(class_=ShardedSession, cluster=cluster)
with Session.begin() as session:
    session.add_all([Country(code="in", name="India"), Country(code="np", name="Nepal")])
    session.add(FeatureFlag(name="beta", is_on=True))
    for number in range(1, 9):
        orders = [Order(number=n, amount=10 * n) for n in (1, 2)]
        session.add(User(id=number, name=f"user {number}", country_code="in", orders=orders))
"""


@pytest.fixture
def runner(
    clean_shards: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Runner]:
    """Runs samples in an empty directory; modules and clusters that they make go afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DB_PASSWORD", "secret")
    modules = set(sys.modules)
    # Annotations of mapped classes are looked up in the module that a class says it is from.
    module = sys.modules["documented"] = ModuleType("documented")
    namespace = vars(module)
    yield Runner(clean_shards, tmp_path, namespace)
    for value in namespace.values():
        if isinstance(value, Cluster):
            value.dispose()
    del sys.modules["documented"]
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page not in ELSEWHERE and read_samples(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_samples_of_a_page_do_what_it_says(page: Path, runner: Runner) -> None:
    if page not in ON_THEIR_OWN:
        for file_name in ("shop.py", "shards.toml"):
            runner.write(file_name, file_sample(START, file_name))
        if page != MIGRATIONS:
            exec(BEGINNING, runner.namespace)

    runner.run(read_samples(page))
