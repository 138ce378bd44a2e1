//! The server that the suites talk to, and databases of it.

use std::sync::atomic::{AtomicU32, Ordering};

/// Text that breaks whoever quotes, counts or encodes wrongly.
pub const ODD_TEXT: &str =
    "Siebenschläfer \u{1F42D} 中文 'single' \"double\" \\back $1 %s {a,b} \r\n\t end";

/// The address of a database that nobody has used before.
pub fn new_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let server = std::env::var("DORMOUSE_TEST_URL")
        .expect("DORMOUSE_TEST_URL is not set: `cargo xtask test clients` runs this");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{server}/r{}_{number}", std::process::id())
}
