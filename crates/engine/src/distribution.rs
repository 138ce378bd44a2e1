//! PGlite as it was published: the two modules, and the read-only file tree that Postgres finds
//! under `/pglite`, with the files of every extension in it.
//!
//! All of it lies compressed inside the program (the build script packs it), in sections that are
//! decompressed on their own when something in them is first asked for:
//!
//! 1. Opening reads the index only: which paths there are, how long, and what hashes.
//! 2. Small files lie in sections of files that are read together, such as all time zones. Such a
//!    section stays in memory once read, shared by everybody, and contents are slices of it.
//! 3. Modules and libraries are not kept: the engine compiles each once and then finds the result
//!    by hash, without asking for the bytes.
//!
//! Paths are absolute and plain: whoever asks has resolved `.`, `..` and links.

#[allow(dead_code, reason = "the build script writes what is read here")]
mod format;
#[cfg(test)]
#[path = "../build/table.rs"]
mod table;

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use format::{INITDB_WASM, Index, Kind, MAGIC, PGLITE_WASM};

static ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/distribution.bin"));

/// The version of the npm package `@electric-sql/pglite`.
pub const PGLITE_VERSION: &str = env!("DORMOUSE_PGLITE_VERSION");

/// The version of PostgreSQL in it.
pub const POSTGRES_VERSION: &str = env!("DORMOUSE_POSTGRES_VERSION");

/// Where Postgres looks for extensions.
pub const EXTENSION_DIRECTORY: &str = "/pglite/share/postgresql/extension";

/// The embedded files of PGlite. Cheap to clone; clones share what was decompressed.
#[derive(Clone)]
pub struct Distribution {
    shared: Arc<Shared>,
}

struct Shared {
    index: Index,
    /// Of each section, its compressed bytes and, if it is of the kept ones, what came out.
    sections: Vec<(&'static [u8], OnceLock<Bytes>)>,
}

/// A file or directory of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory {
        /// Its number in the tree.
        id: NodeId,
    },
    /// A regular file.
    File {
        /// Its number in the tree, by which it can be read.
        id: NodeId,
        /// Length in bytes.
        len: u64,
        /// Whether its mode has the execute bits.
        executable: bool,
    },
}

/// The number of a node: dense from 0, which is `/`, and the same for the same
/// [`Distribution::id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// A SHA-256; displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

/// An extension that `CREATE EXTENSION` finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The version that is created unless another is asked for.
    pub default_version: String,
    /// What it says of itself.
    pub comment: String,
}

impl Distribution {
    /// Reads the index of the embedded files.
    pub fn open() -> Self {
        let (magic, rest) = ARCHIVE.split_at(MAGIC.len());
        assert_eq!(magic, MAGIC, "BUG: the build script embeds an archive");
        let (len, rest) = rest
            .split_first_chunk()
            .expect("BUG: the archive has an index");
        let (packed, mut rest) = rest.split_at(index(u32::from_le_bytes(*len)));
        let index_bytes = zstd::decode_all(packed).expect("BUG: the archive's index is whole");
        let index = Index::decode(&index_bytes).expect("BUG: the archive's index is well formed");

        let sections = index.sections.iter().map(|section| {
            let packed;
            (packed, rest) = rest.split_at(self::index(section.packed_len));
            (packed, OnceLock::new())
        });
        let sections = sections.collect();
        Self {
            shared: Arc::new(Shared { index, sections }),
        }
    }

    /// A hash over everything: modules, paths, modes and contents.
    pub fn id(&self) -> Sha256 {
        Sha256(self.shared.index.id)
    }

    /// The module `pglite.wasm`: PostgreSQL. Decompressed at each call.
    pub fn pglite_wasm(&self) -> Vec<u8> {
        self.shared.decompress(PGLITE_WASM)
    }

    /// The hash of [`Self::pglite_wasm`], known without decompressing it.
    pub fn pglite_wasm_sha256(&self) -> Sha256 {
        self.shared.sha256(PGLITE_WASM)
    }

    /// The module `initdb.wasm`. Decompressed at each call.
    pub fn initdb_wasm(&self) -> Vec<u8> {
        self.shared.decompress(INITDB_WASM)
    }

    /// The hash of [`Self::initdb_wasm`], known without decompressing it.
    pub fn initdb_wasm_sha256(&self) -> Sha256 {
        self.shared.sha256(INITDB_WASM)
    }

    /// What is at a path, if anything.
    pub fn node(&self, path: &str) -> Option<Node> {
        self.shared.find(path).map(|at| self.shared.node(at))
    }

    /// The names in a directory, sorted by their bytes; `None` if it is none.
    pub fn list(&self, directory: &str) -> Option<impl Iterator<Item = (&str, Node)>> {
        let Node::Directory { .. } = self.node(directory)? else {
            return None;
        };
        let prefix = match without_slash(directory) {
            "/" => "/".to_owned(),
            directory => format!("{directory}/"),
        };
        let entries = &self.shared.index.entries;
        let first = entries.partition_point(|entry| *entry.path <= *prefix);
        let below = (first..entries.len()).map_while(move |at| {
            let name = entries[at].path.strip_prefix(&*prefix)?;
            Some((name, at))
        });
        let children = below.filter(|(name, _)| !name.contains('/'));
        Some(children.map(|(name, at)| (name, self.shared.node(at))))
    }

    /// The contents of the file at a path; `None` if there is no file.
    pub fn contents(&self, path: &str) -> Option<Bytes> {
        self.read(self.node(path)?.id())
    }

    /// The contents of a file; `None` if it is a directory.
    ///
    /// Libraries are decompressed at each call: hold on to the result while the file is open.
    pub fn read(&self, id: NodeId) -> Option<Bytes> {
        let Kind::File {
            section,
            start,
            len,
            ..
        } = self.shared.index.entries[index(id.0)].kind
        else {
            return None;
        };
        let (start, len) = (index(start), index(len));
        Some(
            self.shared
                .section(index(section))
                .slice(start..start + len),
        )
    }

    /// The hash of the library (`.so`) at a path, known without decompressing it; `None` if there
    /// is none.
    pub fn library_sha256(&self, path: &str) -> Option<Sha256> {
        let Kind::File { section, .. } = self.shared.index.entries[self.shared.find(path)?].kind
        else {
            return None;
        };
        let alone = !self.shared.index.sections[index(section)].kept;
        alone.then(|| self.shared.sha256(index(section)))
    }

    /// Every extension, sorted by name. Reads the control files, 0.1 ms.
    pub fn extensions(&self) -> Vec<Extension> {
        let files = self.list(EXTENSION_DIRECTORY).into_iter().flatten();
        files
            .filter_map(|(name, node)| self.extension(name, node))
            .collect()
    }

    fn extension(&self, file_name: &str, node: Node) -> Option<Extension> {
        let name = file_name.strip_suffix(".control")?;
        // "NAME--VERSION.control" only adds to "NAME.control".
        if name.contains("--") {
            return None;
        }
        let contents = self.read(node.id())?;
        let control = String::from_utf8_lossy(&contents);
        Some(Extension {
            name: name.to_owned(),
            default_version: control_value(&control, "default_version")?,
            comment: control_value(&control, "comment").unwrap_or_default(),
        })
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distribution")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn find(&self, path: &str) -> Option<usize> {
        let path = without_slash(path);
        self.index
            .entries
            .binary_search_by(|entry| (*entry.path).cmp(path))
            .ok()
    }

    fn node(&self, at: usize) -> Node {
        let id = NodeId(u32::try_from(at).expect("BUG: entries are counted in 32 bits"));
        match self.index.entries[at].kind {
            Kind::Directory => Node::Directory { id },
            Kind::File {
                len, executable, ..
            } => Node::File {
                id,
                len: len.into(),
                executable,
            },
        }
    }

    fn sha256(&self, section: usize) -> Sha256 {
        Sha256(self.index.sections[section].sha256)
    }

    fn section(&self, section: usize) -> Bytes {
        if !self.index.sections[section].kept {
            return self.decompress(section).into();
        }
        self.sections[section]
            .1
            .get_or_init(|| self.decompress(section).into())
            .clone()
    }

    fn decompress(&self, section: usize) -> Vec<u8> {
        let len = index(self.index.sections[section].len);
        // The frame's own checksum finds a program file that was damaged on disk.
        let contents = zstd::bulk::decompress(self.sections[section].0, len)
            .expect("BUG: the embedded archive is whole");
        assert_eq!(
            contents.len(),
            len,
            "BUG: the index states the length of section {section}"
        );
        contents
    }
}

impl Node {
    /// Its number in the tree.
    pub fn id(self) -> NodeId {
        match self {
            Self::Directory { id } | Self::File { id, .. } => id,
        }
    }

    /// Its permission bits.
    pub fn mode(self) -> u32 {
        match self {
            Self::Directory { .. }
            | Self::File {
                executable: true, ..
            } => 0o755,
            Self::File { .. } => 0o644,
        }
    }
}

impl NodeId {
    /// As a plain number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Sha256 {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// The value of `key = 'value'` in a control file.
fn control_value(control: &str, key: &str) -> Option<String> {
    let value = control.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then_some(value.trim())
    })?;
    let quoted = value.strip_prefix('\'').and_then(|rest| {
        let end = rest.replace("''", "\0\0").find('\'')?;
        Some(rest[..end].replace("''", "'"))
    });
    quoted.or_else(|| value.split_whitespace().next().map(str::to_owned))
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/')
        .filter(|path| !path.is_empty())
        .unwrap_or(path)
}

fn index(value: u32) -> usize {
    usize::try_from(value).expect("BUG: the engine runs on machines of at least 32 bits")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HASHES: &str = include_str!("../artefacts/files.sha256");

    fn names(distribution: &Distribution, directory: &str) -> Vec<String> {
        let children = distribution.list(directory).expect("a directory");
        children.map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn modules_are_those_of_the_list() {
        let distribution = Distribution::open();
        for (name, sha256, wasm) in [
            (
                "pglite",
                distribution.pglite_wasm_sha256(),
                distribution.pglite_wasm(),
            ),
            (
                "initdb",
                distribution.initdb_wasm_sha256(),
                distribution.initdb_wasm(),
            ),
        ] {
            assert!(HASHES.contains(&format!("{sha256}  @electric-sql/pglite/dist/{name}.wasm")));
            assert!(wasm.starts_with(b"\0asm"));
        }
        assert_ne!(distribution.id(), distribution.pglite_wasm_sha256());
    }

    #[test]
    fn every_archive_contributed() {
        let distribution = Distribution::open();
        let extensions = distribution.extensions();
        let known: BTreeSet<&str> = extensions.iter().map(|e| e.name.as_str()).collect();
        let archives: Vec<&str> = HASHES
            .lines()
            .filter_map(|line| {
                line.strip_suffix(".tar.gz")?
                    .rsplit_once('/')
                    .map(|(_, name)| name)
            })
            .collect();
        assert_eq!(archives.len(), 44);

        // "spi" is four extensions; three archives are a library to be loaded and nothing else.
        let unnamed: Vec<&str> = archives
            .into_iter()
            .filter(|archive| !known.contains(archive))
            .collect();
        assert_eq!(
            unnamed,
            ["auto_explain", "passwordcheck", "pg_overexplain", "spi"]
        );
        for library in ["auto_explain", "passwordcheck", "pg_overexplain", "refint"] {
            let path = format!("/pglite/lib/postgresql/{library}.so");
            assert!(distribution.library_sha256(&path).is_some(), "{library}");
        }
        // 40 by archive, spi's four, plpgsql.
        assert_eq!(known.len(), 45);
        assert!(known.contains("plpgsql") && known.contains("moddatetime"));

        let vector = extensions
            .iter()
            .find(|e| e.name == "vector")
            .expect("vector");
        assert_eq!(vector.default_version, "0.8.7");
        assert_eq!(
            vector.comment,
            "vector data type and ivfflat and hnsw access methods"
        );
    }

    #[test]
    fn postgres_finds_its_files() {
        let distribution = Distribution::open();
        let sample = "/pglite/share/postgresql/postgresql.conf.sample";
        let contents = distribution.contents(sample).expect("the sample");
        assert!(contents.starts_with(b"# ---"));
        let Some(Node::File {
            id,
            len,
            executable: false,
        }) = distribution.node(sample)
        else {
            panic!("a plain file");
        };
        assert_eq!(len, contents.len() as u64);
        // Kept: a second reader gets the same memory.
        assert_eq!(
            distribution.clone().read(id).expect("a file").as_ptr(),
            contents.as_ptr()
        );

        let plpgsql = "/pglite/lib/postgresql/plpgsql.so";
        assert!(
            distribution
                .contents(plpgsql)
                .expect("plpgsql")
                .starts_with(b"\0asm")
        );
        assert!(distribution.library_sha256(plpgsql).is_some());
        assert_eq!(distribution.library_sha256(sample), None);
        assert!(
            distribution
                .contents("/pglite/share/postgresql/timezone/Europe/Vienna")
                .is_some()
        );

        assert_eq!(
            distribution.node("/pglite/bin/postgres").map(Node::mode),
            Some(0o755)
        );
        assert_eq!(distribution.node(plpgsql).map(Node::mode), Some(0o644));
        assert!(POSTGRES_VERSION.starts_with("18.") && !PGLITE_VERSION.is_empty());
    }

    #[test]
    fn directories_list_their_own_children() {
        let distribution = Distribution::open();
        assert_eq!(names(&distribution, "/"), ["home", "pglite"]);
        assert_eq!(names(&distribution, "/home"), ["postgres"]);
        assert_eq!(names(&distribution, "/home/postgres/"), [".pgpass"]);
        assert_eq!(names(&distribution, "/pglite/share"), ["doc", "postgresql"]);
        assert!(names(&distribution, "/pglite/share/postgresql/timezone").contains(&"UTC".into()));
        assert!(distribution.list("/pglite/bin/postgres").is_none());
        assert!(distribution.list("/pglit").is_none());
        assert_eq!(distribution.node(""), None);
        assert_eq!(distribution.contents("/pglite"), None);
        assert_eq!(distribution.node("/").map(|node| node.id().get()), Some(0));

        // Walking finds every entry once.
        let mut found = 1;
        let mut left = vec!["/".to_owned()];
        while let Some(directory) = left.pop() {
            for (name, node) in distribution.list(&directory).expect("a directory") {
                found += 1;
                if let Node::Directory { .. } = node {
                    left.push(format!("{}/{name}", directory.trim_end_matches('/')));
                }
            }
        }
        assert_eq!(found, distribution.shared.index.entries.len());
    }

    #[test]
    fn control_files_are_read_as_postgres_does() {
        let control = "# default_version = '0'\ncomment = 'it''s = fine' # or not\n\
                       default_version='1.2'\nrelocatable = true # yes\n";
        let value = |key| control_value(control, key);
        assert_eq!(value("default_version").as_deref(), Some("1.2"));
        assert_eq!(value("comment").as_deref(), Some("it's = fine"));
        assert_eq!(value("relocatable").as_deref(), Some("true"));
        assert_eq!(value("schema"), None);
    }
}
