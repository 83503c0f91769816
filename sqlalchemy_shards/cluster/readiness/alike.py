"""Whether the shards are alike in what answers depend on: the same row, the same answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.topology.durations import shown_duration

from .report import Finding, Status, shards_by, told_by_shard
from .server import shown_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .seen import ShardFacts

CLOCK_SECONDS_MAX: Final = 1.0
"""How far a server's clock may be from that of this machine."""


def judge_alikeness(seen: Mapping[str, ShardFacts]) -> Iterator[Finding]:
    """Yield what is to be said of all shards together; they have all answered."""
    yield _versions(seen)
    yield _text(seen)
    yield from _collation_libraries(seen)
    yield _settings(seen)
    yield _clocks(seen)


def _versions(seen: Mapping[str, ShardFacts]) -> Finding:
    majors = _groups(seen, lambda facts: f"PostgreSQL {facts.server.version // 10000}")
    if len(majors) == 1:
        exact = sorted({facts.server.version for facts in seen.values()})
        shown = ", ".join(map(shown_version, exact))
        return Finding(None, "versions", Status.OK, f"PostgreSQL {shown}")
    return Finding(
        None,
        "versions",
        Status.WARNING,
        told_by_shard(majors),
        "upgrade the older ones: functions and orders differ between major versions",
    )


def _text(seen: Mapping[str, ShardFacts]) -> Finding:
    differing = _differing(seen, lambda facts: facts.database.text, "none")
    if not differing:
        text = next(iter(seen.values())).database.text
        found = f"{text.get('encoding', '')}, ordered by {text.get('collation', '')}"
        return Finding(None, "text", Status.OK, found)
    return Finding(
        None,
        "text",
        Status.FAILED,
        f"shards keep or order text differently: {'; '.join(differing)}",
        "make the databases anew with one encoding and one locale, and move the rows",
    )


def _collation_libraries(seen: Mapping[str, ShardFacts]) -> Iterator[Finding]:
    libraries = _groups(seen, lambda facts: facts.database.library_version or "none")
    if len(libraries) > 1:
        yield Finding(
            None,
            "collation versions",
            Status.WARNING,
            f"collations come in several versions, which may order differently: "
            f"{told_by_shard(libraries)}",
            "let all servers have the same release of the operating system, or of ICU",
        )


def _settings(seen: Mapping[str, ShardFacts]) -> Finding:
    differing = _differing(seen, lambda facts: facts.server.settings, "")
    if not differing:
        zone = next(iter(seen.values())).server.settings.get("TimeZone", "")
        return Finding(None, "settings", Status.OK, f"alike, time zone {zone}")
    return Finding(
        None,
        "settings",
        Status.FAILED,
        f"answers depend on the shard: {'; '.join(differing)}",
        "set them alike, for the servers, the databases or the role",
    )


def _clocks(seen: Mapping[str, ShardFacts]) -> Finding:
    wrong = []
    for shard, facts in seen.items():
        ahead = facts.server.seconds_ahead
        if abs(ahead) - facts.server.seconds_unsure > CLOCK_SECONDS_MAX:
            way = "ahead of" if ahead > 0 else "behind"
            wrong.append(f"{shard} is {shown_duration(abs(ahead))} {way} this machine")
    if not wrong:
        found = f"within {CLOCK_SECONDS_MAX:g} s of this machine's"
        return Finding(None, "clocks", Status.OK, found)
    return Finding(
        None,
        "clocks",
        Status.WARNING,
        ", ".join(wrong),
        "let all machines take their time from NTP: now() and generated ids differ",
    )


def _differing(
    seen: Mapping[str, ShardFacts],
    values: Callable[[ShardFacts], Mapping[str, str]],
    absent: str,
) -> list[str]:
    """In words, the named values that not all shards have alike."""
    names = dict.fromkeys(name for facts in seen.values() for name in values(facts))
    return [
        f"{name}: {told_by_shard(groups)}"
        for name in names
        if len(groups := _groups(seen, lambda f, n=name: values(f).get(n, absent))) > 1  # type: ignore[misc]
    ]


def _groups(
    seen: Mapping[str, ShardFacts], value: Callable[[ShardFacts], str]
) -> dict[str, list[str]]:
    """Value -> the shards that have it."""
    return shards_by({shard: value(facts) for shard, facts in seen.items()})
