from __future__ import annotations

from sqlalchemy import MetaData, Table
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from sqlalchemy_shards.cluster.quoting import without_placeholders


def test_a_quoted_name_is_undone_of_what_parameters_ask_for() -> None:
    dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
    quoted = dialect.identifier_preparer.format_table(Table("per %", MetaData()))

    assert quoted == '"per %%"'
    assert without_placeholders(quoted) == '"per %"'
