//! `pg_query` is PostgreSQL's own parser, in C, and has the declarations of its C functions made by `bindgen` at each
//! build, which needs `libclang`: more than the C compiler that this project asks for. This crate has the part of
//! bindgen's interface that `pg_query`'s build script calls, and writes declarations that are written down here, for
//! the one version of `pg_query.h` that they were read off. Another version ends the build with an error.

use std::path::Path;
use std::{fs, io};

/// The version of PostgreSQL that the header must tell.
const VERSION: &str = "#define PG_VERSION_NUM 180006";

/// The declarations.
const DECLARATIONS: &str = include_str!("declarations.rs.in");

/// As bindgen's: takes one header.
#[derive(Debug, Default)]
pub struct Builder {
    header: String,
}

/// As bindgen's.
#[derive(Debug)]
pub struct Bindings {
    declarations: String,
}

impl Builder {
    /// The header that is to be read.
    #[must_use]
    pub fn header(mut self, path: impl Into<String>) -> Self {
        self.header = path.into();
        self
    }

    /// Looks whether it is the header that the declarations are of.
    ///
    /// # Errors
    ///
    /// If it is not, or a function in it is not declared here as often as there.
    pub fn generate(self) -> Result<Bindings, String> {
        let header = fs::read_to_string(&self.header)
            .map_err(|error| format!("{}: {error}", self.header))?;
        if !header.lines().any(|line| line == VERSION) {
            return Err(format!(
                "{} is of another version than the declarations in stand-ins/bindgen ({VERSION}): \
                 write them anew, or build with bindgen itself",
                self.header
            ));
        }
        for function in functions() {
            let declared = header.lines().filter(|line| line.ends_with(';'));
            if !declared.clone().any(|line| line.contains(&format!("{function}("))) {
                return Err(format!("{} has no {function}", self.header));
            }
        }
        Ok(Bindings {
            declarations: format!("{DECLARATIONS}\npub const PG_VERSION_NUM: u32 = 180006;\n"),
        })
    }
}

impl Bindings {
    /// Writes them.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write_to_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        fs::write(path, &self.declarations)
    }
}

/// The functions that are declared here.
fn functions() -> impl Iterator<Item = &'static str> {
    DECLARATIONS.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("pub fn ")?;
        rest.split('(').next()
    })
}
