"""A configuration file, as the arguments of ``create_cluster()``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards._compat.alembic_errors import printed_by_alembic
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.config import parse_config

from .limits import GatherLimit
from .timeouts import Timeouts

if TYPE_CHECKING:
    from pathlib import Path


@printed_by_alembic()
def read_arguments(source: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the URLs of the shards in a file, and the other arguments.

    :raises ConfigurationError: the file cannot be read, or with every fault that is in it.
    """
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError(
            f"the configuration file {str(source)!r} cannot be read: {reason}",
            "name an existing file, or write one with `shards init`",
        ) from None
    config = parse_config(text, os.environ, source=str(source))
    arguments = {
        "name": config.name,
        "keyspaces": config.keyspaces,
        "global_shard": config.global_shard,
        "undeclared": config.undeclared,
        "scatter": config.scatter,
        "multi_shard_writes": config.multi_shard_writes,
        "on_unfinished": config.on_unfinished,
        "timeouts": Timeouts(**config.timeouts),
        "decision_retention": config.decision_retention,
        "workspace": config.workspace,
        "consistent_reads": config.consistent_reads,
        "gather_limit": GatherLimit(**config.gather_limit),
        **config.engine_arguments,
    }
    return {name: shard.primary for name, shard in config.shards.items()}, arguments
