use super::*;
use proptest::prelude::*;

fn message(text: &str) -> String {
    Manifest::parse(text).unwrap_err().message
}

/// The manifest of the platform's own document.
#[test]
fn the_documented_manifest() {
    let manifest = Manifest::parse(
        r#"{ "bindings": { "hyperdrive": [ { "binding": "DB", "id": "postgres-binding-id" } ] } }"#,
    )
    .unwrap();
    let expected = PostgresBinding {
        binding: "DB".to_owned(),
        id: "postgres-binding-id".to_owned(),
    };
    assert_eq!(manifest.hyperdrive, [expected]);
    assert_eq!(manifest.routing, Routing::default());
}

#[test]
fn everything_that_is_offered() {
    let manifest = Manifest::parse(
        r#"{ "name": "shop", "vars": ["A"], "secrets": ["B", "_C"], "later": [1],
             "bindings": { "hyperdrive": [{"binding": "$db", "id": " x "}], "kv": [], "sometime": {} },
             "queues": [], "rpc": {}, "queue": {"allow": []},
             "routing": { "defaultDomain": false, "customDomainBranchMode": "direct", "customDomainAuthority": 7 } }"#,
    )
    .unwrap();
    assert_eq!(manifest.name.as_deref(), Some("shop"));
    assert_eq!(manifest.hyperdrive[0].id, "x");
    assert_eq!(manifest.vars, ["A"]);
    assert_eq!(manifest.secrets, ["B", "_C"]);
    let unknown: Vec<_> = manifest
        .unknown
        .warnings()
        .map(|told| told.target)
        .collect();
    assert_eq!(unknown, ["later", "bindings.sometime"]);
    assert!(!manifest.routing.default_domain && !manifest.routing.prefixed_branches);
    assert_eq!(Manifest::parse("{}").unwrap(), Manifest::default());
}

#[test]
fn errors_are_the_platforms_own() {
    let of =
        |hyperdrive: &str| message(&format!(r#"{{"bindings":{{"hyperdrive":{hyperdrive}}}}}"#));
    assert_eq!(of("{}"), "bindings.hyperdrive must be an array.");
    assert_eq!(of(r#"["DB"]"#), "bindings.hyperdrive[0] must be an object.");
    let name = "bindings.hyperdrive[0].binding must be a valid Worker binding name.";
    for binding in ["{}", r#"{"binding":1}"#, r#"{"binding":"1a","id":"x"}"#] {
        assert_eq!(of(&format!("[{binding}]")), name);
    }
    assert_eq!(
        of(r#"[{"binding":"DB"}]"#),
        "bindings.hyperdrive[0].id must be a string."
    );
    assert_eq!(
        of(r#"[{"binding":"DB","id":" "}]"#),
        "bindings.hyperdrive[0].id must not be empty."
    );
    assert_eq!(
        of(r#"[{"binding":"DB","id":"x"},{"binding":"DB","id":"y"}]"#),
        "bindings.hyperdrive[1].binding duplicates DB."
    );
    assert!(message("{").starts_with("Invalid w7s.json: "));
    assert_eq!(message("[]"), "w7s.json must be an object.");
    assert_eq!(message(r#"{"bindings":1}"#), "bindings must be an object.");
    assert_eq!(
        message(r#"{"vars":["1"]}"#),
        "vars[0] must be a valid environment variable name."
    );
    assert_eq!(message(r#"{"secrets":{}}"#), "secrets must be an array.");
}

/// Acceptance behaviour 12, its first half.
#[test]
fn a_name_of_env_is_there_once_whatever_its_kind() {
    let db = r#"{"binding":"DB","id":"x"}"#;
    for (text, expected) in [
        (
            format!(r#"{{"bindings":{{"hyperdrive":[{db}],"db":["DB"]}}}}"#),
            "bindings.db[0] duplicates DB.",
        ),
        (
            format!(r#"{{"bindings":{{"hyperdrive":[{db}],"kv":[{{"binding":"DB"}}]}}}}"#),
            "bindings.kv[0].binding duplicates DB.",
        ),
        (
            format!(r#"{{"bindings":{{"hyperdrive":[{db}]}},"vars":["DB"]}}"#),
            "vars[0] duplicates DB.",
        ),
        (
            r#"{"vars":["A"],"secrets":["A"]}"#.to_owned(),
            "secrets[0] duplicates A.",
        ),
        (
            r#"{"vars":["W7S_REPO"]}"#.to_owned(),
            "vars[0] is W7S_REPO, which the platform sets itself.",
        ),
    ] {
        assert_eq!(message(&text), expected);
    }
}

#[test]
fn other_kinds_are_refused_by_name() {
    for (text, name) in [
        (r#"{"bindings":{"kv":["CACHE"]}}"#, "bindings.kv (CACHE)"),
        (r#"{"bindings":{"fs":["F"]}}"#, "bindings.fs (F)"),
        (
            r#"{"bindings":{"r2":[{"binding":"F"}]}}"#,
            "bindings.r2 (F)",
        ),
        (r#"{"bindings":{"db":["D"]}}"#, "bindings.db (D)"),
        (r#"{"bindings":{"d1":["D"]}}"#, "bindings.d1 (D)"),
        (
            r#"{"bindings":{"durableObjects":[{"binding":"O","className":"C"}]}}"#,
            "bindings.durableObjects (O)",
        ),
        (r#"{"bindings":{"ai":"AI"}}"#, "bindings.ai (AI)"),
        (r#"{"bindings":{"ai":["AI"]}}"#, "bindings.ai (AI)"),
        (
            r#"{"bindings":{"email":[{"binding":"M"}]}}"#,
            "bindings.email (M)",
        ),
        (r#"{"queues":["jobs"]}"#, "queues (jobs)"),
        (
            r#"{"schedules":[{"cron":"* * * * *","path":"/x"}]}"#,
            "schedules (* * * * *)",
        ),
        (r#"{"workflows":[{"name":"w"}]}"#, "workflows (w)"),
        (r#"{"rpc":{"allow":["o/r"]}}"#, "rpc.allow (o/r)"),
        (r#"{"queue":{"allow":["o"]}}"#, "queue.allow (o)"),
        (r#"{"workflow":{"allow":["o"]}}"#, "workflow.allow (o)"),
    ] {
        let refused = Manifest::parse(text).unwrap_err();
        assert_eq!(refused.status, 400);
        assert!(refused.message.contains(name), "{}", refused.message);
        assert_eq!(refused.details, [name]);
    }
}

#[test]
fn values_of_headers() {
    // {"A":"1","B":"ä"}
    let values = Values::from_header("x-w7s-vars", "eyJBIjoiMSIsIkIiOiLDpCJ9").unwrap();
    assert_eq!(values.iter().collect::<Vec<_>>(), [("A", "1"), ("B", "ä")]);
    assert_eq!(format!("{values:?}"), r#"{"A", "B"}"#);
    for bad in ["%", "bm90IGpzb24"] {
        let refused = Values::from_header("x-w7s-vars", bad).unwrap_err();
        assert_eq!(
            refused.message,
            "x-w7s-vars must be base64url-encoded JSON."
        );
    }
    // {"A":{"secret":1}}
    let refused = Values::from_header("x-w7s-secrets", "eyJBIjp7InNlY3JldCI6MX19").unwrap_err();
    assert_eq!(refused.message, "x-w7s-secrets: A must be a string.");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        if let Err(refused) = Manifest::parse(&text) {
            prop_assert_eq!(refused.status, 400);
        }
    }
}
