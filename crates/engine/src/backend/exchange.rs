//! Messages in, answers out.

use wasmtime::TypedFunc;

use super::instance::enter;
use super::{Backend, STATUS_LONGJMP, ended};
use crate::error::BackendError;
use crate::host::Exit;

impl Backend {
    /// Begins a client's connection: takes a startup message, answers as a server would that
    /// trusts it.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended; it must be dropped then.
    pub async fn connect(&mut self, startup: &[u8]) -> Result<(), BackendError> {
        self.input().extend_from_slice(startup);
        let guard = self.begin().await?;
        let port: TypedFunc<(), i32> = self.export("pgl_getMyProcPort")?;
        let process: TypedFunc<(i32, i32, i32), i32> = self.export("ProcessStartupPacket")?;
        let send: TypedFunc<(), ()> = self.export("pgl_sendConnData")?;
        enter(&mut self.store);
        let port = port.call_async(&mut self.store, ()).await.map_err(ended)?;
        let status = process
            .call_async(&mut self.store, (port, 1, 1))
            .await
            .map_err(ended)?;
        if status != 0 {
            return Err(BackendError::Start(
                "it refused the startup packet".to_owned(),
            ));
        }
        send.call_async(&mut self.store, ()).await.map_err(ended)?;
        self.calls
            .flush
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        self.end(guard);
        Ok(())
    }

    /// Runs Postgres until it has used up [`input`](Self::input) and waits for the next message;
    /// its answer is in [`output`](Self::output).
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended: what it sent before is still in the output. It must
    /// be dropped then, as also if this future is dropped before it is ready.
    pub async fn exchange(&mut self) -> Result<(), BackendError> {
        let guard = self.begin().await?;
        while self.has_input().await? {
            if let Err(error) = self.step().await {
                self.has_ended(&error);
                return Err(error);
            }
        }
        self.end(guard);
        Ok(())
    }

    /// Postgres may have ended this process in good order, after a FATAL error.
    pub(super) fn has_ended(&mut self, error: &BackendError) {
        if matches!(error, BackendError::Exited(_))
            && let Some(process) = &mut self.store.data_mut().process
        {
            process.exited();
        }
    }

    async fn has_input(&mut self) -> Result<bool, BackendError> {
        if !self.store.data().client.input.is_empty() {
            return Ok(true);
        }
        let buffered = self
            .calls
            .buffered
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        Ok(buffered > 0)
    }

    /// One message.
    async fn step(&mut self) -> Result<(), BackendError> {
        let stack = self.calls.stack_pointer.get(&mut self.store);
        self.store.data_mut().client.begin();
        enter(&mut self.store);
        let outcome = self
            .calls
            .main_loop_once
            .call_async(&mut self.store, ())
            .await;
        self.store.data_mut().client.is_ending = true;
        if let Err(error) = outcome {
            match error.downcast_ref::<Exit>() {
                Some(Exit::Status(STATUS_LONGJMP)) => {
                    self.calls
                        .stack_pointer
                        .set(&mut self.store, stack)
                        .map_err(ended)?;
                    enter(&mut self.store);
                    self.calls
                        .main_longjmp
                        .call_async(&mut self.store, ())
                        .await
                        .map_err(ended)?;
                }
                _ => return Err(ended(error)),
            }
        }
        self.calls
            .send_ready
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        self.calls
            .flush
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)
    }

    /// Whether a transaction block is open.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn in_transaction(&mut self) -> Result<bool, BackendError> {
        let guard = self.begin().await?;
        let open = self
            .calls
            .in_transaction
            .call_async(&mut self.store, ())
            .await
            .map_err(ended)?;
        self.end(guard);
        Ok(open != 0)
    }
}
