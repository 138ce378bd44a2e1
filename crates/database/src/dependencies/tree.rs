//! Postgres' own tree of a statement, views and policies expanded, as `debug_print_rewritten` prints it.

use std::collections::BTreeSet;

use super::Uncacheable;

/// Makes Postgres tell the client the trees of the statements that follow in the transaction.
pub(crate) const PRINT: &str = "BEGIN READ ONLY; SET LOCAL debug_pretty_print = off; \
    SET LOCAL debug_print_rewritten = on; SET LOCAL client_min_messages = log";

/// Nodes that do no more than their fields tell.
const NODES: [&str; 51] = [
    "AGGREF",
    "ALIAS",
    "ARRAYCOERCEEXPR",
    "ARRAYEXPR",
    "BOOLEANTEST",
    "BOOLEXPR",
    "CASEEXPR",
    "CASETESTEXPR",
    "CASEWHEN",
    "COALESCEEXPR",
    "COERCEVIAIO",
    "COLLATEEXPR",
    "COMMONTABLEEXPR",
    "CONST",
    "CONVERTROWTYPEEXPR",
    "CTECYCLECLAUSE",
    "CTESEARCHCLAUSE",
    "DISTINCTEXPR",
    "FIELDSELECT",
    "FROMEXPR",
    "FUNCEXPR",
    "GROUPINGFUNC",
    "GROUPINGSET",
    "JOINEXPR",
    "JSONFORMAT",
    "JSONISPREDICATE",
    "JSONRETURNING",
    "MINMAXEXPR",
    "NAMEDARGEXPR",
    "NULLIFEXPR",
    "NULLTEST",
    "OPEXPR",
    "PARAM",
    "QUERY",
    "RANGETBLENTRY",
    "RANGETBLFUNCTION",
    "RANGETBLREF",
    "RELABELTYPE",
    "ROWCOMPAREEXPR",
    "ROWEXPR",
    "RTEPERMISSIONINFO",
    "SCALARARRAYOPEXPR",
    "SETOPERATIONSTMT",
    "SORTGROUPCLAUSE",
    "SQLVALUEFUNCTION",
    "SUBLINK",
    "SUBSCRIPTINGREF",
    "TARGETENTRY",
    "VAR",
    "WINDOWCLAUSE",
    "WINDOWFUNC",
];

/// Kinds of entries of a range table: relations, queries, joins, functions, values, `WITH` queries, nothing, groups.
const ENTRIES: [u32; 8] = [0, 1, 2, 3, 5, 6, 8, 9];
/// Of values that stand for the role or the schema: `CURRENT_ROLE` to `SESSION_USER`, `CURRENT_SCHEMA`.
const SETTLED_VALUES: [u32; 5] = [9, 10, 11, 12, 14];
/// Types that do not depend on the time when they are read from text: bool, bytea, "char", name, int8, int2, int4,
/// text, oid, json, cidr, float4, float8, macaddr, inet, bpchar, varchar, numeric, uuid, jsonb.
const TIMELESS: [u32; 20] = [
    16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 650, 700, 701, 829, 869, 1042, 1043, 1700, 2950, 3802,
];
/// Types whose text may mean the time of now: date, time, timestamp, timestamptz, timetz, their ranges and
/// multiranges, the arrays of all these, and records. So may those that users have made.
const TIMES: [u32; 24] = [
    1082, 1083, 1114, 1115, 1182, 1183, 1184, 1185, 1266, 1270, 2249, 2287, 3908, 3909, 3910, 3911,
    3912, 3913, 4533, 4534, 4535, 6152, 6153, 6155,
];
/// `timetz`, whose offset may be that of today.
const TIMETZ: u32 = 1266;
/// Oids from here on are those of what users have made.
pub(super) const FIRST_NORMAL: u32 = 16_384;

/// What a tree tells of a `SELECT`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(super) relations: BTreeSet<u32>,
    pub(super) functions: BTreeSet<u32>,
    pub(super) operators: BTreeSet<u32>,
    /// A constant was read from text that may have meant the time of now.
    pub(crate) has_time_constant: bool,
    pub(crate) has_time_parameter: bool,
}

impl Tree {
    /// Of what Postgres printed of one statement.
    pub(crate) fn read(printed: &str) -> Result<Self, Uncacheable> {
        let mut tree = Self::default();
        let mut nodes: Vec<&str> = Vec::new();
        let mut field = "";
        let mut statements = 0;
        let mut tokens = Tokens(printed);
        while let Some(token) = tokens.next() {
            match token {
                "{" => {
                    let node = tokens.next().unwrap_or_default();
                    if !is_known(node) {
                        return Err(unknown(node));
                    }
                    statements += u32::from(nodes.is_empty() && node == "QUERY");
                    nodes.push(node);
                }
                "}" => drop(nodes.pop()),
                "(" | ")" => {}
                _ => match token.strip_prefix(':') {
                    Some(name) => field = name,
                    None => tree.field(nodes.last().copied().unwrap_or_default(), field, token)?,
                },
            }
        }
        match statements {
            1 => Ok(tree),
            _ => Err(Uncacheable::NotOneSelect),
        }
    }

    fn field(&mut self, node: &str, field: &str, value: &str) -> Result<(), Uncacheable> {
        let number = value.parse::<u32>().ok();
        let oid = number.filter(|oid| *oid != 0);
        match (node, field) {
            ("QUERY", "commandType") if value != "1" => return Err(Uncacheable::NotOneSelect),
            ("QUERY", "hasModifyingCTE" | "hasForUpdate") if value == "true" => {
                return Err(Uncacheable::NotOneSelect);
            }
            ("RANGETBLENTRY", "rtekind") if !number.is_some_and(|kind| ENTRIES.contains(&kind)) => {
                return Err(unknown(node));
            }
            ("SQLVALUEFUNCTION", "op")
                if !number.is_some_and(|op| SETTLED_VALUES.contains(&op)) =>
            {
                return Err(Uncacheable::Time);
            }
            ("COERCEVIAIO", "resulttype") if !oid.is_some_and(|oid| TIMELESS.contains(&oid)) => {
                return Err(Uncacheable::Time);
            }
            ("VAR", "varattno") if value.starts_with('-') => return Err(Uncacheable::SystemColumn),
            ("CONST", "consttype") => {
                self.has_time_constant |= is_time(oid);
                if oid == Some(TIMETZ) {
                    return Err(Uncacheable::Time);
                }
            }
            ("PARAM", "paramtype") => {
                self.has_time_parameter |= is_time(oid);
                if oid == Some(TIMETZ) {
                    return Err(Uncacheable::Time);
                }
            }
            (_, "relid") => self.relations.extend(oid),
            (_, "funcid" | "opfuncid" | "aggfnoid" | "winfnoid") => self.functions.extend(oid),
            (_, "opno" | "opnos" | "eqop" | "sortop") => self.operators.extend(oid),
            _ => {}
        }
        Ok(())
    }
}

fn is_known(node: &str) -> bool {
    NODES.binary_search(&node).is_ok()
}

fn is_time(oid: Option<u32>) -> bool {
    oid.is_some_and(|oid| oid >= FIRST_NORMAL || TIMES.contains(&oid))
}

fn unknown(node: &str) -> Uncacheable {
    Uncacheable::Construct(node.chars().take(63).collect())
}

/// The words and brackets of a tree. What users have named has a backslash before each letter that would end a word.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_ascii_start();
        let bytes = text.as_bytes();
        let mut len = 0;
        while let Some(byte) = bytes.get(len) {
            match byte {
                b'\\' => len += 2,
                b'(' | b')' | b'{' | b'}' => {
                    len = len.max(1);
                    break;
                }
                byte if byte.is_ascii_whitespace() => break,
                _ => len += 1,
            }
        }
        // A backslash may stand before a letter of several bytes.
        while len < text.len() && !text.is_char_boundary(len) {
            len += 1;
        }
        let (token, rest) = text.split_at(len.min(text.len()));
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_not_taken_for_fields() {
        let printed = "({QUERY :commandType 1 :x (\"a\\ :relid\\ 5\\{NO\" \"é\\}\") :rtable ({RANGETBLENTRY \
            :rtekind 0 :relid 16393 :relkind r}) :quals {ROWCOMPAREEXPR :opnos (o 96 97)\n :args \
            ({COERCEVIAIO :arg {VAR :varattno 1 :vartype 25} :resulttype 25} {CONST :consttype 1082})}})";
        let tree = Tree::read(printed).unwrap();
        assert_eq!(tree.relations, BTreeSet::from([16_393]));
        assert_eq!(tree.operators, BTreeSet::from([96, 97]));
        assert!(tree.has_time_constant && !tree.has_time_parameter);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (printed, reason) in [
            ("", Uncacheable::NotOneSelect),
            ("({QUERY :commandType 6})", Uncacheable::NotOneSelect),
            (
                "({QUERY :commandType 1} {QUERY :commandType 1})",
                Uncacheable::NotOneSelect,
            ),
            (
                "({QUERY :commandType 1 :a {NEXTVALUEEXPR :seqid 5}})",
                Uncacheable::Construct("NEXTVALUEEXPR".into()),
            ),
            (
                "({QUERY :a {COERCEVIAIO :arg {VAR :varattno 1} :resulttype 1082}})",
                Uncacheable::Time,
            ),
            ("({QUERY :a {VAR :varattno -3}})", Uncacheable::SystemColumn),
        ] {
            assert_eq!(Tree::read(printed), Err(reason), "{printed}");
        }
        assert!(NODES.is_sorted());
    }

    proptest::proptest! {
        #[test]
        fn random_text_never_panics(text in "[(){} :\\\\a-zé0-9\"\n]{0,80}") {
            let _ = Tree::read(&text);
        }
    }
}
