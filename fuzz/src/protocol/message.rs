//! One frontend message, and what people are to read of it.

use bytes::BytesMut;
use wire::PgError;
use wire::pg::frontend;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// For people.
    pub label: String,
    /// What is sent.
    pub bytes: Vec<u8>,
}

impl Message {
    /// Some bytes.
    pub fn raw(label: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            label: label.into(),
            bytes: bytes.into(),
        }
    }

    /// A kind and a body, with the right length.
    pub fn framed(label: impl Into<String>, kind: u8, body: &[u8]) -> Self {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        Self::raw(label, bytes)
    }

    /// What a builder writes; nothing if it refuses to.
    pub fn built(
        label: impl Into<String>,
        write: impl FnOnce(&mut BytesMut) -> Result<(), PgError>,
    ) -> Self {
        let mut bytes = BytesMut::new();
        if write(&mut bytes).is_err() {
            bytes.clear();
        }
        Self::raw(label, bytes)
    }

    /// A simple query.
    pub fn query(sql: &str) -> Self {
        Self::built(format!("Query {sql:?}"), |out| {
            frontend::query(out, sql.as_bytes())
        })
    }

    /// `Sync`.
    pub fn sync() -> Self {
        Self::framed("Sync", frontend::kind::SYNC, b"")
    }

    /// `CopyFail`.
    pub fn copy_fail() -> Self {
        Self::framed("CopyFail", frontend::kind::COPY_FAIL, b"enough\0")
    }

    /// `Terminate`.
    pub fn terminate() -> Self {
        Self::framed("Terminate", frontend::kind::TERMINATE, b"")
    }
}
