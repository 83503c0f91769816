"""The command ``shards``.

Takes command lines; prints what a person reads, or JSON. Exit codes: 0 done, 1 failed, 2 usage, 130
interrupted. Never shows a password, or a traceback for what the user can mend. Needs the extra
`cli`; nothing else of the package imports it.
"""

from __future__ import annotations

import sys

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        from sqlalchemy_shards.cli.main import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.exit(_say_what_is_missing(str(error.name)))
    run()


def _say_what_is_missing(module: str) -> int:
    print(
        f"shards: the module {module!r} is not installed; the command needs the extra cli: "
        "pip install 'sqlalchemy-shards[cli]'",
        file=sys.stderr,
    )
    return 2
