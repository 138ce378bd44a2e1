//! Connections that are HTTP no more: WebSockets. They are counted against a limit, and a stop waits for them.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::StatusCode;
use axum::http::request::Parts;
use tokio::sync::watch;
use wire::{PgError, sqlstate};

use super::error::ApiError;

/// The close code for who may not stay.
pub(super) const NOT_ADMITTED: u16 = 4401;

/// How many WebSockets there are.
pub(crate) struct Upgraded {
    count: watch::Sender<usize>,
}

/// One of them, as long as it lives.
pub(crate) struct Place(Arc<Upgraded>);

/// A request for a WebSocket.
pub(super) struct Upgrade(pub(super) WebSocketUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        upgrade.map(Self).map_err(|rejection| {
            ApiError::request(
                StatusCode::BAD_REQUEST,
                format!("a WebSocket is spoken here: {}", rejection.body_text()),
            )
        })
    }
}

impl Upgraded {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            count: watch::Sender::new(0),
        })
    }

    /// Takes a place, of so many.
    ///
    /// # Errors
    /// 503 if there is none left.
    pub(super) fn enter(self: &Arc<Self>, max: usize) -> Result<Place, ApiError> {
        let place = Place(Arc::clone(self));
        self.count.send_modify(|count| *count += 1);
        if *self.count.borrow() <= max {
            return Ok(place);
        }
        let error = PgError::error(
            sqlstate::TOO_MANY_CONNECTIONS,
            format!("too many WebSockets: websocket.connections_max is {max}"),
        )
        .hint("Close some, or raise websocket.connections_max in Dormouse's configuration.");
        Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error))
    }

    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until there is none.
    pub(super) async fn ended(&self) {
        let mut count = self.count.subscribe();
        // This holds the sender.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_come_back() {
        let sockets = Upgraded::new();
        let first = sockets.enter(1).ok();
        assert!(first.is_some());
        assert!(sockets.enter(1).is_err());
        drop(first);
        sockets.ended().await;
        assert!(sockets.enter(1).is_ok());
    }
}
