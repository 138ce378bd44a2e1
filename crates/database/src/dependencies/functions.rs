//! Functions of Postgres that are stable, and depend on nothing but their arguments, the catalog, the role and
//! the settings.

/// By name. What reads text as a date or a time is not among them, as `now` may stand in the text; nor is what tells
/// of the session, the server, or how rows are stored.
const STABLE: [&str; 104] = [
    "anytextcat",
    "array_to_json",
    "array_to_string",
    "concat",
    "concat_ws",
    "current_schema",
    "current_schemas",
    "current_setting",
    "current_user",
    "date",
    "date_add",
    "date_cmp_timestamptz",
    "date_eq_timestamptz",
    "date_ge_timestamptz",
    "date_gt_timestamptz",
    "date_le_timestamptz",
    "date_lt_timestamptz",
    "date_ne_timestamptz",
    "date_part",
    "date_subtract",
    "date_trunc",
    "enum_first",
    "enum_last",
    "enum_range",
    "extract",
    "format",
    "format_type",
    "generate_series",
    "get_current_ts_config",
    "has_schema_privilege",
    "has_table_privilege",
    "in_range",
    "interval_pl_timestamptz",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "json_object_agg_strict",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
    "json_to_tsvector",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "jsonb_object_agg_strict",
    "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict",
    "jsonb_to_tsvector",
    "make_timestamptz",
    "money",
    "numeric",
    "oidvectortypes",
    "overlaps",
    "pg_basetype",
    "pg_collation_for",
    "pg_has_role",
    "pg_typeof",
    "phraseto_tsquery",
    "plainto_tsquery",
    "quote_literal",
    "quote_nullable",
    "regclass",
    "row_security_active",
    "row_to_json",
    "session_user",
    "textanycat",
    "time",
    "timestamp",
    "timestamp_cmp_timestamptz",
    "timestamp_eq_timestamptz",
    "timestamp_ge_timestamptz",
    "timestamp_gt_timestamptz",
    "timestamp_le_timestamptz",
    "timestamp_lt_timestamptz",
    "timestamp_ne_timestamptz",
    "timestamptz",
    "timestamptz_cmp_date",
    "timestamptz_cmp_timestamp",
    "timestamptz_eq_date",
    "timestamptz_eq_timestamp",
    "timestamptz_ge_date",
    "timestamptz_ge_timestamp",
    "timestamptz_gt_date",
    "timestamptz_gt_timestamp",
    "timestamptz_le_date",
    "timestamptz_le_timestamp",
    "timestamptz_lt_date",
    "timestamptz_lt_timestamp",
    "timestamptz_mi_interval",
    "timestamptz_ne_date",
    "timestamptz_ne_timestamp",
    "timestamptz_pl_interval",
    "timezone",
    "to_char",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_tsquery",
    "to_tsvector",
    "ts_headline",
    "websearch_to_tsquery",
];

/// Whether a stable function of Postgres of this name depends on nothing else.
pub(super) fn is_settled(name: &str) -> bool {
    STABLE.binary_search(&name).is_ok()
}

/// Whether it makes JSON of values of any type, for which a user may have made a cast.
pub(super) fn makes_json(name: &str) -> bool {
    name.contains("json") && name.ends_with(|letter: char| letter.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_in_order() {
        assert!(STABLE.is_sorted());
        assert!(is_settled("to_char") && is_settled("anytextcat"));
        assert!(!is_settled("now") && !is_settled("current_database"));
        assert!(makes_json("jsonb_agg") && !makes_json("to_char"));
    }
}
