//! Cancelling a statement for good.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use database::Canceller;
use tokio::time::timeout;

/// Between two requests to cancel.
const AGAIN: Duration = Duration::from_millis(500);

/// Cancels work, and waits for its end. It is told again and again: one request may fall between
/// two of its steps, where there is nothing to cancel, or be forgotten when the next step begins.
pub(crate) async fn insist<T>(canceller: &Canceller, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        canceller.cancel();
        if let Ok(done) = timeout(AGAIN, &mut work).await {
            return done;
        }
    }
}
