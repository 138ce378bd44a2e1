//! Closing a connection whose client may still be sending.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// How long a client is listened to after it was told the last word.
pub(crate) const LINGER_MAX: Duration = Duration::from_millis(1_000);

/// Reads and forgets what a client still sends. The caller has shut down the other direction.
///
/// Closing a socket with unread bytes resets the connection, and a reset can overtake the answer:
/// the client would learn that it failed, but not why.
pub(crate) async fn linger(input: &mut (impl AsyncRead + Unpin)) {
    // Not in the future itself, which waits with its connection for this.
    let mut bytes = vec![0; 16 * 1024];
    let drained = async { while matches!(input.read(&mut bytes).await, Ok(1..)) {} };
    // Past the time the client gets its reset.
    let _ = timeout(LINGER_MAX, drained).await;
}
