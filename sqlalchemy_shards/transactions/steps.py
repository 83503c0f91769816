"""One command of the protocol, performed on one shard, and its answer told to the protocol.

- An answer is told before anything else can fail, so that what the server did is never forgotten.
- What raises is told too, as the protocol reads it, and raised again for the report; but "not
  there" is no error where the protocol takes the part for finished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.connections.exchange import exchange
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions import fail_points, statements
from sqlalchemy_shards.transactions.finishing import finish_prepared
from sqlalchemy_shards.transactions.protocol.coordinator import Command, Heard, Phase, Verb
from sqlalchemy_shards.transactions.protocol.replies import (
    COMMIT,
    COMMIT_PREPARED,
    PREPARE,
    ROLLBACK,
    ROLLBACK_PREPARED,
    Link,
    Reply,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity
    from sqlalchemy_shards.connections.exchange import Request
    from sqlalchemy_shards.transactions.gid import ParticipantGid, TransactionGid
    from sqlalchemy_shards.transactions.markers import Marker
    from sqlalchemy_shards.transactions.participants import Part
    from sqlalchemy_shards.transactions.protocol.coordinator import Commit
    from sqlalchemy_shards.transactions.rounds import Wiring


class Steps:
    """Performs the commands of one commit.

    ``gid`` and ``participants``, the decision shard first, are set before the first PREPARE.
    """

    def __init__(self, protocol: Commit, wiring: Wiring, parts: Mapping[str, Part]) -> None:
        self._protocol = protocol
        self._wiring = wiring
        self._hooks = wiring.hooks
        self._parts = parts
        self.gid: TransactionGid | None = None
        self.participants: Sequence[Identity] = ()
        self.markers: Mapping[UUID, Sequence[Marker]] = {}
        self._unclear: dict[Command, int | None] = {}

    def perform(self, commands: Sequence[Command], seconds: float) -> dict[str, BaseException]:
        """Perform commands over the shards' own connections, at once; return what went wrong.

        :raises BaseException: what interrupted it.
        """
        try:
            errors = self._perform(commands, seconds)
            if self._unclear and not errors:
                # A second round trip, for sessions that ever had temporary objects.
                errors = self._perform(tuple(self._unclear), seconds)
            return errors
        finally:
            self._unclear.clear()

    def _perform(self, commands: Sequence[Command], seconds: float) -> dict[str, BaseException]:
        errors: dict[str, BaseException] = {}
        under_way: dict[Request, Command] = {}

        def requests() -> Iterator[Request]:
            for command in commands:
                try:
                    request = self._request(command)
                except Exception as error:
                    errors[command.shard] = error
                else:
                    if request is not None:
                        under_way[request] = command
                        yield request

        def hear(answer: Request) -> None:
            try:
                self._hear(under_way[answer], answer)
            except Exception as error:
                errors[answer.shard] = error

        exchange(requests(), hear, self._wiring.fan_out, seconds=seconds)
        return errors

    def perform_anew(self, commands: Sequence[Command], seconds: float) -> dict[str, BaseException]:
        """Perform commands over new connections, at once; return what went wrong."""
        branches = [self._branch(command) for command in commands]
        outcomes = self._wiring.fan_out.run(branches, deadline_seconds=seconds)
        return {o.shard: o.error for o in outcomes if o.error is not None}

    def commit_alone(self, command: Command) -> None:
        """Commit the only participant, as with one PostgreSQL: no time limit, and its own error."""
        part = self._parts[command.shard]
        try:
            part.driver.commit()
        except BaseException as error:
            reply = statements.reply_of(error, COMMIT, is_lost=part.is_lost)
            self._protocol.handle(Heard(command, reply))
            raise
        self._protocol.handle(Heard(command, Reply.DONE))

    def _request(self, command: Command) -> Request | None:
        """What is to be sent; None: nothing."""
        verb, part = command.verb, self._parts[command.shard]
        if self._hooks.fail_points is not None:
            self._reach(_BEFORE.get(verb), part)
        if verb is Verb.PREPARE:
            gid = _named(part)
            return statements.prepare(part, gid, self.markers.get(gid.participant, ()))
        if verb is Verb.COMMIT_PREPARED or verb is Verb.ROLLBACK_PREPARED:
            return statements.two_phase(part, _TAGS[verb], _named(part))
        if verb is Verb.ASK or verb is Verb.ASK_AND_ASSIGN:
            if command in self._unclear:
                return statements.ask_temporary(part)
            return statements.ask(part, assign=verb is Verb.ASK_AND_ASSIGN)
        if verb is Verb.INSERT_DECISION:
            return self._insert_decision(part)
        if verb is Verb.FORGET:
            gids = self._wiring.acknowledged.due(part.name)
            return statements.forget_decisions(part, gids) if gids else None
        if part.link is Link.IDLE:  # nothing ran in it
            self._protocol.handle(Heard(command, Reply.DONE))
            return None
        return statements.plain(part, _TAGS[verb])

    def _hear(self, command: Command, answer: Request) -> None:
        """Tell the protocol; raises what went wrong."""
        verb = command.verb
        error = None
        if answer.tag != _TAGS[verb]:
            error = answer.error or _misfit(verb, answer)
        if error is not None:
            self._hear_of_error(command, error)
        elif verb is Verb.ASK or verb is Verb.ASK_AND_ASSIGN:
            self._hear_standing(command, answer)
        else:
            self._protocol.handle(Heard(command, Reply.DONE))
        if self._hooks.fail_points is not None:
            self._reach(_AFTER.get(verb), self._parts[command.shard])

    def _hear_of_error(self, command: Command, error: BaseException) -> None:
        part = self._parts[command.shard]
        reply = statements.reply_of(error, _TAGS[command.verb], is_lost=part.is_lost)
        self._protocol.handle(Heard(command, reply))
        if reply is not Reply.NOT_THERE or self._is_left(part):
            raise error

    def _branch(self, command: Command) -> Branch[None]:
        part = self._parts[command.shard]
        opened: list[psycopg.Connection[Any]] = []

        def run() -> None:
            with self._wiring.connect(part.name) as connection:
                opened.append(connection)
                reply = finish_prepared(connection, _TAGS[command.verb], _named(part))
                self._protocol.handle(Heard(command, reply))

        return Branch(part.name, run, lambda: opened[-1] if opened else None)

    def _hear_standing(self, command: Command, answer: Request) -> None:
        if command in self._unclear:
            xid, cannot_prepare = self._unclear[command], statements.cannot_prepare(answer)
        else:
            xid, is_unclear = statements.standing_of(answer)
            if is_unclear:
                self._unclear[command] = xid
                return
            cannot_prepare = False
        self._protocol.handle(Heard(command, Reply.DONE, xid, cannot_prepare))

    def _insert_decision(self, part: Part) -> Request:
        if self.gid is None:
            raise ValueError("round 0 comes first")
        markers = self.markers.get(self.gid.decision_shard, ())
        return statements.insert_decision(part, self.gid, self.participants, markers)

    def _is_left(self, part: Part) -> bool:
        return self._protocol.phases[part.name] is not Phase.FINISHED

    def _reach(self, fail_point: str | None, part: Part) -> None:
        if fail_point is not None:
            is_shared = fail_point in fail_points.OF_THE_DECISION_SHARD
            self._hooks.reach(fail_point, None if is_shared else part.name)


def _named(part: Part) -> ParticipantGid:
    if part.gid is None:
        raise ValueError("only a participant that is not the decision shard has a name of its own")
    return part.gid


def _misfit(verb: Verb, answer: Request) -> BaseException | None:
    """What is wrong with an answer that is no error, and has another tag than the usual one."""
    if verb is Verb.INSERT_DECISION:
        return ConfigurationError(
            f"the database behind shard {answer.shard!r} is not the one that it was, or its"
            " cluster has consistent reads since, and this process has not",
            "check where its URL leads, and consistent_reads of all processes; the transaction was"
            " rolled back on every shard",
            shard=answer.shard,
        )
    if verb is Verb.FORGET:
        return None
    error = statements.misfit(_TAGS[verb], answer.tag)
    if verb is Verb.COMMIT and isinstance(error, statements.RolledBackError):
        return None  # a reader whose transaction had failed: it wrote nothing
    return error


_TAGS: Final[Mapping[Verb, str]] = {
    Verb.ASK: "SELECT 1",
    Verb.ASK_AND_ASSIGN: "SELECT 1",
    Verb.INSERT_DECISION: "INSERT 0 1",
    Verb.PREPARE: PREPARE,
    Verb.COMMIT_PREPARED: COMMIT_PREPARED,
    Verb.ROLLBACK_PREPARED: ROLLBACK_PREPARED,
    Verb.COMMIT: COMMIT,
    Verb.ROLLBACK: ROLLBACK,
    Verb.FORGET: "DELETE",
}
"""The tag of the usual answer; one with another tag is looked into."""

_BEFORE = {
    Verb.INSERT_DECISION: fail_points.BEFORE_DECISION_ROW,
    Verb.PREPARE: fail_points.BEFORE_PREPARE,
    Verb.COMMIT_PREPARED: fail_points.BEFORE_COMMIT_PREPARED,
    Verb.ROLLBACK_PREPARED: fail_points.BEFORE_ROLLBACK_PREPARED,
    Verb.FORGET: fail_points.BEFORE_FORGET,
}
_AFTER = {
    Verb.INSERT_DECISION: fail_points.AFTER_DECISION_ROW,
    Verb.PREPARE: fail_points.AFTER_PREPARE,
    Verb.COMMIT_PREPARED: fail_points.AFTER_COMMIT_PREPARED,
    Verb.ROLLBACK_PREPARED: fail_points.AFTER_ROLLBACK_PREPARED,
    Verb.FORGET: fail_points.AFTER_FORGET,
}
