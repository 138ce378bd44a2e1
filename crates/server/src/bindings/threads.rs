//! The threads that pools run on. All clients and connections of a pool are on one of them: a message wakes nobody else.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads, each with clients and connections of its own.
pub(super) struct Threads(Vec<One>);

struct One {
    handle: Handle,
    /// Ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts so many, at least one.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1))
            .map(One::start)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The one of a binding, always the same.
    pub(super) fn of(&self, binding: &str) -> &Handle {
        // An id is of random digits.
        let digits = binding.get(binding.len().saturating_sub(8)..).unwrap_or("");
        let number = u32::from_str_radix(digits, 16).unwrap_or(0) as usize;
        &self.0[number % self.0.len()].handle
    }
}

impl One {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let name = format!("bindings-{number}");
        let thread = thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(async {
                // Who held the other end is gone either way.
                let _ = stopped.await;
            });
        })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("BUG: a thread of bindings panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_stays_where_it_is() {
        let threads = Threads::start(3).unwrap();
        let name = |binding: &str| {
            let (told, tell) = std::sync::mpsc::channel();
            threads.of(binding).spawn(async move {
                let _ = told.send(thread::current().name().map(str::to_owned));
            });
            tell.recv().unwrap().unwrap()
        };
        let ids: Vec<String> = (0..50_u128).map(|n| format!("{:032x}", n * 7919)).collect();
        let mut all: Vec<String> = ids.iter().map(|id| name(id)).collect();
        assert_eq!(all, ids.iter().map(|id| name(id)).collect::<Vec<_>>());
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 3);
    }
}
