//! Our own protocol in a WebSocket, `dormouse.v1`: JSON text, many requests at once, each answered in its turn.
//!
//! 1. An idle conversation is a socket and some text: no session, no process, nothing that keeps its database awake.
//! 2. Nothing that a client makes us keep is without a limit. One that does not read its answers stops its statements.
//! 3. A client that was cut off finds what it missed, if it comes back in time.
//!
//! A [`socket`] reads [`Request`](request::Request)s into a [`Conversation`] and sends what is in its
//! [`Outbox`](outbox::Outbox); [`run`] does the requests, by sessions of a [`Visitor`]. `docs/websocket.md` is the
//! protocol by example.

mod answer;
mod conversation;
mod lane;
mod outbox;
mod registry;
mod request;
mod run;
mod socket;
mod state;
mod visitor;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::Response;

use super::error::ApiError;
use super::origin;
use super::router::App;
use super::tenant::Tenant;
use super::upgraded::Upgrade;
use conversation::Conversation;
use visitor::Visitor;

pub(super) use registry::Registry;

/// The name of the protocol, as of a `Sec-WebSocket-Protocol`.
const PROTOCOL: &str = "dormouse.v1";

/// The buffer of an idle socket, for what it reads at once.
const READ_BYTES: usize = 1024;

/// A message that is too large, but not by this factor, is read to its end: closing a socket in the midst of it could
/// keep the client from learning why.
const OVERSIZE: usize = 2;

pub(super) async fn websocket(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    extensions: Extensions,
    Upgrade(upgrade): Upgrade,
) -> Result<Response, ApiError> {
    origin::check(&headers, &app.options.websocket.origins)?;
    let place = app.upgraded.enter(app.options.websocket.connections_max)?;
    let share = app.share_of_websockets(Some(&tenant.caller), Some(&tenant.name))?;
    let message_max = tenant.sizes.message;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(message_max.bytes.saturating_mul(OVERSIZE))
        .max_frame_size(message_max.bytes.saturating_mul(OVERSIZE));
    if upgrade.selected_protocol().is_none() && upgrade.requested_protocols().next().is_some() {
        return Err(ApiError::request(
            StatusCode::BAD_REQUEST,
            format!("the only protocol of a WebSocket here is {PROTOCOL}"),
        ));
    }
    let registry = Arc::clone(&app.conversations);
    let stopping = app.stopping.clone();
    let pass = app.pass((&headers, &extensions), &tenant);
    let current = app.current().ok_or_else(conversation::shutting_down)?;
    let visitor = Visitor {
        current,
        tenant,
        pass,
    };
    let options = &app.options.websocket;
    let conversation = Conversation::new(visitor, options, stopping, (place, share));
    Ok(upgrade.on_upgrade(|stream| socket::serve(stream, registry, conversation)))
}
