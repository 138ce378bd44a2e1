//! What a deployment may be: each limit with the name of its setting.

/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// The shape that a deployment may have. The defaults are those of the W7S platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeployLimits {
    /// Bytes of an archive as it is sent.
    pub archive_bytes_max: u64,
    /// Bytes of all its files, unpacked.
    pub expanded_bytes_max: u64,
    /// Bytes of one file, unpacked.
    pub file_bytes_max: u64,
    /// Files of an archive, served or not, folders included.
    pub entries_max: u64,
    /// Files that are served.
    pub static_files_max: u64,
    /// Modules of a backend.
    pub modules_max: u64,
}

impl Default for DeployLimits {
    fn default() -> Self {
        Self {
            archive_bytes_max: 25 * MIB,
            expanded_bytes_max: 100 * MIB,
            file_bytes_max: 10 * MIB,
            entries_max: 10_000,
            static_files_max: 1_000,
            modules_max: 1_000,
        }
    }
}

/// A limit that has been met: its setting's name and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    name: &'static str,
    max: u64,
}

impl Limit {
    pub(crate) fn new(name: &'static str, max: u64) -> Self {
        Self { name, max }
    }

    pub(crate) fn exceeded_by(self, value: u64) -> bool {
        value > self.max
    }

    /// A sentence that says what is too much, by which limit, and what to do.
    pub(crate) fn sentence(self, what: &str) -> String {
        let Self { name, max } = self;
        format!("{what}: the limit {name} is {max}; make it smaller, or raise workers.{name}")
    }
}

impl DeployLimits {
    /// Whether an archive of so many bytes is small enough.
    ///
    /// # Errors
    /// 413 with the limit's name.
    pub fn check_archive(self, bytes: u64) -> Result<(), crate::Refusal> {
        match self.archive_bytes().exceeded_by(bytes) {
            true => {
                let what = format!("The archive has {bytes} bytes or more");
                let refusal = too_large(vec![self.archive_bytes().sentence(&what)]);
                Err(crate::Refusal {
                    status: 413,
                    ..refusal
                })
            }
            false => Ok(()),
        }
    }

    pub(crate) fn archive_bytes(self) -> Limit {
        Limit::new("archive_bytes_max", self.archive_bytes_max)
    }

    pub(crate) fn expanded_bytes(self) -> Limit {
        Limit::new("expanded_bytes_max", self.expanded_bytes_max)
    }

    pub(crate) fn file_bytes(self) -> Limit {
        Limit::new("file_bytes_max", self.file_bytes_max)
    }

    pub(crate) fn entries(self) -> Limit {
        Limit::new("entries_max", self.entries_max)
    }

    pub(crate) fn static_files(self) -> Limit {
        Limit::new("static_files_max", self.static_files_max)
    }

    pub(crate) fn modules(self) -> Limit {
        Limit::new("modules_max", self.modules_max)
    }
}

/// The refusal of a deployment that is too large, with each sentence as a detail.
pub(crate) fn too_large(sentences: Vec<String>) -> crate::Refusal {
    let first = sentences.first().cloned().unwrap_or_default();
    crate::Refusal::bad(format!("Deploy exceeds the limits of its shape. {first}"))
        .detailed(sentences)
}
