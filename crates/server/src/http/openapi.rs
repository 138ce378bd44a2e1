//! `GET /openapi.json`: what this server answers, for programs.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The document, OpenAPI 3.1.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::DOCUMENT;

    /// A body is read whatever is done with it, and may be too long, too slow, or unreadable.
    #[test]
    fn whatever_may_have_a_body_says_how_that_fails() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut looked_at = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            if path.starts_with("/api/") {
                continue;
            }
            for (method, operation) in methods.as_object().unwrap() {
                if !["post", "put", "patch", "delete"].contains(&&**method) {
                    continue;
                }
                for status in ["400", "408", "413"] {
                    let response = &operation["responses"][status];
                    assert!(response.is_object(), "{method} {path} has no {status}");
                }
                looked_at += 1;
            }
        }
        assert!(looked_at > 20);
    }
}
