//! A cursor over the body of a message.

use super::{PgError, sqlstate};

/// Reads a message's body from left to right. Every read past the end is an error of the protocol.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, PgError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn i16(&mut self) -> Result<i16, PgError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// A count of things. Counts are unsigned in PostgreSQL, as up to 65,535 parameters show.
    pub(crate) fn count(&mut self) -> Result<usize, PgError> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, PgError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, PgError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A string that ends with a zero byte.
    pub(crate) fn cstr(&mut self) -> Result<&'a [u8], PgError> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| violation("invalid string in message"))?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// A value that its length precedes; a length of -1 is NULL.
    pub(crate) fn value(&mut self) -> Result<Option<&'a [u8]>, PgError> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| insufficient())?;
                Ok(Some(self.bytes(length)?))
            }
        }
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], PgError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(insufficient)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), PgError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(violation("invalid message format"))
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PgError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(insufficient)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

pub(crate) fn violation(message: impl Into<String>) -> PgError {
    PgError::error(sqlstate::PROTOCOL_VIOLATION, message)
}

fn insufficient() -> PgError {
    violation("insufficient data left in message")
}
