//! What a walsender says: the plugin pgoutput in its first protocol, within the messages of replication. Pure.
//!
//! Of a row only the number of its table counts here, which stands at the beginning. So of each message no more than a
//! head is kept, however long the row is.

use bytes::{Buf as _, BytesMut};

use crate::cache::Oid;

/// What is kept of a message.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes before the body of a message: its kind and its length.
const PREFIX_BYTES: usize = 5;

/// What was sent is not of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

/// The beginning of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) body: BytesMut,
    /// There was more of it.
    pub(super) is_cut: bool,
}

/// Parts what arrives into the heads of messages.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Bytes of a message whose head was taken already.
    rest: usize,
}

impl Heads {
    /// The next, if enough of it has arrived.
    pub(super) fn next(&mut self, inbox: &mut BytesMut) -> Result<Option<Head>, Garbled> {
        let skipped = self.rest.min(inbox.len());
        inbox.advance(skipped);
        self.rest -= skipped;
        if self.rest > 0 || inbox.len() < PREFIX_BYTES {
            return Ok(None);
        }
        let length = (&inbox[1..PREFIX_BYTES]).get_i32();
        // It counts itself.
        let length = usize::try_from(length).map_err(|_| Garbled)?;
        let length = length.checked_sub(4).ok_or(Garbled)?;
        let kept = length.min(HEAD_BYTES_MAX);
        if inbox.len() < PREFIX_BYTES + kept {
            return Ok(None);
        }
        let kind = inbox.get_u8();
        inbox.advance(4);
        self.rest = length - kept;
        Ok(Some(Head {
            kind,
            body: inbox.split_to(kept),
            is_cut: length > kept,
        }))
    }
}

/// What a walsender tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// It lives, and has told all up to here.
    Alive { end: u64, wants_reply: bool },
    /// What follows is of this transaction, which is committed.
    Begin { xid: u32 },
    /// A row of a table was inserted, updated or deleted.
    Row(Oid),
    /// Tables were emptied; nothing if there are too many to be told apart.
    Truncate(Option<Vec<Oid>>),
    /// The transaction is told, up to here.
    Commit { end: u64 },
    /// What a table or a type looks like, where a transaction came from, what somebody has emitted.
    Other,
}

impl Message {
    /// Of the body of a `CopyData`.
    pub(super) fn decode(mut body: &[u8], is_cut: bool) -> Result<Self, Garbled> {
        let body = &mut body;
        match body.try_get_u8().map_err(|_| Garbled)? {
            b'k' => {
                let end = long(body)?;
                long(body)?;
                let wants_reply = body.try_get_u8().map_err(|_| Garbled)? != 0;
                Ok(Self::Alive { end, wants_reply })
            }
            b'w' => {
                for _ in 0..3 {
                    long(body)?;
                }
                Self::of_plugin(body, is_cut)
            }
            _ => Err(Garbled),
        }
    }

    fn of_plugin(body: &mut &[u8], is_cut: bool) -> Result<Self, Garbled> {
        match body.try_get_u8().map_err(|_| Garbled)? {
            b'B' => {
                long(body)?;
                long(body)?;
                Ok(Self::Begin { xid: int(body)? })
            }
            b'C' => {
                body.try_get_u8().map_err(|_| Garbled)?;
                long(body)?;
                let end = long(body)?;
                long(body)?;
                Ok(Self::Commit { end })
            }
            b'I' | b'U' | b'D' => Ok(Self::Row(int(body)?)),
            b'T' => {
                let count = int(body)?;
                body.try_get_u8().map_err(|_| Garbled)?;
                if is_cut {
                    return Ok(Self::Truncate(None));
                }
                let tables: Result<Vec<Oid>, Garbled> = (0..count).map(|_| int(body)).collect();
                Ok(Self::Truncate(Some(tables?)))
            }
            b'R' | b'Y' | b'O' | b'M' => Ok(Self::Other),
            _ => Err(Garbled),
        }
    }
}

fn int(body: &mut &[u8]) -> Result<u32, Garbled> {
    body.try_get_u32().map_err(|_| Garbled)
}

fn long(body: &mut &[u8]) -> Result<u64, Garbled> {
    body.try_get_u64().map_err(|_| Garbled)
}

/// The body of a `CopyData` that says up to where all is heard, and asks whether the other end still lives.
pub(super) fn heard(end: u64) -> [u8; 34] {
    let mut body = [0; 34];
    body[0] = b'r';
    for at in [1, 9, 17] {
        body[at..at + 8].copy_from_slice(&end.to_be_bytes());
    }
    // The clock of a standby, which nobody compares, stays zero.
    body[33] = 1;
    body
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
