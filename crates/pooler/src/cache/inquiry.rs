//! What the origin is asked about its catalog. Everything is named in full: the session's search path is a client's.

/// Relations, and edges along which a write goes on. Everything is named in full: the session's search path is a
/// client's.
const RELATIONS: &str = "SELECT 'r', c.oid, n.nspname, c.relname, c.relkind::pg_catalog.text \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog.text[]) \
    AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema,pg_toast}'::pg_catalog.name[]) \
    UNION ALL SELECT 'i', i.inhparent, NULL, NULL, i.inhrelid::pg_catalog.text FROM pg_catalog.pg_inherits i \
    UNION ALL SELECT 'k', k.confrelid, NULL, NULL, k.conrelid::pg_catalog.text FROM pg_catalog.pg_constraint k \
    WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f' AND (k.confdeltype::pg_catalog.text \
    OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog.text[]) OR k.confupdtype::pg_catalog.text \
    OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog.text[])) \
    UNION ALL SELECT DISTINCT 'v', w.ev_class, NULL, NULL, d.refobjid::pg_catalog.text FROM pg_catalog.pg_rewrite w \
    JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) w.oid \
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) w.ev_class \
    AND c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'v' \
    WHERE d.refobjid OPERATOR(pg_catalog.<>) w.ev_class";

/// Tables of which nobody knows what a write to them does: rules, and functions of the user's in triggers, defaults
/// and constraints, also those of the domains of their columns, generated columns and policies. Bodies of trigger functions are looked at.
const WILD: &str = "SELECT 'w', w.ev_class, NULL, NULL FROM pg_catalog.pg_rewrite w \
    WHERE w.rulename OPERATOR(pg_catalog.<>) '_RETURN'::pg_catalog.name \
    UNION ALL SELECT 't', t.tgrelid, l.lanname::pg_catalog.text, CASE WHEN pg_catalog.length(p.prosrc) \
    OPERATOR(pg_catalog.<) 8000 AND p.proconfig IS NULL THEN p.prosrc END FROM pg_catalog.pg_trigger t \
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid \
    JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang \
    WHERE NOT t.tgisinternal AND t.tgenabled::pg_catalog.text OPERATOR(pg_catalog.<>) 'D' \
    UNION ALL SELECT CASE WHEN COALESCE(o.oid, w.oid) IS NULL THEN 'f' ELSE 'a' END, \
    COALESCE(e.attrelid, a.adrelid, k.conrelid, o.polrelid, w.ev_class), p.proname::pg_catalog.text, NULL FROM pg_catalog.pg_depend d \
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) d.refobjid \
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass \
    LEFT JOIN pg_catalog.pg_attrdef a ON a.oid OPERATOR(pg_catalog.=) d.objid \
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
    LEFT JOIN pg_catalog.pg_constraint k ON k.oid OPERATOR(pg_catalog.=) d.objid \
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass \
    LEFT JOIN pg_catalog.pg_policy o ON o.oid OPERATOR(pg_catalog.=) d.objid \
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass \
    LEFT JOIN pg_catalog.pg_rewrite w ON w.oid OPERATOR(pg_catalog.=) d.objid \
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
    LEFT JOIN pg_catalog.pg_type y ON y.typtype::pg_catalog.text OPERATOR(pg_catalog.=) 'd' AND y.oid OPERATOR(pg_catalog.=) \
    CASE WHEN d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass THEN d.objid ELSE k.contypid END \
    LEFT JOIN pg_catalog.pg_attribute e ON e.atttypid OPERATOR(pg_catalog.=) y.oid \
    AND e.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 \
    WHERE p.provolatile::pg_catalog.text OPERATOR(pg_catalog.=) 'v' \
    AND COALESCE(a.oid, k.oid, o.oid, w.oid, e.attrelid) IS NOT NULL";

/// Functions of users: name, the least and the greatest number of arguments that it takes, how volatile it and
/// what it is made of is, whether it only makes values, whether it is called like a column of a row, whether it is
/// written in something else than C (the languages 12 and 13).
const FUNCTIONS: &str = "SELECT p.proname, (p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults)::pg_catalog.text, CASE WHEN p.provariadic \
    OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN '1000' ELSE p.pronargs::pg_catalog.text END, \
    CASE WHEN p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND p.prokind::pg_catalog.text \
    OPERATOR(pg_catalog.=) 'a' THEN (SELECT pg_catalog.max(q.provolatile::pg_catalog.text) FROM pg_catalog.pg_aggregate g \
    JOIN pg_catalog.pg_proc q ON q.oid OPERATOR(pg_catalog.=) ANY (ARRAY[g.aggtransfn, g.aggfinalfn, g.aggcombinefn, \
    g.aggserialfn, g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn]::pg_catalog.oid[]) \
    WHERE g.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid) ELSE p.provolatile::pg_catalog.text END, \
    EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e \
    ON e.oid OPERATOR(pg_catalog.=) d.refobjid WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass \
    AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.refclassid OPERATOR(pg_catalog.=) \
    'pg_catalog.pg_extension'::pg_catalog.regclass AND e.extname OPERATOR(pg_catalog.=) \
    ANY ('{uuid-ossp,pgcrypto}'::pg_catalog.name[]))::pg_catalog.text, \
    (p.pronargs OPERATOR(pg_catalog.=) 1::pg_catalog.int2 AND EXISTS (SELECT FROM pg_catalog.pg_type y \
    WHERE y.oid OPERATOR(pg_catalog.=) p.proargtypes[0] AND y.typtype::pg_catalog.text OPERATOR(pg_catalog.=) \
    ANY ('{c,p}'::pg_catalog.text[])))::pg_catalog.text, (p.prolang OPERATOR(pg_catalog.<>) \
    ALL ('{12,13}'::pg_catalog.oid[]))::pg_catalog.text FROM pg_catalog.pg_proc p \
    WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid";

/// Postgres' own functions, as [`FUNCTIONS`]. They stay what they are.
pub(crate) const BUILTIN: &str = "SELECT DISTINCT p.proname, (p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults)::pg_catalog.text, \
    CASE WHEN p.provariadic OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN '1000' ELSE p.pronargs::pg_catalog.text END, \
    p.provolatile::pg_catalog.text, NULL, (p.pronargs OPERATOR(pg_catalog.=) 1::pg_catalog.int2 AND EXISTS \
    (SELECT FROM pg_catalog.pg_type y WHERE y.oid OPERATOR(pg_catalog.=) p.proargtypes[0] \
    AND y.typtype::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{c,p}'::pg_catalog.text[])))::pg_catalog.text, NULL \
    FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid \
    AND p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace";

/// Operators and casts of the user's that are not immutable; and those that are, by functions in something else than C.
const OPERATORS: &str = "SELECT 'o', o.oprname::pg_catalog.text FROM pg_catalog.pg_operator o \
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid \
    WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
    AND p.provolatile::pg_catalog.text OPERATOR(pg_catalog.<>) 'i' \
    UNION ALL SELECT 'c', NULL FROM pg_catalog.pg_cast c \
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) c.castfunc \
    WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
    AND p.provolatile::pg_catalog.text OPERATOR(pg_catalog.<>) 'i' \
    UNION ALL SELECT 'p', o.oprname::pg_catalog.text FROM pg_catalog.pg_operator o \
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid \
    WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
    AND p.provolatile::pg_catalog.text OPERATOR(pg_catalog.=) 'i' \
    AND p.prolang OPERATOR(pg_catalog.<>) ALL ('{12,13}'::pg_catalog.oid[]) \
    UNION ALL SELECT 'd', NULL FROM pg_catalog.pg_cast c \
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) c.castfunc \
    WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
    AND p.provolatile::pg_catalog.text OPERATOR(pg_catalog.=) 'i' \
    AND p.prolang OPERATOR(pg_catalog.<>) ALL ('{12,13}'::pg_catalog.oid[])";

/// What is asked, in the order in which [`Catalog::of`] takes the answers.
pub(crate) const QUESTIONS: [&str; 4] = [RELATIONS, WILD, FUNCTIONS, OPERATORS];
