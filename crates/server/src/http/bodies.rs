//! How many bytes of requests' bodies the node has at once: those that are still coming, and those of requests that are
//! being worked on, also in the background when nobody waits for the answer any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use wire::{PgError, sqlstate};

use super::error::ApiError;

/// The bytes of all bodies.
#[derive(Debug, Default)]
pub(super) struct Bodies(AtomicUsize);

/// Those of one body, which count for as long as this lives: an extension of its request, and with its [`Tenant`] in
/// what works on it.
///
/// [`Tenant`]: super::tenant::Tenant
#[must_use]
#[derive(Debug)]
pub(super) struct Counted {
    bodies: Arc<Bodies>,
    bytes: usize,
}

impl Bodies {
    /// A body of which nothing has come yet.
    pub(super) fn begin(self: &Arc<Self>) -> Counted {
        Counted {
            bodies: Arc::clone(self),
            bytes: 0,
        }
    }

    /// What there is now.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counted {
    /// More of it has come.
    ///
    /// # Errors
    /// 503 if all bodies together would be more than `max` then.
    pub(super) fn add(&mut self, bytes: usize, max: usize) -> Result<(), ApiError> {
        let all = &self.bodies.0;
        let add = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= max);
        let added = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        added.map_err(|_| too_many(max))?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.bodies.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn too_many(max: usize) -> ApiError {
    let error = PgError::error(
        sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        format!("the bodies of all requests under way are more than http.bodies_bytes_max, {max}"),
    )
    .hint(
        "Try again in a moment, send less at once, or raise http.bodies_bytes_max in Dormouse's \
         configuration.",
    );
    // The rest of the body is in the way of another request.
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error).closes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_counts_no_more() {
        let bodies = Arc::<Bodies>::default();
        let mut one = bodies.begin();
        one.add(60, 100).unwrap();
        let mut other = bodies.begin();
        other.add(40, 100).unwrap();
        let error = other.add(1, 100).unwrap_err();
        assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            error
                .into_error()
                .message()
                .contains("http.bodies_bytes_max, 100")
        );
        drop(one);
        // What was refused was not counted.
        other.add(60, 100).unwrap();
        drop(other);
        assert_eq!(bodies.bytes(), 0);
    }
}
