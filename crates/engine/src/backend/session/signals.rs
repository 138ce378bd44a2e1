//! Signals of other processes.

use super::calls::Protected;
use crate::backend::{Backend, ended};
use crate::error::BackendError;
use crate::landmarks::sessions as at;

impl Backend {
    /// Whether another process has sent this one a signal, and it does nothing.
    pub fn is_signalled(&self) -> bool {
        self.interrupt.has_signals()
    }

    /// Takes the signals of other processes while the client has sent nothing: notifications of the channels
    /// that the session listens to are in the output then, if it is between two transactions.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended: a signal may ask for that.
    pub async fn take_signals(&mut self) -> Result<(), BackendError> {
        let guard = self.begin().await?;
        // Who does nothing is not cancelled, nor is one that has waited for its turn to hear of it.
        self.clear_cancel();
        let taken = self.protected::<(), ()>("ProcessInterrupts", ()).await;
        let taken = taken.inspect_err(|error| self.has_ended(error))?;
        if let Protected::Done(()) = taken {
            let told = self.protected::<_, ()>(at::PROCESS_NOTIFY, 1u32).await?;
            if let Protected::Refused(error) = told {
                tracing::warn!(error = %String::from_utf8_lossy(&error), "a notification is lost");
            }
        }
        let flush = self.calls.flush.clone();
        flush.call_async(&mut self.store, ()).await.map_err(ended)?;
        self.end(guard);
        Ok(())
    }
}
