//! Counting what a backend's answers say, without keeping them.

use super::backend::kind;

/// Bytes of a message's body that are looked at: the code of an error and the tag of a command come first.
const HEAD_BYTES_MAX: usize = 64;
/// The type byte and the length.
const HEADER_BYTES: usize = 5;
/// Letters of an SQLSTATE.
const CODE_BYTES: usize = 5;

/// Counts of answers, which may come in pieces cut anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Statements that came to their end, with an error or without.
    pub statements: u64,
    /// Those that ended with an error.
    pub errors: u64,
    /// Rows returned or changed, as the commands' tags say.
    pub rows: u64,
    /// Bytes of all messages.
    pub bytes: u64,
    /// The SQLSTATE of the first error.
    pub code: Option<[u8; CODE_BYTES]>,
    /// What has come of a message that is not whole yet, at most its head.
    partial: Vec<u8>,
    /// Bytes of that message that are still to come and not looked at.
    skip: usize,
}

impl Tally {
    /// Counts the next bytes.
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            bytes = match self.partial.is_empty() {
                true => self.add_messages(bytes),
                false => self.complete(bytes),
            };
        }
    }

    /// Counts whole messages at the front: what is left is none, or keeps for [`Self::complete`].
    fn add_messages<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() {
            let (kind, length) = read(header);
            let looked_at = length.min(head_bytes(kind));
            let Some(head) = body.get(..looked_at) else {
                break;
            };
            self.message(kind, head);
            match body.get(length..) {
                Some(rest) => bytes = rest,
                None => {
                    self.skip = length - body.len();
                    return &[];
                }
            }
        }
        self.partial.extend_from_slice(bytes);
        &[]
    }

    /// Adds to a message whose head is not whole, and counts it once that is.
    fn complete<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let known = self.partial.first_chunk::<HEADER_BYTES>().map(read);
        let wanted = match known {
            None => HEADER_BYTES,
            Some((kind, length)) => HEADER_BYTES + length.min(head_bytes(kind)),
        };
        let taken = wanted.saturating_sub(self.partial.len()).min(bytes.len());
        let (now, rest) = bytes.split_at(taken);
        self.partial.extend_from_slice(now);
        if let Some((kind, length)) = self.partial.first_chunk::<HEADER_BYTES>().map(read) {
            let looked_at = length.min(head_bytes(kind));
            if self.partial.len() == HEADER_BYTES + looked_at {
                let partial = std::mem::take(&mut self.partial);
                self.message(kind, &partial[HEADER_BYTES..]);
                self.skip = length - looked_at;
            }
        }
        rest
    }

    fn message(&mut self, kind: u8, head: &[u8]) {
        match kind {
            kind::COMMAND_COMPLETE => {
                self.statements += 1;
                self.rows += rows(head).unwrap_or(0);
            }
            kind::EMPTY_QUERY_RESPONSE => self.statements += 1,
            kind::ERROR_RESPONSE => {
                self.statements += 1;
                self.errors += 1;
                self.code = self.code.or_else(|| code(head));
            }
            _ => {}
        }
    }
}

/// How much of a message's body is looked at.
fn head_bytes(kind: u8) -> usize {
    match kind {
        kind::COMMAND_COMPLETE | kind::ERROR_RESPONSE => HEAD_BYTES_MAX,
        _ => 0,
    }
}

/// The kind of a message and the bytes of its body.
fn read(header: &[u8; HEADER_BYTES]) -> (u8, usize) {
    let [kind, length @ ..] = *header;
    (
        kind,
        (u32::from_be_bytes(length) as usize).saturating_sub(4),
    )
}

/// The number at the end of a tag such as `INSERT 0 5`.
fn rows(head: &[u8]) -> Option<u64> {
    let tag = head.split(|byte| *byte == 0).next()?;
    let digits = tag.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The SQLSTATE of an error whose fields begin so.
fn code(head: &[u8]) -> Option<[u8; CODE_BYTES]> {
    let mut fields = head.split(|byte| *byte == 0);
    let code = fields.find_map(|field| field.strip_prefix(b"C"))?;
    code.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::backend;
    use super::*;
    use crate::PgError;
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn answers() -> BytesMut {
        let mut out = BytesMut::new();
        backend::command_complete(&mut out, "SELECT 3");
        out.extend_from_slice(b"D\0\0\0\x0a\0\x01\xff\xff\xff\xff");
        backend::command_complete(&mut out, "INSERT 0 5");
        backend::command_complete(&mut out, "CREATE TABLE");
        PgError::error("23505", "twice ".repeat(60)).encode(&mut out);
        backend::ready_for_query(&mut out, super::super::TransactionStatus::Idle);
        out
    }

    #[test]
    fn what_is_said_is_counted() {
        let mut tally = Tally::default();
        tally.add(&answers());
        assert_eq!((tally.statements, tally.errors, tally.rows), (4, 1, 8));
        assert_eq!(tally.code.as_ref(), Some(b"23505"));
        assert_eq!(tally.bytes, answers().len() as u64);
    }

    proptest! {
        #[test]
        fn pieces_count_as_the_whole(cuts in proptest::collection::vec(1_usize..40, 0..60)) {
            let whole = answers();
            let mut expected = Tally::default();
            expected.add(&whole);
            let mut tally = Tally::default();
            let mut rest = &whole[..];
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                tally.add(now);
                rest = later;
            }
            tally.add(rest);
            prop_assert_eq!(tally, expected);
        }

        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>, more: Vec<u8>) {
            let mut tally = Tally::default();
            tally.add(&bytes);
            tally.add(&more);
            prop_assert_eq!(tally.bytes, (bytes.len() + more.len()) as u64);
            prop_assert!(tally.partial.len() <= HEADER_BYTES + HEAD_BYTES_MAX);
        }
    }
}
