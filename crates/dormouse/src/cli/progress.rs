//! Showing work that takes long.

use std::io::IsTerminal as _;
use std::sync::Arc;

use database::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

/// A bar on a terminal; two lines in the log elsewhere.
pub(crate) fn progress() -> Arc<dyn Progress> {
    if std::io::stderr().is_terminal() {
        Arc::new(Bar::default())
    } else {
        Arc::new(Logged::default())
    }
}

/// A bar that is gone when the work is done.
#[derive(Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Progress for Bar {
    fn begin(&self, what: &str, steps: u64) {
        let (bar, template) = if steps == 0 {
            (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}")
        } else {
            (
                ProgressBar::new(steps),
                "{msg} [{bar:30}] {percent}% {elapsed}",
            )
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        *self.0.lock() = Some(bar);
    }

    fn advance(&self, done: u64) {
        if let Some(bar) = &*self.0.lock() {
            bar.set_position(done);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.0.lock().take() {
            bar.finish_and_clear();
        }
    }
}

/// For a log, where a bar would be noise.
#[derive(Default)]
struct Logged(Mutex<String>);

impl Progress for Logged {
    fn begin(&self, what: &str, _steps: u64) {
        tracing::info!("{what}: begins");
        what.clone_into(&mut self.0.lock());
    }

    fn advance(&self, _done: u64) {}

    fn end(&self) {
        tracing::info!("{}: done", self.0.lock());
    }
}
