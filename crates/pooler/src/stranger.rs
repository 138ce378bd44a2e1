//! What listens where a Postgres was looked for, and is none.

use crate::failure::{Failure, FailureKind};
use crate::origin::Host;

/// Of the first bytes that it has said.
pub(crate) fn stranger(host: &Host, said: &[u8]) -> Failure {
    let what = match said {
        [b'H', b'T', b'T', b'P', ..] => ": it is a server of HTTP",
        // An alert or a handshake.
        [0x15 | 0x16, 3, ..] => ": it speaks TLS from the first byte on",
        [b'S', b'S', b'H', b'-', ..] => ": it is a server of SSH",
        _ => "",
    };
    Failure::new(
        FailureKind::Protocol,
        format!(
            "what listens at {host} does not speak PostgreSQL's protocol{what}. Check the host and the port"
        ),
    )
}
