//! Behaviours of `docs/acceptance.md` that need the whole program, each a test with its number; and what is killed under
//! load.

mod configs;
mod deploying;
mod faults;
mod memory;
mod running;

use serde_json::Value;

use crate::apps::stage::{Archive, Stage};

/// The flags of the platform's document.
const FLAGS: &str = r#"{"compatibility_flags": ["nodejs_compat_v2"]}"#;

/// A new binding: its id.
#[track_caller]
fn bind(stage: &Stage, new: &Value) -> String {
    let made = stage.ask("POST", "/v1/bindings", Some(&new.to_string()));
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["id"].as_str().unwrap().to_owned()
}

/// A backend with `DB` bound.
fn bound(id: &str, code: &str) -> Archive {
    let manifest =
        format!(r#"{{"bindings": {{"hyperdrive": [{{"binding": "DB", "id": "{id}"}}]}}}}"#);
    Archive::of(&[
        ("w7s.json", &manifest),
        ("dist/server/index.js", code),
        ("dist/server/wrangler.json", FLAGS),
    ])
}
