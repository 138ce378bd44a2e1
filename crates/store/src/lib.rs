//! Bytes outside the process: sealed files, the data directory's lock. Knows no pages.
