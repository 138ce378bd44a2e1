//! `GET /metrics`: what is counted, in the text format of Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::router::App;
use crate::blocking::blocking;
use crate::metrics::{collect, render};

/// The text format's own media type.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let text = blocking(move || Ok(render(&collect(&app)))).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
