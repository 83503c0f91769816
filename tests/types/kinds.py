"""Every type of PostgreSQL, with values that are awkward: equal and not alike, in no order, at the
ends of their range, nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    Uuid,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import NullType

if TYPE_CHECKING:
    from collections.abc import Sequence


NULL_TYPE: Final = NullType()


@dataclass(frozen=True)
class Kind:
    """A type, and values of it as SQL.

    :param sql: the type of the column, with its collation if it has one.
    :param values: as text that PostgreSQL reads; None: NULL. Each stands in several rows.
    :param type_: what the model says of the column.
    :param is_vague: some values are equal and look different, so that PostgreSQL itself gives one
        or the other where it is asked for one of them.
    :param is_refused: its values mean something else on another server.
    :param extension: what must be there.
    """

    sql: str
    values: Sequence[str | None]
    type_: Any = NULL_TYPE
    is_vague: bool = False
    is_refused: bool = False
    extension: str | None = None


SETUP: Final = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'Ok, really');
ALTER TYPE mood ADD VALUE 'worst' BEFORE 'sad';
ALTER TYPE mood ADD VALUE 'mild' AFTER 'ok';
CREATE TYPE pair AS (n numeric, t text);
CREATE TYPE nested AS (p pair, list int[], d double precision);
CREATE TYPE moods AS RANGE (subtype = mood);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN smaller AS positive CHECK (VALUE < 100);
CREATE DOMAIN code AS text COLLATE "C" CHECK (VALUE <> 'bad');
CREATE DOMAIN codes AS code[];
CREATE DOMAIN cents AS numeric(10, 2);
"""

WORDS: Final = ("a", "B", "b", "A", "ä", "", " a", "a ", "z", "Z", "_", None, "a\tb\\n\n", "日本")

KINDS: Final[dict[str, Kind]] = {
    # -- numbers --
    "smallint": Kind("smallint", ("1", "-32768", "32767", None, "0", "1"), SmallInteger()),
    "integer": Kind("integer", ("1", "-2147483648", "2147483647", None, "0"), Integer()),
    "bigint": Kind("bigint", ("1", str(2**63 - 1), str(-(2**63)), None, "0"), BigInteger()),
    "bigint, model silent": Kind("bigint", ("3", "10", "9", None)),
    "numeric": Kind(
        "numeric",
        (
            "1",
            "1.0",
            "1.00",
            "-1.10",
            "NaN",
            "1e-30",
            "12345678901234567890.5",
            None,
            "0.000",
            "10",
        ),
        Numeric(),
        is_vague=True,
    ),
    "numeric, infinite": Kind("numeric", ("Infinity", "-Infinity", "NaN", "0", None), Numeric()),
    "numeric(10, 2)": Kind("numeric(10, 2)", ("1.005", "2", "-0.1", None, "2.00"), Numeric(10, 2)),
    "numeric as float": Kind("numeric(10, 3)", ("1.5", "2", None), Numeric(asdecimal=False)),
    "real": Kind(
        "real", ("1.1", "-0", "0", "NaN", "Infinity", "-Infinity", "1e-45", None), Float(), True
    ),
    "double": Kind(
        "double precision",
        (
            "0.1",
            "-0",
            "0",
            "NaN",
            "Infinity",
            "-Infinity",
            "5e-324",
            "1.7976931348623157e308",
            None,
        ),
        Double(),
        is_vague=True,
    ),
    "boolean": Kind("boolean", ("true", "false", None, "true"), Boolean()),
    # -- texts --
    "text": Kind("text", WORDS, Text()),
    "text, C": Kind('text COLLATE "C"', WORDS, Text(collation="C")),
    "varchar(5)": Kind("varchar(5)", ("abcde", "ab", "ab   ", "", None), String(5)),
    "char(5)": Kind("char(5)", ("abcde", "ab", "ab ", "", None, "AB"), postgresql.CHAR(5)),
    '"char"': Kind('"char"', ("a", "Z", "", None)),
    "name": Kind("name", ("a", "B", "a b", None)),
    "citext": Kind(
        "citext",
        ("a", "A", "b", "B", "", None),
        postgresql.CITEXT(),
        is_vague=True,
        extension="citext",
    ),
    "mood": Kind(
        "mood",
        ("happy", "sad", "ok", "worst", "mild", "Ok, really", None, "sad"),
        Enum("worst", "sad", "ok", "mild", "happy", "Ok, really", name="mood"),
    ),
    "mood, model silent": Kind("mood", ("happy", "sad", "ok", "worst", "mild", None)),
    "bytea": Kind("bytea", (r"\x", r"\x00ff", r"\xff", r"\x5c5c", None), LargeBinary()),
    "uuid": Kind(
        "uuid",
        (
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "10000000-0000-0000-0000-000000000000",
            None,
        ),
        Uuid(),
    ),
    # -- time --
    "date": Kind("date", ("2000-01-01", "0001-01-01", "9999-12-31", None, "2024-02-29"), Date()),
    "date, beyond Python": Kind(
        "date", ("infinity", "-infinity", "4000-01-01 BC", "2000-01-01", None), Date()
    ),
    "date, some beyond Python": Kind("date", ("0044-03-15 BC", "2000-01-01", None), Date()),
    "time": Kind("time", ("00:00", "23:59:59.999999", "12:00", None), Time()),
    "time, midnight at the end": Kind("time", ("24:00", "12:00", None), Time()),
    "timetz": Kind("timetz", ("12:00+00", "13:00+01", "12:00-05", None), Time(timezone=True)),
    "timestamp": Kind(
        "timestamp",
        ("2000-01-01 12:00", "2000-01-01 12:00:00.000001", "9999-12-31", None),
        DateTime(),
    ),
    "timestamp, beyond Python": Kind(
        "timestamp", ("infinity", "-infinity", "2000-01-01", None), DateTime()
    ),
    "timestamptz": Kind(
        "timestamptz",
        (
            "2024-10-27 00:30+00",
            "2024-10-27 01:30+00",
            "2024-10-27 02:30+02",
            "2000-01-01+00",
            None,
        ),
        DateTime(timezone=True),
    ),
    "timestamptz, beyond Python": Kind(
        "timestamptz",
        ("infinity", "10000-01-01+00", "2000-01-01+00", None),
        DateTime(timezone=True),
    ),
    "interval": Kind(
        "interval",
        ("1 day", "24:00:00", "1 month", "30 days", "-1 day +1 hour", "00:00:01.5", None),
        Interval(),
        is_vague=True,
    ),
    "interval day to second": Kind("interval day to second(0)", ("1 day 01:02:03", "0", None)),
    # -- documents --
    "json": Kind("json", ('{"b": 1, "a": [1.0, null]}', "null", "1.00", '"x"', None), JSON()),
    "jsonb": Kind(
        "jsonb",
        ('{"b": 1, "a": [1.0, null]}', "null", "1.00", "1", '"x"', "[]", "{}", None, "true"),
        postgresql.JSONB(),
        is_vague=True,
    ),
    "jsonpath": Kind("jsonpath", ("$.a", "lax $[*]", None)),
    "hstore": Kind(
        "hstore",
        ("a=>1, b=>NULL", "", None, "b=>NULL, a=>1"),
        postgresql.HSTORE(),
        extension="hstore",
    ),
    "xml": Kind("xml", ("<a>1</a>", "<b/>", None), extension="xml"),
    "tsvector": Kind("tsvector", ("'a':1 'b':2A", "'b'", "", None), postgresql.TSVECTOR()),
    "tsquery": Kind("tsquery", ("'a' & 'b'", "'c' | !'d'", None), postgresql.TSQUERY()),
    # -- several values in one --
    "integer[]": Kind(
        "integer[]",
        ("{1,2}", "{}", "{NULL}", "{{1,2},{3,4}}", "{1}", None, "[2:3]={1,2}"),
        ARRAY(Integer),
    ),
    "text[]": Kind(
        "text[]",
        ('{a,"b c",NULL}', "{}", '{"NULL","\\"","\\\\",",{}"}', "{{a},{b}}", "{A,b}", None),
        ARRAY(Text),
    ),
    "numeric[]": Kind(
        "numeric[]",
        ("{1.0,NaN}", "{1.00,NaN}", "{}", None),
        ARRAY(Numeric),
        is_vague=True,
    ),
    "double[]": Kind("double precision[]", ("{NaN,-0}", "{0.1,Infinity}", None), ARRAY(Float)),
    "mood[]": Kind("mood[]", ("{happy,sad}", "{sad,happy}", '{"Ok, really",NULL}', "{}", None)),
    "mood[], known to the model": Kind(
        "mood[]",
        ("{happy,sad}", "{sad,happy}", "{}", None),
        postgresql.ARRAY(Enum("worst", "sad", "ok", "mild", "happy", "Ok, really", name="mood")),
    ),
    "uuid[]": Kind("uuid[]", ("{00000000-0000-0000-0000-000000000001}", "{}", None), ARRAY(Uuid)),
    "timestamptz[]": Kind(
        "timestamptz[]", ("{2000-01-01 00:00+00}", "{}", None), ARRAY(DateTime(timezone=True))
    ),
    "int4range": Kind(
        "int4range", ("[1,5)", "[1,4]", "empty", "(,)", "(,1]", None), postgresql.INT4RANGE()
    ),
    "numrange": Kind(
        "numrange", ("[1.0,5)", "[1.00,5)", "empty", "(NaN,)", None), postgresql.NUMRANGE(), True
    ),
    "tstzrange": Kind(
        "tstzrange",
        ("[2000-01-01 00:00+00,2000-01-02 00:00+02)", "empty", None),
        postgresql.TSTZRANGE(),
    ),
    "daterange": Kind(
        "daterange", ("[2000-01-01,2000-02-01]", "empty", "(,)", None), postgresql.DATERANGE()
    ),
    "moods": Kind("moods", ("[sad,happy]", "[worst,)", "empty", None)),
    "int4multirange": Kind(
        "int4multirange", ("{[1,2),[5,9)}", "{}", "{[5,6]}", None), postgresql.INT4MULTIRANGE()
    ),
    "pair": Kind("pair", ('(1.0,"a b")', "(1.00,a)", "(,)", None, '(NaN,"")')),
    "nested": Kind("nested", ('("(1.5,x)","{1,2}",-0)', "(,,NaN)", None)),
    "pair[]": Kind("pair[]", ('{"(1,a)","(2,b)"}', "{}", None)),
    "positive": Kind("positive", ("1", "200", None, "3"), Integer()),
    "smaller": Kind("smaller", ("1", "20", None, "3"), Integer()),
    "code": Kind("code", ("a", "B", "b", None), Text()),
    "codes": Kind("codes", ("{a,B}", "{b}", "{}", None), ARRAY(Text)),
    "cents": Kind("cents", ("1", "2.345", None, "2.35"), Numeric(10, 2)),
    # -- networks and bits --
    "bit(5)": Kind("bit(5)", ("10101", "00000", None), postgresql.BIT(5)),
    "varbit": Kind("varbit", ("1", "10", "", None), postgresql.BIT(varying=True)),
    "inet": Kind(
        "inet", ("10.0.0.1", "10.0.0.1/8", "::1", None, "9.255.0.0/16"), postgresql.INET()
    ),
    "cidr": Kind("cidr", ("10.0.0.0/8", "::/0", None), postgresql.CIDR()),
    "macaddr": Kind(
        "macaddr", ("08:00:2b:01:02:03", "ff:00:2b:01:02:03", None), postgresql.MACADDR()
    ),
    "macaddr8": Kind("macaddr8", ("08:00:2b:01:02:03:04:05", None), postgresql.MACADDR8()),
    # -- geometry --
    "point": Kind("point", ("(1,2)", "(-0,NaN)", "(0.1,1e-300)", None)),
    "box": Kind("box", ("(1,2),(0,0)", "(2,1),(0,0)", "(0,0),(0,0)", None), is_vague=True),
    "circle": Kind("circle", ("<(0,0),1>", "<(1,1),1>", None), is_vague=True),
    "path": Kind("path", ("[(0,0),(1,1)]", "((0,0),(1,1))", None), is_vague=True),
    "polygon": Kind("polygon", ("((0,0),(1,1),(2,0))", None)),
    "lseg": Kind("lseg", ("[(0,0),(1,1)]", "[(0,1),(1,2)]", None), is_vague=True),
    "line": Kind("line", ("{1,-1,0}", None)),
    # -- of the server --
    "pg_lsn": Kind("pg_lsn", ("0/16B3748", "FFFFFFFF/0", None)),
    "pg_snapshot": Kind("pg_snapshot", ("10:20:10,14", None)),
    "xid8": Kind("xid8", ("3", "18446744073709551615", None)),
    "oid": Kind("oid", ("1", "4294967295", None), postgresql.OID(), is_refused=True),
    "oid[]": Kind("oid[]", ("{1,2}", None), is_refused=True),
    "regclass": Kind("regclass", ("pg_class", "pg_type", None), is_refused=True),
    "regtype": Kind("regtype", ("integer", "mood", None), is_refused=True),
    "xid": Kind("xid", ("3", None), is_refused=True),
    "money": Kind("money", ("1.50", "-2", None), postgresql.MONEY(), is_refused=True),
}
