//! Where the imports of a library come from.
//!
//! That depends only on the modules that were opened before it, so it is found out once for each
//! such row of modules, and every backend that opens the library there uses it again.

use std::sync::Arc;

use wasmtime::{
    AsContext, AsContextMut, Extern, ExternType, Func, FuncType, Global, GlobalType, Instance,
    Module, ModuleExport, Mutability, Val, ValType,
};

use super::super::{Exit, Host};
use super::Loaded;
use crate::module::LibraryModule;
use crate::rewrite::LONGJMP_TAG;

/// Rows of earlier libraries that are remembered for a library; the oldest goes first.
const ROWS_MAX: usize = 16;

/// What is known of the links of one library.
#[derive(Default)]
pub(crate) struct KnownLinks(Vec<(Vec<String>, Arc<Links>)>);

/// The sources of a library's imports, in their order.
pub(crate) struct Links {
    imports: Vec<Link>,
    /// What its `GOT` entries are for, in import order.
    pub(super) got: Vec<(Entry, Arc<str>)>,
}

/// What a `GOT` entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Address,
    Function,
}

enum Link {
    Memory,
    Table,
    MemoryBase,
    TableBase,
    /// The next `GOT` entry.
    Got,
    Main(ModuleExport),
    /// An export of a library that was opened before, by its position.
    Library(usize, ModuleExport),
    /// A function of the host.
    Host(Box<str>),
    /// Nobody has it: a function that fails when called, since libraries carry code for systems
    /// with more than we have and mostly never call it.
    Missing(Arc<str>, FuncType),
}

/// The links of `library`, when `earlier` are open.
pub(super) fn links(
    store: &mut (impl AsContextMut<Data = Host> + Send),
    library: &LibraryModule,
    earlier: &[Loaded],
) -> wasmtime::Result<Arc<Links>> {
    let same = |row: &[String]| {
        row.len() == earlier.len() && row.iter().zip(earlier).all(|(a, b)| *a == b.path)
    };
    let known = library.links.lock();
    if let Some((_, links)) = known.0.iter().find(|(row, _)| same(row)) {
        return Ok(Arc::clone(links));
    }
    drop(known);
    let links = Arc::new(Links::find(store, library, earlier)?);
    let mut known = library.links.lock();
    if known.0.len() >= ROWS_MAX {
        known.0.remove(0);
    }
    let row = earlier.iter().map(|library| library.path.clone()).collect();
    known.0.push((row, Arc::clone(&links)));
    Ok(links)
}

impl Links {
    fn find(
        store: &mut (impl AsContextMut<Data = Host> + Send),
        library: &LibraryModule,
        earlier: &[Loaded],
    ) -> wasmtime::Result<Self> {
        let main = Arc::clone(&store.as_context().data().module);
        let main = main.module();
        let mut links = Self {
            imports: Vec::new(),
            got: Vec::new(),
        };
        for import in library.module.imports() {
            let name = import.name();
            let link = match (import.module(), import.ty()) {
                (kind @ ("GOT.mem" | "GOT.func"), ExternType::Global(_)) => {
                    let entry = if kind == "GOT.mem" {
                        Entry::Address
                    } else {
                        Entry::Function
                    };
                    links.got.push((entry, name.into()));
                    Link::Got
                }
                (_, ExternType::Memory(_)) => Link::Memory,
                (_, ExternType::Table(_)) => Link::Table,
                (_, ExternType::Global(_)) if name == "__memory_base" => Link::MemoryBase,
                (_, ExternType::Global(_)) if name == "__table_base" => Link::TableBase,
                (_, ExternType::Func(ty)) => function(store, main, earlier, name, ty),
                (_, ExternType::Tag(_)) if name == LONGJMP_TAG => main
                    .get_export_index(LONGJMP_TAG)
                    .map(Link::Main)
                    .ok_or_else(|| wasmtime::format_err!("the main module has no longjmp tag"))?,
                (module, _) => main
                    .get_export_index(name)
                    .map(Link::Main)
                    .ok_or_else(|| wasmtime::format_err!("it needs {module}.{name}"))?,
            };
            links.imports.push(link);
        }
        Ok(links)
    }

    /// Instantiates the library that these are the links of; also its `GOT` entries, of which
    /// `got` gives the values that are known; the others begin as zero.
    pub(super) async fn instantiate(
        &self,
        store: &mut (impl AsContextMut<Data = Host> + Send),
        library: &LibraryModule,
        (memory_base, table_base): (u32, u32),
        got: &[u32],
    ) -> wasmtime::Result<(Instance, Vec<Global>)> {
        let guest = store.as_context().data().guest();
        let mut imports = Vec::with_capacity(self.imports.len());
        let mut entries = Vec::with_capacity(self.got.len());
        for link in &self.imports {
            imports.push(match link {
                Link::Memory => guest.memory.into(),
                Link::Table => guest.table.into(),
                Link::MemoryBase => global(&mut *store, Mutability::Const, memory_base)?.into(),
                Link::TableBase => global(&mut *store, Mutability::Const, table_base)?.into(),
                Link::Got => {
                    let value = got.get(entries.len()).copied().unwrap_or_default();
                    let entry = global(&mut *store, Mutability::Var, value)?;
                    entries.push(entry);
                    entry.into()
                }
                Link::Main(export) => exported(&mut *store, guest.instance, export)?,
                Link::Library(position, export) => {
                    let libraries = &store.as_context().data().libraries;
                    let instance = libraries.loaded[*position].instance;
                    exported(&mut *store, instance, export)?
                }
                Link::Host(name) => {
                    let engine = Arc::clone(&store.as_context().data().engine);
                    engine.linker().get(&mut *store, "env", name)?
                }
                Link::Missing(name, ty) => missing(&mut *store, name, ty).into(),
            });
        }
        let instance = Instance::new_async(&mut *store, &library.module, &imports).await?;
        Ok((instance, entries))
    }
}

fn exported(
    store: impl AsContextMut,
    instance: Instance,
    export: &ModuleExport,
) -> wasmtime::Result<Extern> {
    instance
        .get_module_export(store, export)
        .ok_or_else(|| wasmtime::format_err!("BUG: links of another module"))
}

fn global(
    store: impl AsContextMut,
    mutability: Mutability,
    value: u32,
) -> wasmtime::Result<Global> {
    let ty = GlobalType::new(ValType::I32, mutability);
    Global::new(store, ty, Val::I32(value as i32))
}

/// Who has a function: the main module, a library opened before, the host, or nobody.
fn function(
    store: &mut (impl AsContextMut<Data = Host> + Send),
    main: &Module,
    earlier: &[Loaded],
    name: &str,
    ty: FuncType,
) -> Link {
    // Names by which newer tools export what older ones import.
    let alias = match name {
        "getTempRet0" => "_emscripten_tempret_get",
        "setTempRet0" => "_emscripten_tempret_set",
        name => name,
    };
    if let Some(export) = function_export(main, alias) {
        return Link::Main(export);
    }
    for (position, library) in earlier.iter().enumerate() {
        if let Some(export) = function_export(&library.library.module, name) {
            return Link::Library(position, export);
        }
    }
    let engine = Arc::clone(&store.as_context().data().engine);
    if let Ok(Extern::Func(function)) = engine.linker().get(&mut *store, "env", name)
        && function.ty(&*store).matches(&ty)
    {
        return Link::Host(name.into());
    }
    tracing::debug!(
        name,
        "a library imports a function that is not available here"
    );
    Link::Missing(name.into(), ty)
}

/// The export of that name, if it is a function.
pub(super) fn function_export(module: &Module, name: &str) -> Option<ModuleExport> {
    match module.get_export(name) {
        Some(ExternType::Func(_)) => module.get_export_index(name),
        _ => None,
    }
}

fn missing(store: impl AsContextMut, name: &Arc<str>, ty: &FuncType) -> Func {
    let name = Arc::clone(name);
    Func::new(store, ty.clone(), move |_, _, _| {
        tracing::error!(
            %name,
            "a library called a function that is not available here"
        );
        Err(Exit::MissingFunction.into())
    })
}
