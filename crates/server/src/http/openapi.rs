//! `GET /openapi.json`: what this server answers, for programs.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The document, OpenAPI 3.1.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
