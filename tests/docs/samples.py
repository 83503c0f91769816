"""The fenced blocks of a Markdown page, run one after the other in one namespace.

- `python` runs. A `text` block right behind it is what it prints; or, where it begins with the name
  of an error class and a colon, the error that it raises. White space counts once, `...` stands
  for anything.
- `sql` runs on shard s0, and is rolled back.
- `toml` is a configuration without faults.
- `shell` holds commands of `shards`, which are run where a `text` block follows, and exist
  elsewhere; there, those of `alembic` are run too.
- A block whose first line is `# ` and a file name is written under that name into the working
  directory; Python is then run only if something imports it.
- The URLs of the pages (`postgresql+psycopg://app@db0/shop`, `db1`, ...) stand for real shards.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from sqlalchemy_shards.cli.main import create_app
from sqlalchemy_shards.topology.config import parse_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_FILE_NAME = re.compile(r"# ([\w/]+\.\w+)\n")
_ERROR = re.compile(r"([A-Z]\w+): ")
_URL = re.compile(r"postgresql\+psycopg://app(?::[^@\s]*)?@db(\d)/shop")


@dataclass(frozen=True)
class Sample:
    """A fenced block; `line` is that of its first line of text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file_name(self) -> str | None:
        found = _FILE_NAME.match(self.text)
        return found and found[1]

    @property
    def error_name(self) -> str | None:
        found = _ERROR.match(self.text) if self.language == "text" else None
        return found and found[1]


def read_samples(page: Path) -> list[Sample]:
    """The fenced blocks of a page, those in lists included."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [
        Sample(
            page,
            token.map[0] + 2,
            token.info.split(" ")[0],
            token.content,
        )
        for token in tokens
        if token.type == "fence" and token.map is not None and not token.info.startswith("{")
    ]


def file_sample(page: Path, file_name: str) -> str:
    """The text of the block that is the file `file_name`."""
    return next(each.text for each in read_samples(page) if each.file_name == file_name)


class Runner:
    """Runs the samples of one page."""

    def __init__(self, urls: Mapping[str, str], directory: Path, namespace: dict[str, Any]) -> None:
        self.urls = urls
        self.directory = directory
        self.namespace = namespace

    def run(self, samples: list[Sample]) -> None:
        for sample, following in zip(samples, [*samples[1:], None], strict=True):
            if sample.file_name is not None:
                self.write(sample.file_name, sample.text)
            if sample.language == "toml":
                parse_config(self.real(sample.text), _Anything(), source=sample.place)
            elif sample.language == "python" and sample.file_name is None:
                self.python(sample, following if _is_text(following) else None)
            elif sample.language == "sql":
                with psycopg.connect(self.libpq_url) as connection:
                    connection.execute(sample.text.encode())
                    connection.rollback()
            elif sample.language == "shell":
                run_commands(sample, following if _is_text(following) else None)

    def python(self, sample: Sample, expected: Sample | None) -> None:
        # The blank lines make a traceback point into the page.
        source = "\n" * (sample.line - 1) + self.real(sample.text)
        code = compile(source, str(sample.page), "exec", dont_inherit=True)
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                exec(code, self.namespace)
        except Exception as error:
            if expected is None or type(error).__name__ != expected.error_name:
                raise
            check_text(expected, f"{expected.error_name}: {error}")
            return
        if expected is not None:
            check_text(expected, output.getvalue())

    def write(self, file_name: str, text: str) -> None:
        path = self.directory / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.real(text), encoding="utf-8")

    def real(self, text: str) -> str:
        """The text with URLs that lead somewhere."""
        return _URL.sub(lambda match: self.urls.get(f"s{match[1]}", match[0]), text)

    @property
    def libpq_url(self) -> str:
        return self.urls["s0"].replace("postgresql+psycopg:", "postgresql:")


def check_text(expected: Sample, found: str) -> None:
    """Compare what a page says with what was said."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not doctest.OutputChecker().check_output(expected.text, found, flags):
        raise AssertionError(f"{expected.place} says\n{expected.text}\nand it is\n{found}")


def run_commands(sample: Sample, expected: Sample | None) -> None:
    """Run each command if the page says what it prints; else see that those of `shards` exist."""
    output = ""
    for program, *arguments in _calls(sample.text):
        if expected is not None and program == "alembic":
            output += _run_alembic(sample, arguments)
        elif expected is not None:
            output += CliRunner().invoke(create_app(), arguments).output
        elif program == "shards":
            check_command(sample, arguments)
    if expected is not None:
        check_text(expected, output)


def _run_alembic(sample: Sample, arguments: list[str]) -> str:
    """What it prints; its log is not part of that."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"{sample.place}: alembic {arguments}\n{done.stdout}{done.stderr}")
    return done.stdout


def check_command(sample: Sample, arguments: list[str]) -> None:
    """See that a command and its options exist."""
    path: list[str] = []
    usage = ""
    for word in arguments:
        result = CliRunner().invoke(create_app(), [*path, word, "--help"])
        if word.startswith("-") or result.exit_code != 0:
            break
        path, usage = [*path, word], result.output
    if not path:
        raise AssertionError(f"{sample.place}: there is no command {arguments}")
    for option in (word for word in arguments if word.startswith("--")):
        if option.partition("=")[0] not in usage:
            raise AssertionError(f"{sample.place}: {path} has no option {option}")


def _calls(text: str) -> Iterator[list[str]]:
    """Each call of `shards` or `alembic`: its name, and its arguments."""
    for line in re.split(r"&&|\n", text):
        words = shlex.split(line, comments=True)
        program = words[0].rpartition("/")[2] if words else ""
        if program in ("shards", "alembic"):
            yield [program, *words[1:]]


def _is_text(sample: Sample | None) -> bool:
    return sample is not None and sample.language == "text"


class _Anything(dict[str, str]):
    """An environment in which every variable is set."""

    def __missing__(self, name: str) -> str:
        return "value"

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]

    def __contains__(self, name: object) -> bool:
        return True
