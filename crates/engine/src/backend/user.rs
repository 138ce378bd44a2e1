//! Whose rights a backend's statements have, changed from outside.

use wasmtime::{TypedFunc, Val};

use super::{Backend, ended, enter};
use crate::error::BackendError;
use crate::host::{read_u32, slice_mut};

/// Object id of the superuser that a data directory begins with.
const SUPERUSER: u32 = 10;

/// The user whose rights a backend had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    id: u32,
    context: i32,
}

impl Backend {
    /// Gives the statements that follow the superuser's rights, whatever role the session has; the
    /// user to put back. A transaction that fails, or a part of one, puts back by itself whoever it began with.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn become_superuser(&mut self) -> Result<User, BackendError> {
        let get: TypedFunc<(u32, u32), ()> = self.export("GetUserIdAndSecContext")?;
        let guard = self.begin().await?;
        // Eight bytes of the idle stack.
        let stack = self.calls.stack_pointer.get(&mut self.store);
        let place = (stack.i32().unwrap_or_default() as u32).wrapping_sub(16);
        let global = self.calls.stack_pointer;
        let pointer = Val::I32(place as i32);
        global.set(&mut self.store, pointer).map_err(ended)?;
        let memory = self.store.data().guest().memory;
        if let Ok(target) = slice_mut(memory.data_mut(&mut self.store), place, 8) {
            target.fill(0);
        }
        enter(&mut self.store);
        get.call_async(&mut self.store, (place, place.wrapping_add(4)))
            .await
            .map_err(ended)?;
        global.set(&mut self.store, stack).map_err(ended)?;
        self.end(guard);
        let data = memory.data(&self.store);
        let user = User {
            id: read_u32(data, place),
            context: read_u32(data, place.wrapping_add(4)) as i32,
        };
        self.set_user(User {
            id: SUPERUSER,
            context: 0,
        })
        .await?;
        Ok(user)
    }

    /// Puts back the user that [`become_superuser`](Self::become_superuser) gave.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn set_user(&mut self, user: User) -> Result<(), BackendError> {
        let set: TypedFunc<(u32, i32), ()> = self.export("SetUserIdAndSecContext")?;
        let guard = self.begin().await?;
        enter(&mut self.store);
        set.call_async(&mut self.store, (user.id, user.context))
            .await
            .map_err(ended)?;
        self.end(guard);
        Ok(())
    }
}
