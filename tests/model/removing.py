"""What those who remove decision rows may do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy_shards.transactions.protocol.cleaning import DecisionRow
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from tests.model.databases import GID, ROW_OUTCOMES, UUIDS, Step, row_removed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.coordinating import Coordinating
    from tests.model.world import World


class Removing:
    """The steps of the cleaner, and of a coordinator that was confirmed."""

    def __init__(self, coordinating: Coordinating) -> None:
        self._databases = coordinating.databases
        self.rules = coordinating.rules
        self.names = coordinating.names

    def after(self, world: World) -> Iterator[Step]:
        """Give every step that one of them may take next."""
        if world.reported is Outcome.COMMITTED and world.is_confirmed and world.decisions.outcome:
            yield "the coordinator removes its row", row_removed(world)
        cleaner = world.cleaner
        if cleaner.is_done:
            return
        if cleaner.seen is None:
            if world.decisions.outcome:
                seen = (world.decisions.outcome, self._databases.is_over(world))
                looking = world._replace(cleaner=cleaner._replace(seen=seen))
                yield "the cleaner sees a row", looking
            return
        for number, db in enumerate(world.dbs):
            if number not in cleaner.listed:
                listed = cleaner._replace(
                    listed=cleaner.listed | {number}, holds=cleaner.holds or db.is_prepared
                )
                yield f"the cleaner lists {self.names[number]}", world._replace(cleaner=listed)
        outcome, is_over = cleaner.seen
        row = DecisionRow(
            str(GID),
            ROW_OUTCOMES[outcome],  # type: ignore[arg-type]
            frozenset(UUIDS[: len(world.dbs)]) if outcome == 1 else frozenset(),
            is_expired=True,
            is_over=is_over,
        )
        looked_at = {UUIDS[number] for number in cleaner.listed}
        held = {str(GID)} if cleaner.holds else set()
        if self.rules.may_go(row, looked_at=looked_at, held=held):
            yield "the cleaner removes the row", row_removed(world)
