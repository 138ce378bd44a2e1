//! Calls of Postgres' own functions.

use wasmtime::{TypedFunc, WasmParams, WasmResults};

use crate::backend::{Backend, STATUS_LONGJMP, ended, enter};
use crate::error::BackendError;
use crate::host::{Exit, slice_mut};

/// What came of a call that may report an error.
#[derive(Debug)]
pub(super) enum Protected<T> {
    Done(T),
    Refused(Vec<u8>),
}

impl Backend {
    /// Calls a function that may report an error, which is then handled as by Postgres' main loop: the
    /// transaction is rolled back.
    pub(super) async fn protected<P: WasmParams + Sync, R: WasmResults + Sync>(
        &mut self,
        name: &str,
        params: P,
    ) -> Result<Protected<R>, BackendError> {
        let function: TypedFunc<P, R> = self.export(name)?;
        let stack = self.calls.stack_pointer.get(&mut self.store);
        enter(&mut self.store);
        let error = match function.call_async(&mut self.store, params).await {
            Ok(result) => return Ok(Protected::Done(result)),
            Err(error) => error,
        };
        if !matches!(error.downcast_ref(), Some(Exit::Status(STATUS_LONGJMP))) {
            return Err(ended(error));
        }
        let pointer = self.calls.stack_pointer;
        pointer.set(&mut self.store, stack).map_err(ended)?;
        let before = self.store.data().client.output.len();
        let (longjmp, ready, flush) = (
            self.calls.main_longjmp.clone(),
            self.calls.send_ready.clone(),
            self.calls.flush.clone(),
        );
        for call in [longjmp, ready, flush] {
            enter(&mut self.store);
            call.call_async(&mut self.store, ()).await.map_err(ended)?;
        }
        let said = self.store.data_mut().client.output.split_off(before);
        Ok(Protected::Refused(said.to_vec()))
    }

    pub(super) async fn function<P: WasmParams + Sync, R: WasmResults + Sync>(
        &mut self,
        name: &str,
        params: P,
    ) -> Result<R, BackendError> {
        let function: TypedFunc<P, R> = self.export(name)?;
        enter(&mut self.store);
        function
            .call_async(&mut self.store, params)
            .await
            .map_err(ended)
    }

    /// A C string in memory of the guest, to be [freed](Self::free).
    pub(super) async fn c_string(&mut self, text: &str) -> Result<u32, BackendError> {
        // What follows a NUL would be lost: a name or value with one is none.
        let text = text.split('\0').next().unwrap_or_default();
        let bytes = text.len() as u32 + 1;
        let place = self.function::<u32, u32>("malloc", bytes).await?;
        let memory = self.store.data().guest().memory;
        let target = slice_mut(memory.data_mut(&mut self.store), place, bytes);
        match target {
            Ok(target) if place != 0 => {
                target[..text.len()].copy_from_slice(text.as_bytes());
                target[text.len()] = 0;
                Ok(place)
            }
            _ => Err(BackendError::Crashed("out of memory".to_owned())),
        }
    }

    pub(super) async fn free(&mut self, place: u32) -> Result<(), BackendError> {
        self.function::<u32, ()>("free", place).await
    }
}
