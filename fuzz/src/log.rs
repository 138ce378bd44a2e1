//! A server's log, read as it grows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

/// What no line of the log may have.
const ALARMS: [&str; 4] = ["panicked at", "BUG:", "stack overflow", "PANIC:"];

/// A log, and how far it was read.
#[derive(Debug)]
pub struct Log {
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Log {
    /// From its beginning.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            reader: BufReader::new(File::open(path)?),
            line: Vec::new(),
        })
    }

    /// The new lines that no server should write.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn alarms(&mut self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        while self.reader.read_until(b'\n', &mut self.line)? > 0 {
            if !self.line.ends_with(b"\n") {
                // The rest is being written.
                break;
            }
            let line = String::from_utf8_lossy(&self.line);
            if ALARMS.iter().any(|alarm| line.contains(alarm)) {
                found.push(line.trim_end().to_owned());
            }
            self.line.clear();
        }
        Ok(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn alarms_are_found_once_their_line_is_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::open(file.path()).unwrap();
        file.write_all(b"all is well\nthread 'x' panicked").unwrap();
        assert!(log.alarms().unwrap().is_empty());
        file.write_all(b" at y\nwell again\n").unwrap();
        assert_eq!(log.alarms().unwrap(), ["thread 'x' panicked at y"]);
        assert!(log.alarms().unwrap().is_empty());
    }
}
