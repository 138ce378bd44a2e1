//! What a process does when Postgres ends it: one among others takes itself out of the shared memory, the
//! last one shuts the server down.

use wasmtime::StoreContextMut;

use super::Backend;
use crate::error::BackendError;
use crate::host::{Host, read_u32, write_u32};
use crate::landmarks::exit;
use crate::processes::Process;

/// Places in each of the lists.
const LIST_ENTRIES_MAX: usize = 20;

/// The lists that `proc_exit` works off, by the names of their lengths' and their own addresses.
const LISTS: [(&str, &str); 3] = [
    (exit::AT_EXIT, exit::AT_EXIT_LIST),
    (exit::AT_SHARED_EXIT, exit::AT_SHARED_EXIT_LIST),
    (exit::BEFORE_SHARED_EXIT, exit::BEFORE_SHARED_EXIT_LIST),
];

/// A function's slot, and its argument.
type Entry = [u32; 2];

/// What only a whole server does at its end: list, place in it, and entry, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerExit(Vec<(usize, usize, Entry)>);

/// Takes out of the lists what only the end of the whole server is to do, and, if the process `is_new`
/// beside others, what the process before it had in shared memory: it enters its own when it begins.
pub(super) fn be_one_of_many(
    store: &mut StoreContextMut<'_, Host>,
    is_new: bool,
) -> Result<ServerExit, BackendError> {
    let slots = |names: &[&str]| -> Result<Vec<u32>, BackendError> {
        names.iter().map(|name| symbol(store, name)).collect()
    };
    let of_the_server = slots(&exit::SERVER_SHUTDOWN)?;
    let mut own = slots(&exit::OWN)?;
    own.push(symbol(store, exit::REMOVE_PROC)?);
    let mut removed = ServerExit::default();
    for (list, (name, _)) in LISTS.into_iter().enumerate() {
        let mut kept = Vec::new();
        for (place, entry) in exit_list(store, list)?.into_iter().enumerate() {
            let keep = match name {
                exit::BEFORE_SHARED_EXIT => !of_the_server.contains(&entry[0]),
                exit::AT_SHARED_EXIT => !is_new && own.contains(&entry[0]),
                _ => false,
            };
            match keep {
                true => kept.push(entry),
                false => removed.0.push((list, place, entry)),
            }
        }
        set_exit_list(store, list, &kept)?;
    }
    Ok(removed)
}

/// Makes a process whose others have left the one that shuts the server down, whichever it is.
///
/// # Errors
///
/// [`BackendError::Start`] if there are others.
pub(super) fn be_the_server(store: &mut StoreContextMut<'_, Host>) -> Result<(), BackendError> {
    let Some(process) = &mut store.data_mut().process else {
        return Ok(());
    };
    if !process.is_alone() {
        return Err(BackendError::Start(
            "it is not the only process of its database".to_owned(),
        ));
    }
    if !process.become_last() {
        return Ok(());
    }
    let server = process.server_exit().clone();
    for list in 0..LISTS.len() {
        let mut entries = exit_list(store, list)?;
        for (_, place, entry) in server.0.iter().filter(|(of, ..)| *of == list) {
            entries.insert((*place).min(entries.len()), *entry);
        }
        set_exit_list(store, list, &entries)?;
    }
    Ok(())
}

impl Backend {
    /// Whether Postgres has ended this process in good order, and others that share its memory can go on.
    pub fn has_left(&self) -> bool {
        let process = self.store.data().process.as_ref();
        process.is_some_and(Process::has_left)
    }
}

fn exit_list(store: &StoreContextMut<'_, Host>, list: usize) -> Result<Vec<Entry>, BackendError> {
    let (length, at) = (symbol(store, LISTS[list].0)?, symbol(store, LISTS[list].1)?);
    let memory = store.data().guest().memory.data(store);
    let entries = (0..read_u32(memory, length))
        .map(|entry| [0, 4].map(|word| read_u32(memory, at + 8 * entry + word)));
    Ok(entries.collect())
}

fn set_exit_list(
    store: &mut StoreContextMut<'_, Host>,
    list: usize,
    entries: &[Entry],
) -> Result<(), BackendError> {
    if entries.len() > LIST_ENTRIES_MAX {
        return Err(BackendError::Start(format!(
            "{} has more than {LIST_ENTRIES_MAX} entries",
            LISTS[list].1
        )));
    }
    let (length, at) = (symbol(store, LISTS[list].0)?, symbol(store, LISTS[list].1)?);
    let memory = store.data().guest().memory;
    let memory = memory.data_mut(store);
    for (place, entry) in (0u32..).zip(entries) {
        for (word, value) in (0u32..).zip(entry) {
            write_u32(memory, at + 8 * place + 4 * word, *value);
        }
    }
    write_u32(memory, length, entries.len() as u32);
    Ok(())
}

fn symbol(store: &StoreContextMut<'_, Host>, name: &str) -> Result<u32, BackendError> {
    store.data().module.symbol(name)
}
