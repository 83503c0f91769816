"""Fail-points: free where nobody uses them, and told apart by shard where somebody does."""

from __future__ import annotations

from sqlalchemy_shards.events import Hooks, at

PLACE = "commit.before_prepare"


class CountingHooks(Hooks):
    """Counts the reads of its attributes, once it is told to."""

    reads: list[str] | None = None

    def __getattribute__(self, name: str) -> object:
        reads = super().__getattribute__("reads")
        if reads is not None:
            reads.append(name)
        return super().__getattribute__(name)


class Untouchable(str):
    """A shard's name that must not be made part of another text."""

    def __format__(self, spec: str) -> str:
        raise AssertionError("the name of a disarmed fail-point was put together")


def test_a_disarmed_fail_point_costs_one_attribute_read() -> None:
    hooks = CountingHooks()
    reach = hooks.reach
    hooks.reads = reads = []

    reach(PLACE)
    reach(PLACE, Untouchable("s1"))

    assert reads == ["fail_points", "fail_points"]


def test_an_armed_fail_point_runs_what_is_there_and_no_other() -> None:
    reached: list[str] = []
    hooks = Hooks()
    hooks.fail_points = {PLACE: reached.append, at(PLACE, "s1"): reached.append}

    hooks.reach("commit.after_prepare")
    hooks.reach(PLACE)
    hooks.reach(PLACE, "s1")
    hooks.reach(PLACE, "s2")

    assert reached == [PLACE, at(PLACE, "s1")]
