//! `dlopen` and `dlsym`: Emscripten's dynamic linking, in the host.
//!
//! A library shares memory, table, stack pointer and the longjmp tag with the main module. Its
//! data is placed with `malloc`, its functions at the table's end. Symbols are looked up in the
//! main module first, then in the libraries in the order they were opened, then in itself.
//! A load that fails leaves the guest as it was, but for some table slots and heap.

mod links;
mod saved;

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::{Caller, Func, Global, Instance, Linker, Ref, Val};

pub(crate) use links::KnownLinks;
use links::{Entry, Links};
pub(crate) use saved::{SavedLibraries, SavedLibrary, restore, save};

use super::{Exit, Host, slice_mut, split, string};
use crate::files::Place;
use crate::module::LibraryModule;
use crate::rewrite::START;

/// Offsets in the guest's `struct dso`.
const DSO_NAME: u32 = 36;

/// The libraries that a backend has opened.
#[derive(Default)]
pub(crate) struct Libraries {
    loaded: Vec<Loaded>,
    /// Library of each handle that the guest has.
    handles: HashMap<u32, usize>,
    /// Table slots made for functions of the main module that had none.
    main_slots: HashMap<String, u32>,
}

struct Loaded {
    path: String,
    library: Arc<LibraryModule>,
    links: Arc<Links>,
    instance: Instance,
    memory_base: u32,
    table_base: u32,
    /// Table slots made for its exported functions.
    slots: HashMap<String, u32>,
    /// Its `GOT` entries.
    got: Vec<Global>,
}

impl Loaded {
    /// The absolute address of exported data.
    fn address(&self, name: &str) -> Option<u32> {
        let offset = self.library.description.symbols.get(name)?;
        Some(self.memory_base.wrapping_add(*offset))
    }
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        "env",
        "_dlopen_js",
        |mut caller: Caller<'_, Host>, (handle,): (u32,)| {
            Box::new(async move {
                let name = string(split(&mut caller).0, handle.wrapping_add(DSO_NAME));
                let name = name.unwrap_or_default();
                match open(&mut caller, &name, handle).await {
                    Ok(()) => Ok(handle),
                    Err(error) if error.is::<Exit>() => Err(error),
                    Err(error) => {
                        set_error(&mut caller, &format!("could not load {name}: {error:#}"))
                            .await?;
                        Ok(0)
                    }
                }
            })
        },
    )?;
    linker.func_wrap_async(
        "env",
        "_dlsym_js",
        |mut caller: Caller<'_, Host>, (handle, symbol, _index): (u32, u32, u32)| {
            Box::new(async move {
                let symbol = string(split(&mut caller).0, symbol).unwrap_or_default();
                match find(&mut caller, handle, &symbol)? {
                    Some(address) => Ok::<u32, wasmtime::Error>(address),
                    None => {
                        set_error(&mut caller, &format!("no symbol {symbol} in the library"))
                            .await?;
                        Ok(0)
                    }
                }
            })
        },
    )?;
    Ok(())
}

/// What `dlerror` will say.
async fn set_error(caller: &mut Caller<'_, Host>, message: &str) -> wasmtime::Result<()> {
    let instance = caller.data().guest().instance;
    let malloc = instance.get_typed_func::<u32, u32>(&mut *caller, "malloc")?;
    let free = instance.get_typed_func::<u32, ()>(&mut *caller, "free")?;
    let report = instance.get_typed_func::<(u32, u32), ()>(&mut *caller, "__dl_seterr")?;
    // The message is a format string.
    let message = message.replace('%', "%%").replace('\0', "");
    let at = malloc
        .call_async(&mut *caller, message.len() as u32 + 1)
        .await?;
    if at == 0 {
        return Ok(());
    }
    if let Ok(target) = slice_mut(split(caller).0, at, message.len() as u32 + 1) {
        target[..message.len()].copy_from_slice(message.as_bytes());
        target[message.len()] = 0;
    }
    report.call_async(&mut *caller, (at, 0)).await?;
    free.call_async(&mut *caller, at).await
}

async fn open(caller: &mut Caller<'_, Host>, name: &str, handle: u32) -> wasmtime::Result<()> {
    let host = caller.data();
    let place = host
        .files
        .place(-100, name)
        .map_err(|_| wasmtime::format_err!("bad path"))?;
    let Place::Distribution(path) = place else {
        wasmtime::bail!("libraries are loaded from the distribution only");
    };
    let known = host
        .libraries
        .loaded
        .iter()
        .position(|library| library.path == path);
    if let Some(index) = known {
        caller.data_mut().libraries.handles.insert(handle, index);
        return Ok(());
    }
    let engine = Arc::clone(&host.engine);
    let library = engine.library(&path).await?;
    let stack_top = std::mem::take(&mut caller.data_mut().stack_top);
    let loaded = load(caller, &path, &library).await;
    caller.data_mut().stack_top = stack_top;
    let libraries = &mut caller.data_mut().libraries;
    libraries.loaded.push(loaded?);
    libraries.handles.insert(handle, libraries.loaded.len() - 1);
    Ok(())
}

async fn load(
    caller: &mut Caller<'_, Host>,
    path: &str,
    library: &Arc<LibraryModule>,
) -> wasmtime::Result<Loaded> {
    let guest = caller.data().guest();
    let dylink = &library.description.dylink;
    let memory_base = allocate(caller, dylink.memory_bytes, dylink.memory_align_log2).await?;
    for segment in &library.description.segments {
        let at = memory_base + segment.offset;
        let target = slice_mut(split(caller).0, at, segment.bytes.len() as u32)
            .map_err(|_| wasmtime::format_err!("a data segment lies outside the memory"))?;
        target.copy_from_slice(&segment.bytes);
    }
    let table_base =
        guest
            .table
            .grow(&mut *caller, u64::from(dylink.table_slots), Ref::Func(None))? as u32;
    let earlier = std::mem::take(&mut caller.data_mut().libraries.loaded);
    let links = links::links(caller, library, &earlier);
    caller.data_mut().libraries.loaded = earlier;
    let links = links?;
    let bases = (memory_base, table_base);
    let (instance, got) = links.instantiate(caller, library, bases, &[]).await?;
    let mut loaded = Loaded {
        path: path.to_owned(),
        library: Arc::clone(library),
        links,
        instance,
        memory_base,
        table_base,
        slots: HashMap::new(),
        got,
    };
    run(caller, loaded.instance, START).await?;
    fill_got(caller, &mut loaded)?;
    run(caller, loaded.instance, "__wasm_apply_data_relocs").await?;
    run(caller, loaded.instance, "__wasm_call_ctors").await?;
    Ok(loaded)
}

async fn allocate(
    caller: &mut Caller<'_, Host>,
    bytes: u32,
    align_log2: u32,
) -> wasmtime::Result<u32> {
    let instance = caller.data().guest().instance;
    let align = 1u32 << align_log2.min(16);
    let malloc = instance.get_typed_func::<u32, u32>(&mut *caller, "malloc")?;
    let at = malloc.call_async(&mut *caller, bytes + align).await?;
    wasmtime::ensure!(at != 0, "out of memory");
    let base = at.next_multiple_of(align);
    if let Ok(target) = slice_mut(split(caller).0, base, bytes) {
        target.fill(0);
    }
    Ok(base)
}

async fn run(
    caller: &mut Caller<'_, Host>,
    instance: Instance,
    name: &str,
) -> wasmtime::Result<()> {
    match instance.get_typed_func::<(), ()>(&mut *caller, name) {
        Ok(function) => function.call_async(&mut *caller, ()).await,
        // Optional, each of them.
        Err(_) => Ok(()),
    }
}

/// Gives every `GOT` entry its value, now that the library's own exports are known.
fn fill_got(caller: &mut Caller<'_, Host>, loaded: &mut Loaded) -> wasmtime::Result<()> {
    let links = Arc::clone(&loaded.links);
    for (index, (entry, name)) in links.got.iter().enumerate() {
        let value = match entry {
            Entry::Address => address(caller, loaded, name),
            Entry::Function => slot(caller, loaded, name)?,
        };
        if value.is_none() {
            tracing::debug!(library = loaded.path, %name, "a weak symbol stays undefined");
        }
        let value = Val::I32(value.unwrap_or_default() as i32);
        loaded.got[index].set(&mut *caller, value)?;
    }
    Ok(())
}

fn address(caller: &Caller<'_, Host>, loaded: &Loaded, name: &str) -> Option<u32> {
    let host = caller.data();
    let main = host.module.description.symbols.get(name).copied();
    main.or_else(|| {
        let mut others = host.libraries.loaded.iter().chain([loaded]);
        others.find_map(|library| library.address(name))
    })
}

fn slot(
    caller: &mut Caller<'_, Host>,
    loaded: &mut Loaded,
    name: &str,
) -> wasmtime::Result<Option<u32>> {
    let guest = caller.data().guest();
    let host = caller.data();
    let known = host.module.description.function_slots.get(name);
    if let Some(slot) = known.or_else(|| host.libraries.main_slots.get(name)) {
        return Ok(Some(*slot));
    }
    if let Some(function) = guest.instance.get_func(&mut *caller, name) {
        let slot = append(caller, function)?;
        caller
            .data_mut()
            .libraries
            .main_slots
            .insert(name.to_owned(), slot);
        return Ok(Some(slot));
    }
    for index in 0..caller.data().libraries.loaded.len() {
        if let Some(slot) = library_slot(caller, index, name)? {
            return Ok(Some(slot));
        }
    }
    if let Some(slot) = loaded.slots.get(name) {
        return Ok(Some(*slot));
    }
    let Some(function) = loaded.instance.get_func(&mut *caller, name) else {
        return Ok(None);
    };
    let slot = append(caller, function)?;
    loaded.slots.insert(name.to_owned(), slot);
    Ok(Some(slot))
}

fn library_slot(
    caller: &mut Caller<'_, Host>,
    index: usize,
    name: &str,
) -> wasmtime::Result<Option<u32>> {
    let library = &caller.data().libraries.loaded[index];
    if let Some(slot) = library.slots.get(name) {
        return Ok(Some(*slot));
    }
    let instance = library.instance;
    let Some(function) = instance.get_func(&mut *caller, name) else {
        return Ok(None);
    };
    let slot = append(caller, function)?;
    caller.data_mut().libraries.loaded[index]
        .slots
        .insert(name.to_owned(), slot);
    Ok(Some(slot))
}

fn append(caller: &mut Caller<'_, Host>, function: Func) -> wasmtime::Result<u32> {
    let table = caller.data().guest().table;
    Ok(table.grow(&mut *caller, 1, Ref::Func(Some(function)))? as u32)
}

/// The table slot or address of a library's symbol.
fn find(caller: &mut Caller<'_, Host>, handle: u32, name: &str) -> wasmtime::Result<Option<u32>> {
    let Some(index) = caller.data().libraries.handles.get(&handle).copied() else {
        return Ok(None);
    };
    if let Some(slot) = library_slot(caller, index, name)? {
        return Ok(Some(slot));
    }
    Ok(caller.data().libraries.loaded[index].address(name))
}
