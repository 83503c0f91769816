"""What all shards of a gather must agree on: how values are written as text, and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.cluster.enlistment.on_shards import on_shards
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.execution.arrived import AMBIGUOUS_ENCODINGS

from .workspace import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.dispatch.work import Work
    from sqlalchemy_shards.cluster.enlistment.enlisted import EnlistedShard


def check_digits(connection: ClusterConnection, works: Sequence[Work]) -> None:
    """Look whether floating-point numbers are written with all of their digits.

    :raises UnsupportedStatement: they are not.
    """

    def ask(_: Work, enlisted: EnlistedShard) -> str:
        row: Any = enlisted.driver.execute("SHOW extra_float_digits").fetchone()
        return str(row[0])

    for work, digits in zip(works, on_shards(connection, works, ask), strict=True):
        if int(digits) < 1:
            raise UnsupportedStatement(
                "extra_float_digits is below 1 on a shard, which writes floating-point numbers "
                "rounded",
                "reset extra_float_digits: PostgreSQL's own value is 1",
                shard=work.shard,
            )


def settings_of(connection: ClusterConnection, works: Sequence[Work]) -> dict[str, str]:
    """How the shards write and read values.

    :raises UnsupportedStatement: it is not the same on all that ship, or cannot be relied on.
    """
    found: dict[str, str] = {}
    for work in works:
        info = connection.enlisted[work.shard].driver.info
        for name in SETTINGS:
            value = info.parameter_status(name) or ""
            if name == "DateStyle" and not value.startswith("ISO"):
                raise UnsupportedStatement(
                    f"DateStyle is {value!r}, which writes times that cannot be read for certain",
                    "set DateStyle to ISO",
                    shard=work.shard,
                )
            if value in AMBIGUOUS_ENCODINGS:
                raise UnsupportedStatement(
                    f"client_encoding is {value!r}, in which a character may hold a backslash",
                    "set client_encoding to UTF8",
                    shard=work.shard,
                )
            if found.setdefault(name, value) != value:
                raise UnsupportedStatement(
                    f"shards have different values of {name}, so that their values cannot be put "
                    "together",
                    f"give {name} the same value on all shards",
                    shard=work.shard,
                )
    return found
