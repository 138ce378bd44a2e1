//! Types whose input asks nothing but what is written, and columns that are no data.

/// Their values change without a write.
pub(super) const SYSTEM_COLUMNS: [&str; 5] = ["ctid", "xmin", "xmax", "cmin", "cmax"];

/// Stands among the names that a text gives for a cast to a time of the day. No name of a column has a space first.
pub(super) const TIME_OF_DAY: &str = " time";

/// A cast to these depends on nothing but the value and settings.
const HARMLESS: [&str; 43] = [
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "bool",
    "text",
    "varchar",
    "bpchar",
    "char",
    "name",
    "uuid",
    "json",
    "jsonb",
    "jsonpath",
    "bytea",
    "bit",
    "varbit",
    "oid",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "interval",
    "money",
    "xml",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "tsvector",
    "tsquery",
    "int4range",
    "int8range",
    "numrange",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "citext",
];

/// A cast to these depends on the clock or on the catalog.
const VOLATILE: [&str; 12] = [
    "timetz",
    "regclass",
    "regproc",
    "regprocedure",
    "regoper",
    "regoperator",
    "regtype",
    "regrole",
    "regnamespace",
    "regconfig",
    "regdictionary",
    "regcollation",
];

/// Functions that give dates and times, never texts.
const GIVES_DATES: [&str; 10] = [
    "date_trunc",
    "timezone",
    "to_timestamp",
    "to_date",
    "make_date",
    "make_timestamp",
    "make_timestamptz",
    "date_bin",
    "date_add",
    "date_subtract",
];

/// Whether no input of this type, or of arrays of it, asks the clock.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

pub(super) fn is_volatile(name: &str) -> bool {
    VOLATILE.contains(&name)
}

/// In a time zone its offset depends on the day on which it is asked.
pub(super) fn is_time_of_day(name: &str) -> bool {
    matches!(name, "time" | "timetz")
}

pub(super) fn gives_dates(function: &str) -> bool {
    GIVES_DATES.contains(&function)
}

/// Postgres' own functions that it calls stable since they depend on settings (of the session, which are part of what
/// an answer is found by), or on how types are written: not on the clock.
const BY_SETTINGS: [&str; 53] = [
    "array_to_json",
    "array_to_string",
    "concat",
    "concat_ws",
    "current_setting",
    "date_add",
    "date_part",
    "date_subtract",
    "date_trunc",
    "extract",
    "format",
    "generate_series",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "json_object_agg_strict",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "jsonb_object_agg_strict",
    "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict",
    "make_timestamptz",
    "overlaps",
    "phraseto_tsquery",
    "plainto_tsquery",
    "quote_literal",
    "quote_nullable",
    "row_to_json",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "json_to_tsvector",
    "jsonb_to_tsvector",
    "ts_headline",
    "tsvector_concat",
    "websearch_to_tsquery",
    "xmlagg",
    "array_agg",
    "string_agg",
    "count",
    "range_agg",
];

/// Whether one of Postgres' own functions depends on no more than its arguments and settings, though it is stable.
pub(super) fn is_by_settings(function: &str) -> bool {
    BY_SETTINGS.contains(&function)
}
