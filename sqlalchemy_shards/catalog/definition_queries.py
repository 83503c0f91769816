"""The queries of `definitions`: one for each kind of object.

Each gives kind, name, table, facts and, of columns, the place in their table. Columns of the
catalogs that not every PostgreSQL has are read through ``to_jsonb``. A fact that is NULL is as if
it were not there.
"""

from __future__ import annotations

from typing import Final


def _own(schema: str) -> str:
    return f"{schema} NOT IN ('information_schema', 'shards') AND {schema} !~ '^pg_'"


def _not_of_extension(catalog: str, oid: str) -> str:
    return f"""NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend e
        WHERE e.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass
        AND e.objid = {oid} AND e.deptype = 'e')"""


def _named(is_visible: str, schema: str, name: str) -> str:
    return f"CASE WHEN {is_visible} THEN {name}::text ELSE {schema} || '.' || {name} END"


def _query(
    kind: str, name: str, table: str, source: str, /, *, place: str = "0", **facts: str
) -> str:
    """A query; ``_`` in the name of a fact stands for a blank."""
    pairs = ", ".join(f"'{name.replace('_', ' ')}', ({sql})::text" for name, sql in facts.items())
    return f"""
        SELECT '{kind}', {name}, {table},
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object({pairs}))::text, {place}
        {source}
    """


_NO_TABLE: Final = "NULL::text"
_RELATION: Final = _named("pg_catalog.pg_table_is_visible(c.oid)", "n.nspname", "c.relname")
_OF_ANY_TABLE: Final = f"""
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_own("n.nspname")}
"""
_OF_TABLES: Final = f"{_OF_ANY_TABLE} AND {_not_of_extension('pg_class', 'c.oid')}"

_TABLES: Final = _query(
    "table",
    _RELATION,
    _RELATION,
    f"""FROM pg_catalog.pg_class c {_OF_TABLES} AND c.relkind IN ('r', 'p', 'f', 'v', 'm')""",
    kind="""CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table'
            WHEN 'f' THEN 'foreign table' WHEN 'v' THEN 'view' ELSE 'materialized view' END""",
    persistence="CASE c.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'permanent' END",
    definition="""CASE WHEN c.relkind IN ('v', 'm')
            THEN pg_catalog.pg_get_viewdef(c.oid) END""",
    row_security="""CASE WHEN c.relrowsecurity THEN
            CASE WHEN c.relforcerowsecurity THEN 'forced' ELSE 'on' END END""",
    partitioning="CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END",
    parents="""SELECT pg_catalog.string_agg(i.inhparent::pg_catalog.regclass::text, ', '
                                                ORDER BY i.inhseqno)
            FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid""",
    bound="pg_catalog.pg_get_expr(c.relpartbound, c.oid)",
)

# PostgreSQL 18 keeps NOT NULL as a constraint, too, which may be not validated.
_COLUMNS: Final = _query(
    "column",
    "a.attname::text",
    _RELATION,
    f"""FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
{_OF_ANY_TABLE} AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
AND a.attnum > 0 AND NOT a.attisdropped""",
    place="a.attnum::int",
    type="pg_catalog.format_type(a.atttypid, a.atttypmod)",
    collation="CASE WHEN co.collname <> 'default' THEN co.collname END",
    nullable="""CASE WHEN NOT a.attnotnull THEN 'yes' WHEN EXISTS (
                SELECT FROM pg_catalog.pg_constraint r WHERE r.conrelid = a.attrelid
                AND r.contype = 'n' AND r.conkey = ARRAY[a.attnum] AND NOT r.convalidated)
            THEN 'no, but not validated' ELSE 'no' END""",
    default="""CASE WHEN a.attgenerated = '' THEN
            pg_catalog.pg_get_expr(d.adbin, d.adrelid) END""",
    generated="""CASE a.attgenerated WHEN 's' THEN 'stored as ' WHEN 'v' THEN 'virtually as '
            END || pg_catalog.pg_get_expr(d.adbin, d.adrelid)""",
    identity="CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END",
)

_CONSTRAINTS: Final = _query(
    "constraint",
    "r.conname::text",
    _RELATION,
    f"""FROM pg_catalog.pg_constraint r JOIN pg_catalog.pg_class c ON c.oid = r.conrelid
{_OF_ANY_TABLE} AND r.contype IN ('c', 'f', 'p', 'u', 'x')""",
    definition="pg_catalog.pg_get_constraintdef(r.oid)",
)

# Those of constraints are told by them.
_INDEXES: Final = _query(
    "index",
    "x.relname::text",
    _RELATION,
    f"""FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
{_OF_ANY_TABLE} AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_constraint r
    WHERE r.conindid = i.indexrelid AND r.contype IN ('p', 'u', 'x'))""",
    definition="""CASE WHEN i.indisunique THEN 'unique index ' ELSE 'index ' END
            || pg_catalog.substring(pg_catalog.pg_get_indexdef(i.indexrelid), ' USING (.*)$')""",
    valid="CASE WHEN i.indisvalid AND i.indisready THEN 'yes' ELSE 'no' END",
    used_for="""NULLIF(pg_catalog.concat_ws(' ',
            CASE WHEN i.indisclustered THEN 'clustering' END,
            CASE WHEN i.indisreplident THEN 'replica identity' END), '')""",
)

_SEQUENCES: Final = _query(
    "sequence",
    _RELATION,
    f"""(
        SELECT {_named("pg_catalog.pg_table_is_visible(o.oid)", "t.nspname", "o.relname")}
        FROM pg_catalog.pg_depend p
        JOIN pg_catalog.pg_class o ON o.oid = p.refobjid
        JOIN pg_catalog.pg_namespace t ON t.oid = o.relnamespace
        WHERE p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.objid = c.oid
        AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.deptype IN ('a', 'i')
        LIMIT 1)""",
    f"""FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
{_OF_TABLES}""",
    type="pg_catalog.format_type(s.seqtypid, NULL)",
    settings="""pg_catalog.format('START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s',
            s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
            CASE WHEN s.seqcycle THEN ' CYCLE' END)""",
)

_TRIGGERS: Final = _query(
    "trigger",
    "g.tgname::text",
    _RELATION,
    f"""FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
{_OF_TABLES} AND NOT g.tgisinternal""",
    definition="pg_catalog.pg_get_triggerdef(g.oid)",
    enabled="""CASE g.tgenabled WHEN 'O' THEN 'yes' WHEN 'A' THEN 'always'
            WHEN 'R' THEN 'for replicas' ELSE 'no' END""",
)

_RULES: Final = _query(
    "rule",
    "u.rulename::text",
    _RELATION,
    f"""FROM pg_catalog.pg_rewrite u JOIN pg_catalog.pg_class c ON c.oid = u.ev_class
{_OF_TABLES} AND u.rulename <> '_RETURN'""",
    definition="pg_catalog.pg_get_ruledef(u.oid)",
)

_POLICIES: Final = _query(
    "policy",
    "y.polname::text",
    _RELATION,
    f"""FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_class c ON c.oid = y.polrelid
{_OF_TABLES}""",
    kind="CASE WHEN y.polpermissive THEN 'permissive' ELSE 'restrictive' END",
    command="""CASE y.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
            WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END""",
    roles="""SELECT pg_catalog.string_agg(
                CASE WHEN role = 0 THEN 'PUBLIC' ELSE role::pg_catalog.regrole::text END, ', '
                ORDER BY role::pg_catalog.regrole::text)
            FROM unnest(y.polroles) AS role""",
    using="pg_catalog.pg_get_expr(y.polqual, y.polrelid)",
    check="pg_catalog.pg_get_expr(y.polwithcheck, y.polrelid)",
)

_FUNCTION: Final = _named("pg_catalog.pg_function_is_visible(f.oid)", "n.nspname", "f.proname")
_FUNCTIONS: Final = _query(
    "function",
    f"""{_FUNCTION} || '(' || pg_catalog.pg_get_function_identity_arguments(f.oid) || ')'""",
    _NO_TABLE,
    f"""FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
WHERE ({_own("n.nspname")} OR n.nspname = 'shards')
AND {_not_of_extension("pg_proc", "f.oid")}""",
    definition="""CASE WHEN f.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(f.oid) ELSE (
            SELECT pg_catalog.concat_ws(' ', 'aggregate', g.aggtransfn, g.aggfinalfn,
                pg_catalog.format_type(g.aggtranstype, NULL), g.agginitval)
            FROM pg_catalog.pg_aggregate g WHERE g.aggfnoid = f.oid) END""",
)

# What an application has defined, without tables' rows.
_TYPES: Final = _query(
    "type",
    _named("pg_catalog.pg_type_is_visible(t.oid)", "n.nspname", "t.typname"),
    _NO_TABLE,
    f"""FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
WHERE (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c'))
AND {_own("n.nspname")} AND {_not_of_extension("pg_type", "t.oid")}""",
    definition="""CASE t.typtype
        WHEN 'e' THEN 'an enum of ' || coalesce((
            SELECT pg_catalog.string_agg(pg_catalog.quote_literal(enumlabel), ', '
                                         ORDER BY enumsortorder)
            FROM pg_catalog.pg_enum WHERE enumtypid = t.oid), 'nothing')
        WHEN 'd' THEN pg_catalog.concat_ws(' ',
            'a domain over', pg_catalog.format_type(t.typbasetype, t.typtypmod),
            (SELECT 'COLLATE ' || collname FROM pg_catalog.pg_collation
             WHERE oid = t.typcollation AND collname <> 'default'),
            CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault,
            (SELECT pg_catalog.string_agg(rule, ' ' ORDER BY rule) FROM (
                 SELECT pg_catalog.pg_get_constraintdef(oid) AS rule
                 FROM pg_catalog.pg_constraint
                 WHERE contypid = t.oid AND contype = 'c') AS rules))
        WHEN 'c' THEN 'a row of ' || (
            SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ',
                       a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                       'COLLATE ' || nullif(l.collname, 'default')), ', ' ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a
            LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
            WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
        ELSE (SELECT 'a range of ' || pg_catalog.format_type(rngsubtype, NULL)
              FROM pg_catalog.pg_range WHERE rngtypid = t.oid)
        END""",
)

_COLLATIONS: Final = _query(
    "collation",
    _named("pg_catalog.pg_collation_is_visible(l.oid)", "n.nspname", "l.collname"),
    _NO_TABLE,
    f"""FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
WHERE {_own("n.nspname")} AND {_not_of_extension("pg_collation", "l.oid")}""",
    definition="""pg_catalog.concat_ws(' ', l.collprovider, l.collcollate, l.collctype,
            coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale'),
            to_jsonb(l) ->> 'collicurules',
            CASE WHEN NOT l.collisdeterministic THEN 'not deterministic' END)""",
    version="l.collversion",
    version_of_the_library="pg_catalog.pg_collation_actual_version(l.oid)",
)

_EXTENSIONS: Final = _query(
    "extension",
    "x.extname::text",
    _NO_TABLE,
    """FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace""",
    version="x.extversion",
    schema="n.nspname",
)

_SCHEMAS: Final = f"""
SELECT 'schema', n.nspname::text, NULL::text, '{{}}', 0
FROM pg_catalog.pg_namespace n
WHERE {_own("n.nspname")} AND {_not_of_extension("pg_namespace", "n.oid")}
"""

QUERIES: Final = {
    "schema": _SCHEMAS,
    "extension": _EXTENSIONS,
    "collation": _COLLATIONS,
    "type": _TYPES,
    "function": _FUNCTIONS,
    "table": _TABLES,
    "column": _COLUMNS,
    "constraint": _CONSTRAINTS,
    "index": _INDEXES,
    "sequence": _SEQUENCES,
    "trigger": _TRIGGERS,
    "rule": _RULES,
    "policy": _POLICIES,
}
"""Kind of object -> the query for all of that kind."""
