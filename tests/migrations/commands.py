"""Alembic's command line in this process: what a command said, and how it ended."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from alembic.config import CommandLine, Config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CREATE_DATE = re.compile(r"Create Date: .*")
LISTS = re.compile(r"\b\w+(?:, \w+)+\b")
"""Labels and revisions that Alembic takes from a set, in any order."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    :param failure: the type and the text of the error that came out of it; "" for none.
    :param code: with which it would have left its process.
    :param log: what Alembic's loggers said, as its own configuration would print it, but for the
        plug-ins that it sets up: these are ours, too.
    """

    output: str
    log: tuple[str, ...] = ()
    code: int = 0
    failure: str = ""
    notes: tuple[str, ...] = ()


def alembic(directory: Path, *arguments: str, config: str = "alembic.ini") -> Ended:
    """Run one command on the project in a directory."""
    line = CommandLine()
    options = line.parser.parse_args(list(arguments))
    kind = "toml_file" if config.endswith("toml") else "file_"
    output = StringIO()
    code, failure = 0, ""
    notes: tuple[str, ...] = ()
    with _log() as log, redirect_stdout(output):
        try:
            settings = Config(**{kind: directory / config}, cmd_opts=options, stdout=output)
            line.run_cmd(settings, options)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        except Exception as error:
            code, failure = 1, f"{type(error).__name__}: {error}"
            notes = tuple(getattr(error, "__notes__", ()))

    def told(text: str) -> str:
        text = text.replace(str(directory), "DIRECTORY")
        return LISTS.sub(_sorted, CREATE_DATE.sub("Create Date: NOW", text))

    return Ended(told(output.getvalue()), tuple(map(told, log)), code, failure, notes)


@contextmanager
def _log() -> Iterator[list[str]]:
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.name.endswith(".plugins"):
                lines.append(f"{record.levelname} [{record.name}] {record.getMessage()}")

    logger, handler = logging.getLogger("alembic"), Handler()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


def _sorted(found: re.Match[str]) -> str:
    return ", ".join(sorted(found[0].split(", ")))
