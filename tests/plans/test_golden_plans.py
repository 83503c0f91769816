"""The plan of each statement in the YAML files beside this one: where it runs, what, and why.

A change of a plan is to be read as a diff: `UPDATE_PLANS=1 pytest tests/plans` rewrites the files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
import yaml
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from sqlalchemy_shards.cluster.explain.explanation import spoken_merge
from sqlalchemy_shards.errors import ShardsError
from sqlalchemy_shards.plan import Gather
from tests.properties import world

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy_shards import Cluster

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.yaml"))
NAMES: dict[str, Any] = {
    **vars(sqlalchemy),
    **{name: getattr(orm, name) for name in ("aliased", "joinedload", "with_loader_criteria")},
    **{model.__name__: model for model in (*world.SHARDED, world.Country, world.Flag)},
    "Decimal": world.Decimal,
    "upsert": postgresql.insert,
}


def cases(file: Path) -> list[dict[str, Any]]:
    """The statements of a file."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@pytest.mark.skipif("UPDATE_PLANS" in os.environ, reason="plans are being rewritten")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{file.stem}: {case['name']}")
        for file in FILES
        for case in cases(file)
    ],
)
@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
def test_a_statement_has_its_plan(topologies: Mapping[str, Cluster], case: dict[str, Any]) -> None:
    plan = plan_of(topologies, case)

    assert plan == case["plan"]


@pytest.mark.skipif("UPDATE_PLANS" not in os.environ, reason="only on request")
@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
def test_rewrite_the_plans(topologies: Mapping[str, Cluster]) -> None:
    for file in FILES:
        found = [{**case, "plan": plan_of(topologies, case)} for case in cases(file)]
        text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100)
        file.write_text(text.replace("\n- name", "\n\n- name"), encoding="utf-8")


def plan_of(topologies: Mapping[str, Cluster], case: dict[str, Any]) -> dict[str, Any]:
    """What `explain` says of a case, as plain values."""
    statement = eval(case["statement"], dict(NAMES))
    cluster = topologies[case.get("topology", "four")]
    try:
        explanation = cluster.explain(statement, case.get("parameters"), **case.get("options", {}))
    except ShardsError as error:
        first_line = str(error).splitlines()[0]
        return {"error": type(error).__name__, "message": first_line}
    by_sql: dict[str, list[str]] = {}
    for step in explanation.steps:
        by_sql.setdefault(" ".join(step.sql.split()), []).append(step.shard)
    plan: dict[str, Any] = {
        "tier": explanation.tier.value,
        "because": explanation.reason,
        "runs": [{"on": ", ".join(shards), "sql": sql} for sql, shards in by_sql.items()],
    }
    if explanation.supplied:
        plan["ships"] = [
            f"{each.origin} from {', '.join(each.shards)}" for each in explanation.supplied
        ]
    if explanation.answers:
        plan["answers"] = [" ".join(each.split()) for each in explanation.answers]
    if explanation.merge is not None:
        plan["merge"] = spoken_merge(explanation.merge)
    for keys in explanation.merge.key_lists if isinstance(explanation.merge, Gather) else ():
        if keys.is_given:
            told = f"keys of {keys.keys_origin} from {', '.join(keys.keys_shards)}"
            waits = plan.setdefault("waits", {}).setdefault(told, [])
            waits.append(f"{keys.origin} on {', '.join(keys.shards)}")
    return plan
