//! How a backend ends in good order.

use wasmtime::{AsContextMut, TypedFunc};

use super::exit::be_the_server;
use super::instance::{call, enter};
use super::{Backend, ended};
use crate::error::BackendError;

impl Backend {
    /// Ends a process that joined others, in good order: nothing of it stays in the shared memory.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if it ended in another way.
    pub async fn leave(mut self) -> Result<(), BackendError> {
        let guard = self.begin().await?;
        match self.terminate().await {
            // Somebody may have asked it to end before it was told to.
            Ok(()) | Err(BackendError::Exited(_)) => {}
            Err(error) => return Err(error),
        }
        self.has_ended(&BackendError::Exited(0));
        guard.end();
        Ok(())
    }

    /// Ends Postgres as a clean shutdown does, with a shutdown checkpoint, so that the next boot
    /// has nothing to recover.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if it ended in another way; the volume is as after a crash then, which
    /// the next boot recovers from.
    pub async fn shut_down(mut self) -> Result<(), BackendError> {
        be_the_server(&mut self.store.as_context_mut())?;
        let _call = self.store.data().engine.begin_call();
        self.terminate().await
    }

    /// Says goodbye, and runs what was to be done at the end.
    async fn terminate(&mut self) -> Result<(), BackendError> {
        const TERMINATE: &[u8] = b"X\0\0\0\x04";
        call(&mut self.store, "pgl_setPGliteActive", 0)
            .await
            .map_err(ended)?;
        self.input().extend_from_slice(TERMINATE);
        enter(&mut self.store);
        let left = self
            .calls
            .main_loop_once
            .call_async(&mut self.store, ())
            .await;
        clean(left.err())?;
        let run: TypedFunc<(), ()> = self.export("pgl_run_atexit_funcs")?;
        enter(&mut self.store);
        let left = run.call_async(&mut self.store, ()).await;
        clean(left.err())
    }
}

/// Leaving with status zero is how a shutdown ends.
fn clean(error: Option<wasmtime::Error>) -> Result<(), BackendError> {
    match error.map(ended) {
        None | Some(BackendError::Exited(0)) => Ok(()),
        Some(error) => Err(error),
    }
}
