"""How far shards are, by their revisions and those of the scripts."""

from __future__ import annotations

from sqlalchemy_shards.migrations.standing import Distance, Revisions, Standing

LINE = Revisions({"a": [], "b": ["a"], "c": ["b"]})
BRANCHES = Revisions({"a": [], "b": ["a"], "x": ["a"], "y": ["x"]})


def test_a_shard_lacks_what_it_has_not_gone_through() -> None:
    distances = LINE.distances({"s0": ["c"], "s1": ["a"], "s2": []})

    assert distances == {
        "s0": Distance(Standing.AT_HEAD, 0),
        "s1": Distance(Standing.BEHIND, 2),
        "s2": Distance(Standing.BEHIND, 3),
    }


def test_a_shard_with_a_revision_that_no_script_has_is_ahead() -> None:
    distances = LINE.distances({"s0": ["d"], "s1": ["c"]})

    assert distances["s0"] == Distance(Standing.AHEAD, None, ("d",))


def test_a_dependency_was_gone_through_too() -> None:
    revisions = Revisions({"a": [], "other": [], "b": ["a", "other"]})

    assert revisions.distances({"s0": ["b"]}) == {"s0": Distance(Standing.AT_HEAD, 0)}


def test_every_branch_is_needed() -> None:
    distances = BRANCHES.distances({"s0": ["b", "y"], "s1": ["b"]})

    assert distances["s1"] == Distance(Standing.BEHIND, 2)


def test_a_shard_apart_from_most_is_on_another_branch() -> None:
    distances = BRANCHES.distances({"s0": ["b"], "s1": ["b"], "s2": ["y"], "s3": ["a"]})

    assert {shard: each.standing for shard, each in distances.items()} == {
        "s0": Standing.BEHIND,
        "s1": Standing.BEHIND,
        "s2": Standing.OTHER_BRANCH,
        "s3": Standing.BEHIND,
    }


def test_without_revisions_every_shard_is_at_head() -> None:
    assert Revisions({}).distances({"s0": []}) == {"s0": Distance(Standing.AT_HEAD, 0)}
