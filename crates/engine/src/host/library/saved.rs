//! The opened libraries of a backend, as an image keeps them.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::{Global, Instance, Ref, Store, Val};

use super::super::Host;
use super::{Loaded, links};

/// Most table slots that an image may claim: ten times what all libraries together have.
const TABLE_SLOTS_MAX: u32 = 1 << 20;

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

/// What an image must remember of the libraries.
pub(crate) fn save(store: &mut Store<Host>) -> wasmtime::Result<SavedLibraries> {
    let guest = store.data().guest();
    let libraries = std::mem::take(&mut store.data_mut().libraries);
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
        let got = library.got.iter().map(|global| value(store, *global));
        let got = got.collect();
        let mut globals = Vec::new();
        for name in &library.library.description.mutable_globals {
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

/// A map in an order that is always the same.
fn pairs(map: &HashMap<String, u32>) -> Vec<(String, u32)> {
    let mut pairs: Vec<(String, u32)> = map.iter().map(|(n, v)| (n.clone(), *v)).collect();
    pairs.sort();
    pairs
}

impl SavedLibraries {
    /// Whether a backend with these libraries may have come from one with those of `earlier`: what
    /// is linked there need not be linked again.
    pub(crate) fn continues(&self, earlier: &Self) -> bool {
        let same = |(now, then): (&SavedLibrary, &SavedLibrary)| {
            now.path == then.path
                && now.memory_base == then.memory_base
                && now.table_base == then.table_base
        };
        self.libraries.len() >= earlier.libraries.len()
            && self.table_slots >= earlier.table_slots
            && self.libraries.iter().zip(&earlier.libraries).all(same)
    }
}

/// Links libraries into a fork, whose memory holds their data already. Those that are linked must
/// be the first of them.
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
    for (index, saved) in saved.libraries.iter().enumerate() {
        if index >= store.data().libraries.loaded.len() {
            link_library(store, saved).await?;
        }
        restore_library(store, index, saved)?;
    }
    let known = std::mem::take(&mut store.data_mut().libraries.main_slots);
    let known = restore_slots(store, guest.instance, known, &saved.main_slots)?;
    store.data_mut().libraries.main_slots = known;
    Ok(())
}

async fn link_library(store: &mut Store<Host>, saved: &SavedLibrary) -> wasmtime::Result<()> {
    let engine = Arc::clone(&store.data().engine);
    let library = engine.library(&saved.path).await?;
    let earlier = std::mem::take(&mut store.data_mut().libraries.loaded);
    let links = links::links(store, &library, &earlier);
    store.data_mut().libraries.loaded = earlier;
    let links = links?;
    let bases = (saved.memory_base, saved.table_base);
    let (instance, got) = links
        .instantiate(store, &library, bases, &saved.got)
        .await?;
    store.data_mut().libraries.loaded.push(Loaded {
        path: saved.path.clone(),
        library,
        links,
        instance,
        memory_base: saved.memory_base,
        table_base: saved.table_base,
        slots: HashMap::new(),
        got,
    });
    Ok(())
}

/// Gives a library that is linked the values of an image.
fn restore_library(
    store: &mut Store<Host>,
    index: usize,
    saved: &SavedLibrary,
) -> wasmtime::Result<()> {
    let loaded = &mut store.data_mut().libraries.loaded[index];
    let (instance, library) = (loaded.instance, Arc::clone(&loaded.library));
    let slots = std::mem::take(&mut loaded.slots);
    let got = loaded.got.clone();
    for (global, value) in got.into_iter().zip(&saved.got) {
        global.set(&mut *store, Val::I32(*value as i32))?;
    }
    for (name, value) in (library.description.mutable_globals.iter()).zip(&saved.globals) {
        if let Some(global) = instance.get_global(&mut *store, name) {
            global.set(&mut *store, Val::I32(*value as i32))?;
        }
    }
    let slots = restore_slots(store, instance, slots, &saved.slots)?;
    let libraries = &mut store.data_mut().libraries;
    libraries.loaded[index].slots = slots;
    let handles = saved.handles.iter().map(|handle| (*handle, index));
    libraries.handles.extend(handles);
    Ok(())
}

/// Puts functions of `instance` where they stood, but for those that stand there.
fn restore_slots(
    store: &mut Store<Host>,
    instance: Instance,
    mut known: HashMap<String, u32>,
    saved: &[(String, u32)],
) -> wasmtime::Result<HashMap<String, u32>> {
    for (name, slot) in saved {
        if known.get(name) != Some(slot) {
            set_slot(store, instance, name, *slot)?;
            known.insert(name.clone(), *slot);
        }
    }
    Ok(known)
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
