"""Statements of every form, and exactly the shards that each must reach."""

from __future__ import annotations

import pytest

from tests.routed import routed
from tests.routing.golden import TERRITORY, Case, cases

FILES = (
    "conditions",
    "values",
    "ranges",
    "parts",
    "lists",
    "joins",
    "subqueries",
    "relationships",
    "writes",
)
GOLDEN = [case for name in FILES for case in cases(name)]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case.form}: {case.statement}")
@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
def test_a_statement_reaches_its_shards_and_no_others(case: Case) -> None:
    statement, parameters = case.made()

    route = routed(statement, TERRITORY, parameters)

    assert " ".join(sorted(route.shards)) == case.expected


def test_no_statement_stands_in_the_list_twice() -> None:
    statements = [case.statement for case in GOLDEN]

    assert len(set(statements)) == len(statements) > 600
