"""Commands that only tell how far a database is: ``current``, and others that ask for ``current``.

Shards at the same revisions are told of once. Where all agree, the output is Alembic's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.util import DatabaseNotAtHead

from sqlalchemy_shards.migrations.env.naming import shards_named
from sqlalchemy_shards.migrations.turns.place import place_of
from sqlalchemy_shards.migrations.turns.run import JustLooking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.env.invocation import Invocation


def only_tells(environment: EnvironmentContext) -> bool:
    """Whether the command at hand is one of Alembic's own, and has nothing to run.

    One of another origin may do anything, and has to be run on each shard.
    """
    options = environment.context_opts
    function = options.get("fn")
    return getattr(function, "__module__", "") == command.__name__ and not (
        "destination_rev" in options or "revision_context" in options
    )


def tell(invocation: Invocation, shards: Sequence[str]) -> None:
    """Let the command tell of some shards.

    :raises DatabaseNotAtHead: as Alembic does, once all was told, with the shards that are not.
    """
    environment = invocation.environment
    options = environment.context_opts
    if len(shards) == 1:
        invocation.visit(JustLooking(shards), invocation.run)
        return
    told = _Told(invocation.cluster, environment.config, options["fn"])
    options["fn"] = told.at
    try:
        invocation.visit(JustLooking(shards), invocation.run)
    finally:
        options["fn"] = told.function
    told.print()


@dataclass
class _Group:
    """Shards at the same revisions, and what the command says of the first."""

    heads: frozenset[str]
    shards: list[str]
    text: str = ""
    error: DatabaseNotAtHead | None = None


@dataclass
class _Told:
    cluster: Cluster
    config: Config
    function: Callable[[Any, MigrationContext], Iterable[Any]]
    groups: list[_Group] = field(default_factory=list)

    def at(self, heads: tuple[str, ...], context: MigrationContext) -> Iterable[Any]:
        """Take a shard's turn, in place of the command's own function."""
        place = place_of(context)
        assert place is not None
        for group in self.groups:
            if group.heads == set(heads):
                group.shards.append(place.shard)
                return ()
        group = _Group(frozenset(heads), [place.shard])
        self.groups.append(group)
        said = StringIO()
        output, self.config.stdout = self.config.stdout, said
        try:
            return self.function(heads, context)
        except DatabaseNotAtHead as error:
            group.error = error
            return ()
        finally:
            self.config.stdout = output
            group.text = said.getvalue()

    def print(self) -> None:
        """Print what was said, and raise what was found."""
        for group in self.groups:
            if len(self.groups) > 1 and (group.text or group.error is None):
                self.config.print_stdout("S%s:", shards_named(group.shards).removeprefix("s"))
            for line in self._lines(group):
                self.config.print_stdout("%s", line)
        not_at_head = [group for group in self.groups if group.error is not None]
        if not_at_head:
            self._raise(not_at_head)

    def _lines(self, group: _Group) -> Iterable[str]:
        """What was said of the first; what names its database is said of each."""
        first, *others = (
            self.cluster.shards[shard].engine.url.render_as_string(hide_password=True)
            for shard in group.shards
        )
        for line in group.text.splitlines():
            yield line
            if first in line:
                yield from (line.replace(first, other) for other in others)
        if not group.text and group.error is None and not group.heads and len(self.groups) > 1:
            yield "(no revision)"

    def _raise(self, groups: list[_Group]) -> None:
        error = groups[0].error
        assert error is not None
        if len(groups) == len(self.groups):
            raise error
        shards = [shard for group in groups for shard in group.shards]
        raise DatabaseNotAtHead(f"{error}: {shards_named(shards)}") from error
