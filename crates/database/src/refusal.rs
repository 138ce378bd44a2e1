//! Errors of Postgres that a limit of ours has caused, told with the name of the limit.

use bytes::{BufMut, Bytes, BytesMut};
use volume::Refusal;
use wire::pg::backend::kind::ERROR_RESPONSE;
use wire::pg::{ErrorField, frames};
use wire::{PgError, sqlstate};

/// What a limit of ours has refused. Postgres itself only saw its consequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A file could not grow.
    Room(Refusal),
    /// The statement was cancelled, because too much WAL had gathered since the last checkpoint.
    Wal {
        /// The limit `volume.wal_bytes_max`.
        max: u64,
    },
    /// The transaction was read-only, because the disk is all but full.
    ReadOnly {
        /// The limit `disk.reserve_bytes`.
        reserve: u64,
    },
}

impl Refused {
    /// The SQLSTATE of the consequence.
    fn seen_as(&self) -> &'static str {
        match self {
            Self::Room(_) => sqlstate::DISK_FULL,
            Self::Wal { .. } => sqlstate::QUERY_CANCELED,
            Self::ReadOnly { .. } => sqlstate::READ_ONLY_SQL_TRANSACTION,
        }
    }

    /// The consequence, told by its cause.
    fn explain(&self, error: PgError) -> PgError {
        let full = |error: PgError| error.with(ErrorField::Code, sqlstate::DISK_FULL);
        match self {
            Self::Room(Refusal::Limit { limit, max, used }) => error
                .detail(format!(
                    "The database stores {used} bytes; the limit {limit} is {max}."
                ))
                .hint(match *limit {
                    "disk.reserve_bytes" => {
                        "Make room on the host's disk: fewer bytes are free than are reserved for \
                         what was committed."
                            .to_owned()
                    }
                    limit => {
                        format!(
                            "Remove data (DELETE and VACUUM, TRUNCATE, DROP), or raise {limit}."
                        )
                    }
                }),
            Self::Room(Refusal::DiskFull { action, .. }) => error
                .detail(format!("The host's disk is full: it could not {action}."))
                .hint("Make room on the host's disk."),
            Self::Wal { max } => full(error)
                .with(
                    ErrorField::Message,
                    "the statement has written too much WAL since the last checkpoint",
                )
                .detail(format!("The limit volume.wal_bytes_max is {max} bytes."))
                .hint(
                    "Write in several transactions, between which checkpoints are made, or raise \
                     volume.wal_bytes_max.",
                ),
            Self::ReadOnly { reserve } => full(error)
                .detail(format!(
                    "The host's disk is all but full: fewer bytes are free than half the limit \
                     disk.reserve_bytes, {reserve}."
                ))
                .hint(
                    "Make room on the host's disk. To remove data nevertheless, say BEGIN READ \
                     WRITE; a write that finds the disk full ends the session.",
                ),
        }
    }
}

/// The answer with each error that the refusal has caused told by its cause.
pub(crate) fn explain(answer: &Bytes, refused: &Refused) -> BytesMut {
    let mut out = BytesMut::with_capacity(answer.len() + 256);
    let mut rest = answer.len();
    for (kind, body) in frames(answer) {
        rest -= body.len() + 5;
        let error = (kind == ERROR_RESPONSE).then(|| PgError::decode(body));
        match error {
            Some(Ok(error)) if error.code() == refused.seen_as() => {
                refused.explain(error).encode(&mut out);
            }
            _ => {
                out.put_u8(kind);
                out.put_u32(body.len() as u32 + 4);
                out.extend_from_slice(body);
            }
        }
    }
    // A frame that is not whole yet.
    out.extend_from_slice(&answer[answer.len() - rest..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::pg::backend;

    #[test]
    fn only_the_consequence_is_told_otherwise() {
        let mut answer = BytesMut::new();
        backend::command_complete(&mut answer, "SELECT 1");
        PgError::error(sqlstate::DISK_FULL, "could not extend file").encode(&mut answer);
        PgError::error("42601", "syntax error").encode(&mut answer);
        answer.extend_from_slice(b"D\0\0");
        let refused = Refused::Room(Refusal::Limit {
            limit: "volume.bytes_max",
            max: 100,
            used: 101,
        });
        let told = explain(&answer.clone().freeze(), &refused);
        let errors: Vec<PgError> = frames(&told)
            .filter(|(kind, _)| *kind == ERROR_RESPONSE)
            .map(|(_, body)| PgError::decode(body).unwrap())
            .collect();
        let detail = errors[0].get(ErrorField::Detail).unwrap();
        assert!(detail.contains("volume.bytes_max is 100"), "{detail}");
        assert_eq!(errors[0].message(), "could not extend file");
        assert_eq!(errors[1].get(ErrorField::Detail), None);
        assert!(told.ends_with(b"D\0\0"));
        assert_eq!(frames(&told).count(), 3);
    }

    #[test]
    fn a_cancelled_statement_becomes_a_full_disk() {
        let mut answer = BytesMut::new();
        PgError::error(sqlstate::QUERY_CANCELED, "canceling statement").encode(&mut answer);
        let told = explain(&answer.freeze(), &Refused::Wal { max: 7 });
        let (_, body) = frames(&told).next().unwrap();
        let error = PgError::decode(body).unwrap();
        assert_eq!(error.code(), sqlstate::DISK_FULL);
        assert!(error.message().contains("WAL"));
    }
}
