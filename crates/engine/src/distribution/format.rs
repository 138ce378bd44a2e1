//! The layout of the embedded archive, shared by the build script that writes it and the library
//! that reads it. They are built together, so there is one version and no other is ever met.
//!
//! ```text
//! archive   | magic 8 | index length u32 | index, one zstd frame | section 0 | section 1 | ...
//!
//! section   one zstd frame with checksum. 0 is pglite.wasm, 1 is initdb.wasm, then one for each
//!           library (.so), then one for each group of small files that are read together
//!
//! index     | id 32
//!           | section count u32 | { packed length u32, length u32, kept u8, sha256 32 } ...
//!           | entry count u32   | { path length u16, path,
//!           |                       0                                 a directory, or
//!           |                       1 or 2 (executable),
//!           |                       section u32, start u32, length u32  a file } ...
//! ```
//!
//! Numbers are little-endian. Entries are sorted by the bytes of their paths, every directory is
//! one, and `id` is the SHA-256 of the index with `id` and all packed lengths zero.

pub(crate) const MAGIC: [u8; 8] = *b"dormous1";

/// The section of `pglite.wasm`.
pub(crate) const PGLITE_WASM: usize = 0;
/// The section of `initdb.wasm`.
pub(crate) const INITDB_WASM: usize = 1;

const DIRECTORY: u8 = 0;
const PLAIN: u8 = 1;
const EXECUTABLE: u8 = 2;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) id: [u8; 32],
    pub(crate) sections: Vec<Section>,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) packed_len: u32,
    pub(crate) len: u32,
    /// Small files that stay in memory once read.
    pub(crate) kept: bool,
    pub(crate) sha256: [u8; 32],
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Box<str>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File {
        section: u32,
        start: u32,
        len: u32,
        executable: bool,
    },
}

impl Index {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.id.to_vec();
        out.extend(count(self.sections.len()));
        for section in &self.sections {
            out.extend(section.packed_len.to_le_bytes());
            out.extend(section.len.to_le_bytes());
            out.push(u8::from(section.kept));
            out.extend(section.sha256);
        }
        out.extend(count(self.entries.len()));
        for entry in &self.entries {
            let path_len = u16::try_from(entry.path.len()).expect("BUG: a path of over 64 KiB");
            out.extend(path_len.to_le_bytes());
            out.extend(entry.path.as_bytes());
            match entry.kind {
                Kind::Directory => out.push(DIRECTORY),
                Kind::File {
                    section,
                    start,
                    len,
                    executable,
                } => {
                    out.push(if executable { EXECUTABLE } else { PLAIN });
                    out.extend([section, start, len].iter().flat_map(|n| n.to_le_bytes()));
                }
            }
        }
        out
    }

    /// `None` if the bytes are not exactly an index.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        let id = rest.array()?;
        let sections = (0..rest.u32()?)
            .map(|_| rest.section())
            .collect::<Option<_>>()?;
        let entries = (0..rest.u32()?)
            .map(|_| rest.entry())
            .collect::<Option<_>>()?;
        rest.0.is_empty().then_some(Self {
            id,
            sections,
            entries,
        })
    }
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len)
        .expect("BUG: a count of over 32 bits")
        .to_le_bytes()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn section(&mut self) -> Option<Section> {
        let (packed_len, len) = (self.u32()?, self.u32()?);
        let [kept] = self.array()?;
        Some(Section {
            packed_len,
            len,
            kept: kept == 1,
            sha256: self.array()?,
        })
    }

    fn entry(&mut self) -> Option<Entry> {
        let path_len = u16::from_le_bytes(self.array()?);
        let path = std::str::from_utf8(self.bytes(path_len.into())?)
            .ok()?
            .into();
        let kind = match self.array()? {
            [DIRECTORY] => Kind::Directory,
            [mode @ (PLAIN | EXECUTABLE)] => Kind::File {
                section: self.u32()?,
                start: self.u32()?,
                len: self.u32()?,
                executable: mode == EXECUTABLE,
            },
            _ => return None,
        };
        Some(Entry { path, kind })
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Index, Kind, Section};

    #[test]
    fn decodes_what_was_encoded_and_nothing_less_or_more() {
        let kind = Kind::File {
            section: 0,
            start: 3,
            len: 4,
            executable: true,
        };
        let index = Index {
            id: [7; 32],
            sections: vec![Section {
                packed_len: 1,
                len: 9,
                kept: true,
                sha256: [8; 32],
            }],
            entries: vec![
                Entry {
                    path: "/".into(),
                    kind: Kind::Directory,
                },
                Entry {
                    path: "/ä".into(),
                    kind,
                },
            ],
        };
        let mut bytes = index.encode();
        assert_eq!(Index::decode(&bytes), Some(index));
        for len in 0..bytes.len() {
            assert_eq!(Index::decode(&bytes[..len]), None, "{len} bytes");
        }
        bytes.push(0);
        assert_eq!(Index::decode(&bytes), None);
    }
}
