"""Why several shards cannot answer a statement."""

from __future__ import annotations


class Refusal(Exception):
    """The reason why several shards cannot answer, with what to do instead."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice
