//! `dlopen` and `dlsym`: Emscripten's dynamic linking, in the host.
//!
//! A library shares memory, table, stack pointer and the longjmp tag with the main module. Its
//! data is placed with `malloc`, its functions at the table's end. Symbols are looked up in the
//! main module first, then in the libraries in the order they were opened, then in itself.
//! A load that fails leaves the guest as it was, but for some table slots and heap.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::{
    Caller, Extern, ExternType, Func, FuncType, Global, GlobalType, Instance, Linker, Mutability,
    Ref, Store, Val, ValType,
};

use super::{Exit, Guest, Host, slice_mut, split, string};
use crate::files::Place;
use crate::module::LibraryModule;
use crate::rewrite::{LONGJMP_TAG, START};

/// Offsets in the guest's `struct dso`.
const DSO_NAME: u32 = 36;

/// Most table slots that an image may claim: ten times what all libraries together have.
const TABLE_SLOTS_MAX: u32 = 1 << 20;

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
    instance: Instance,
    memory_base: u32,
    table_base: u32,
    /// Absolute addresses of its exported data.
    symbols: HashMap<String, u32>,
    /// Table slots made for its exported functions.
    slots: HashMap<String, u32>,
    /// Its `GOT` entries: what each is for, and the global that holds it.
    got: Vec<(Entry, String, Global)>,
    mutable_globals: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Address,
    Function,
}

/// A library in an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SavedLibrary {
    pub(crate) path: String,
    pub(crate) handles: Vec<u32>,
    pub(crate) memory_base: u32,
    pub(crate) table_base: u32,
    pub(crate) slots: Vec<(String, u32)>,
    /// Values of its `GOT` entries, in import order.
    pub(crate) got: Vec<u32>,
    /// Values of its own mutable globals.
    pub(crate) globals: Vec<u32>,
}

/// The linker's state in an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SavedLibraries {
    pub(crate) table_slots: u32,
    pub(crate) main_slots: Vec<(String, u32)>,
    pub(crate) libraries: Vec<SavedLibrary>,
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
    library: &LibraryModule,
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
    let mut loaded =
        instantiate(caller, path, library, memory_base, table_base, |_, _| None).await?;
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

/// Instantiates a library. `saved` gives the values of `GOT` entries that are known already, by
/// their position; the others begin as zero.
async fn instantiate(
    store: &mut (impl wasmtime::AsContextMut<Data = Host> + Send),
    path: &str,
    library: &LibraryModule,
    memory_base: u32,
    table_base: u32,
    saved: impl Fn(usize, &str) -> Option<u32>,
) -> wasmtime::Result<Loaded> {
    let guest = store.as_context().data().guest();
    let mut imports = Vec::new();
    let mut got = Vec::new();
    for import in library.module.imports() {
        let name = import.name();
        let external = match (import.module(), import.ty()) {
            (kind @ ("GOT.mem" | "GOT.func"), ExternType::Global(ty)) => {
                let value = saved(got.len(), name).unwrap_or_default();
                let global = Global::new(&mut *store, ty, Val::I32(value as i32))?;
                let entry = if kind == "GOT.mem" {
                    Entry::Address
                } else {
                    Entry::Function
                };
                got.push((entry, name.to_owned(), global));
                global.into()
            }
            (_, ExternType::Memory(_)) => guest.memory.into(),
            (_, ExternType::Table(_)) => guest.table.into(),
            (_, ExternType::Global(_)) if name == "__memory_base" => {
                constant(&mut *store, memory_base)?.into()
            }
            (_, ExternType::Global(_)) if name == "__table_base" => {
                constant(&mut *store, table_base)?.into()
            }
            (_, ExternType::Func(ty)) => function(&mut *store, guest, name, ty)?.into(),
            (_, ExternType::Tag(_)) if name == LONGJMP_TAG => guest
                .instance
                .get_export(&mut *store, LONGJMP_TAG)
                .ok_or_else(|| wasmtime::format_err!("the main module has no longjmp tag"))?,
            (module, _) => guest
                .instance
                .get_export(&mut *store, name)
                .ok_or_else(|| wasmtime::format_err!("it needs {module}.{name}"))?,
        };
        imports.push(external);
    }
    let instance = Instance::new_async(&mut *store, &library.module, &imports).await?;
    Ok(Loaded {
        path: path.to_owned(),
        instance,
        memory_base,
        table_base,
        symbols: (library.description.symbols.iter())
            .map(|(name, offset)| (name.clone(), memory_base.wrapping_add(*offset)))
            .collect(),
        slots: HashMap::new(),
        got,
        mutable_globals: library.description.mutable_globals.clone(),
    })
}

fn constant(store: impl wasmtime::AsContextMut, value: u32) -> wasmtime::Result<Global> {
    let ty = GlobalType::new(ValType::I32, Mutability::Const);
    Global::new(store, ty, Val::I32(value as i32))
}

/// The function that a library imports: of the main module, of a library opened before, or of
/// the host; one that fails when called if there is none, since libraries carry code for systems
/// with more than we have and mostly never call it.
fn function(
    store: &mut (impl wasmtime::AsContextMut<Data = Host> + Send),
    guest: Guest,
    name: &str,
    ty: FuncType,
) -> wasmtime::Result<Func> {
    // Names by which newer tools export what older ones import.
    let alias = match name {
        "getTempRet0" => "_emscripten_tempret_get",
        "setTempRet0" => "_emscripten_tempret_set",
        name => name,
    };
    if let Some(function) = guest.instance.get_func(&mut *store, alias) {
        return Ok(function);
    }
    let others: Vec<Instance> = store
        .as_context()
        .data()
        .libraries
        .loaded
        .iter()
        .map(|library| library.instance)
        .collect();
    for other in others {
        if let Some(function) = other.get_func(&mut *store, name) {
            return Ok(function);
        }
    }
    let engine = Arc::clone(&store.as_context().data().engine);
    if let Ok(Extern::Func(function)) = engine.linker().get(&mut *store, "env", name)
        && function.ty(&*store).matches(&ty)
    {
        return Ok(function);
    }
    tracing::debug!(
        name,
        "a library imports a function that is not available here"
    );
    let missing = name.to_owned();
    Ok(Func::new(&mut *store, ty, move |_, _, _| {
        tracing::error!(
            name = missing,
            "a library called a function that is not available here"
        );
        Err(Exit::MissingFunction.into())
    }))
}

/// Gives every `GOT` entry its value, now that the library's own exports are known.
fn fill_got(caller: &mut Caller<'_, Host>, loaded: &mut Loaded) -> wasmtime::Result<()> {
    for index in 0..loaded.got.len() {
        let (entry, name, global) = &loaded.got[index];
        let (entry, name, global) = (*entry, name.clone(), *global);
        let value = match entry {
            Entry::Address => address(caller, loaded, &name),
            Entry::Function => slot(caller, loaded, &name)?,
        };
        if value.is_none() {
            tracing::debug!(library = loaded.path, name, "a weak symbol stays undefined");
        }
        global.set(&mut *caller, Val::I32(value.unwrap_or_default() as i32))?;
    }
    Ok(())
}

fn address(caller: &Caller<'_, Host>, loaded: &Loaded, name: &str) -> Option<u32> {
    let host = caller.data();
    let main = &host.module.description.symbols;
    let others = host.libraries.loaded.iter().map(|library| &library.symbols);
    std::iter::once(main)
        .chain(others)
        .chain([&loaded.symbols])
        .find_map(|symbols| symbols.get(name).copied())
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
    Ok(caller.data().libraries.loaded[index]
        .symbols
        .get(name)
        .copied())
}

/// What an image must remember of the libraries.
pub(crate) fn save(store: &mut Store<Host>) -> wasmtime::Result<SavedLibraries> {
    let guest = store.data().guest();
    let libraries = std::mem::take(&mut store.data_mut().libraries);
    let pairs = |map: &HashMap<String, u32>| {
        let mut pairs: Vec<(String, u32)> = map.iter().map(|(n, v)| (n.clone(), *v)).collect();
        pairs.sort();
        pairs
    };
    let mut saved = SavedLibraries {
        table_slots: guest.table.size(&*store) as u32,
        main_slots: pairs(&libraries.main_slots),
        libraries: Vec::new(),
    };
    for (index, library) in libraries.loaded.iter().enumerate() {
        let value = |store: &mut Store<Host>, global: Global| match global.get(store) {
            Val::I32(value) => value as u32,
            _ => 0,
        };
        let got = library
            .got
            .iter()
            .map(|(_, _, global)| value(store, *global))
            .collect();
        let mut globals = Vec::new();
        for name in &library.mutable_globals {
            let global = library.instance.get_global(&mut *store, name);
            globals.push(global.map_or(0, |global| value(store, global)));
        }
        saved.libraries.push(SavedLibrary {
            path: library.path.clone(),
            handles: (libraries.handles.iter())
                .filter(|(_, loaded)| **loaded == index)
                .map(|(handle, _)| *handle)
                .collect(),
            memory_base: library.memory_base,
            table_base: library.table_base,
            slots: pairs(&library.slots),
            got,
            globals,
        });
    }
    store.data_mut().libraries = libraries;
    Ok(saved)
}

/// Links the libraries of an image into a fork, whose memory holds their data already.
pub(crate) async fn restore(
    store: &mut Store<Host>,
    saved: &SavedLibraries,
) -> wasmtime::Result<()> {
    let guest = store.data().guest();
    if saved.table_slots > TABLE_SLOTS_MAX {
        wasmtime::bail!("its table has {} slots", saved.table_slots);
    }
    let missing = u64::from(saved.table_slots).saturating_sub(guest.table.size(&*store));
    if missing > 0 {
        guest.table.grow(&mut *store, missing, Ref::Func(None))?;
    }
    for library in &saved.libraries {
        let engine = Arc::clone(&store.data().engine);
        let module = engine.library(&library.path).await?;
        let known = |position: usize, _: &str| library.got.get(position).copied();
        let (path, memory_base, table_base) =
            (&library.path, library.memory_base, library.table_base);
        let mut loaded = instantiate(store, path, &module, memory_base, table_base, known).await?;
        for (name, value) in loaded.mutable_globals.iter().zip(&library.globals) {
            if let Some(global) = loaded.instance.get_global(&mut *store, name) {
                global.set(&mut *store, Val::I32(*value as i32))?;
            }
        }
        for (name, slot) in &library.slots {
            set_slot(store, loaded.instance, name, *slot)?;
        }
        loaded.slots = library.slots.iter().cloned().collect();
        let libraries = &mut store.data_mut().libraries;
        libraries.loaded.push(loaded);
        let index = libraries.loaded.len() - 1;
        libraries
            .handles
            .extend(library.handles.iter().map(|handle| (*handle, index)));
    }
    for (name, slot) in &saved.main_slots {
        set_slot(store, guest.instance, name, *slot)?;
    }
    store.data_mut().libraries.main_slots = saved.main_slots.iter().cloned().collect();
    Ok(())
}

fn set_slot(
    store: &mut Store<Host>,
    instance: Instance,
    name: &str,
    slot: u32,
) -> wasmtime::Result<()> {
    let table = store.data().guest().table;
    let function = instance
        .get_func(&mut *store, name)
        .ok_or_else(|| wasmtime::format_err!("no function {name}"))?;
    table.set(&mut *store, u64::from(slot), Ref::Func(Some(function)))
}
