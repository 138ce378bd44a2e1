//! Emscripten's modules, rewritten so that a backend can be forked and interrupted.
//!
//! The published modules expect a JavaScript host that catches exceptions, calls back into wasm
//! from its imports, and runs the data segments again for every instance. In an async store of
//! wasmtime none of that is cheap or possible, so the same things are expressed in wasm itself:
//!
//! 1. `invoke_SIG` and `_emscripten_throw_longjmp` become functions of the module: a `try_table`
//!    around `call_indirect`, and a `throw`. A longjmp never leaves wasm.
//! 2. `__call_sighandler` becomes a `call_indirect`.
//! 3. `ProcessInterrupts`, `WaitLatch` and `nanosleep` are wrapped. The latter two spin in the
//!    published build; here they wait in the host. All three deliver the timer signals that are
//!    due, so that Postgres' own `SIGALRM` handler runs inside wasm and `statement_timeout` and
//!    its kin mean what they mean in Postgres.
//! 4. `check_stack_depth` is wrapped: before Postgres looks at its own stack, the host says
//!    whether the native stack nears its end; if so the depth limit is made to fail.
//! 5. Data segments are taken out and handed to the host, which writes them at a cold boot and
//!    leaves them alone when the memory is mapped from an image. The start function becomes an
//!    export for the same reason.
//! 6. A main module's imported memory becomes its own, and every mutable global is exported,
//!    so that an instance's whole state can be read and restored.
//! 7. The callbacks that Postgres expects from its host (bytes of the client, `system`, `popen`)
//!    stand in table slots after the module's own, the same in every instance.
//!
//! Function indices move (imports vanish, functions are appended), which the re-encoder follows
//! through every section.

use std::collections::HashMap;

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    BlockType, Catch, CodeSection, ConstExpr, ElementSection, Elements, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, GlobalSection, ImportSection, MemArg, MemorySection,
    Module, TableSection, TagKind, TagSection, TagType, TypeSection, ValType,
};
use wasmparser::{DataKind, Dylink0Subsection, ExternalKind, Operator, Parser, Payload, TypeRef};

use crate::landmarks::{self, KILL, Landmarks, RAISE, Replacement};

/// Export name of the tag that carries a longjmp, shared by a main module and its libraries.
pub(crate) const LONGJMP_TAG: &str = "dormouse.longjmp";
/// Export name of the original start function.
pub(crate) const START: &str = "dormouse.start";
/// Export name prefix of the module's own mutable globals, followed by their index.
pub(crate) const MUTABLE_GLOBAL: &str = "dormouse.global.";
/// Import module of the host functions that the rewritten code needs.
pub(crate) const HOST: &str = "dormouse";
/// Import: `() -> i32`, the signals due now, taken by the call: bit 0 the timer's, and those of [`SENT`].
pub(crate) const TAKE_SIGNALS: &str = "take_signals";
/// Import: `(events, timeout_ms)`, begins a wait for a latch.
pub(crate) const WAIT_BEGIN: &str = "wait_begin";
/// Import: `(latch) -> i32`, waits: 0 when the latch is set or the time is up, 1 when signals are
/// due first.
pub(crate) const WAIT: &str = "wait";
/// Import: `(timespec) -> i32`, sleeps: 0 when the time is up, else an error number.
pub(crate) const SLEEP: &str = "sleep";
/// Import: `() -> i32`, whether the native stack is nearly used up.
pub(crate) const STACK_IS_LOW: &str = "stack_is_low";

/// Import: `(process, signal) -> i32`, sends a signal to another process: [`SENT_TO_SELF`] if it is this one.
pub(crate) const SEND_SIGNAL: &str = "send_signal";
/// See [`SEND_SIGNAL`].
pub(crate) const SENT_TO_SELF: i32 = 1;
/// Signals that processes send each other: the bit in [`TAKE_SIGNALS`], and the number in the guest's C
/// library (`SIGUSR1`, `SIGINT`, `SIGTERM`).
pub(crate) const SENT: [(i32, i32); 3] = [(2, 10), (SENT_CANCEL, 2), (8, 15)];
/// The bit of `SIGINT`.
pub(crate) const SENT_CANCEL: i32 = 4;

/// Import: `()`, lets other processes run, if this one has run for long.
pub(crate) const YIELD: &str = "yield";

/// The callbacks in the table, in slot order: import name and number of `i32` parameters; each
/// returns an `i32`.
pub(crate) const CALLBACKS: [(&str, usize); 5] = [
    ("client_read", 2),
    ("client_write", 2),
    ("system", 1),
    ("popen", 2),
    ("pclose", 1),
];

/// What role a module plays in its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `pglite.wasm` or `initdb.wasm`: owns memory, table, stack pointer and the tag.
    Main,
    /// A library that is linked into a running main module.
    Library,
}

/// A data segment that was taken out of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Byte offset: absolute in a main module, from the library's memory base otherwise.
    pub(crate) offset: u32,
    /// The bytes to write there.
    pub(crate) bytes: Vec<u8>,
}

/// What a library asks of the dynamic linker (`dylink.0`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dylink {
    /// Bytes of memory for its data.
    pub(crate) memory_bytes: u32,
    /// Alignment of that memory, as a power of two.
    pub(crate) memory_align_log2: u32,
    /// Table slots for its functions.
    pub(crate) table_slots: u32,
}

/// A rewritten module.
#[derive(Debug, Clone)]
pub(crate) struct Rewritten {
    /// The module to compile.
    pub(crate) wasm: Vec<u8>,
    /// The data that it no longer holds.
    pub(crate) segments: Vec<Segment>,
    /// Its `dylink.0` section.
    pub(crate) dylink: Dylink,
    /// Table slot of the first of [`CALLBACKS`]; only a main module has them.
    pub(crate) first_callback: u32,
    /// Exported addresses of data, relative to the library's memory base if it is one.
    pub(crate) symbols: Vec<(String, u32)>,
    /// Exported functions that already stand in the module's own table, and where.
    pub(crate) function_slots: Vec<(String, u32)>,
    /// Export names of the module's own mutable globals.
    pub(crate) mutable_globals: Vec<String>,
}

/// Why a module could not be rewritten: it is not of the shape this host knows.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The bytes are not wasm.
    #[error("not a valid wasm module: {0}")]
    Parse(#[from] wasmparser::BinaryReaderError),
    /// The re-encoder met something it cannot express.
    #[error("the module cannot be re-encoded: {0}")]
    Reencode(String),
    /// The module lacks or has something that this host does not expect.
    #[error("unexpected module shape: {0}")]
    Shape(String),
}

impl From<reencode::Error> for RewriteError {
    fn from(error: reencode::Error) -> Self {
        Self::Reencode(error.to_string())
    }
}

/// A function of the rewritten module that the original did not have.
enum Added {
    /// `invoke_SIG` of this original type.
    Invoke { type_index: u32, callee: u32 },
    /// `_emscripten_throw_longjmp`.
    ThrowLongjmp,
    /// `__call_sighandler`.
    CallSighandler,
    /// Delivers the timer signals that are due.
    DeliverSignals,
    /// `ProcessInterrupts`, with the index of the original.
    ProcessInterrupts { original: u32 },
    /// `WaitLatch`, with the index of the original.
    WaitLatch { original: u32 },
    /// `nanosleep`.
    Nanosleep,
    /// `check_stack_depth`, with the index of the original.
    CheckStackDepth { original: u32 },
    /// `kill`, with the index of the original.
    Kill { original: u32 },
}

/// What one pass over the module finds before anything is written.
struct Survey {
    role: Role,
    types: Vec<wasmparser::FuncType>,
    /// Name and type of each imported function.
    imported_functions: Vec<(String, u32)>,
    defined_functions: u32,
    exports: HashMap<String, (ExternalKind, u32)>,
    imported_globals: u32,
    mutable_globals: Vec<u32>,
    /// Values of the immutable `i32` globals, by index.
    constants: HashMap<u32, u32>,
    /// Table slot of each function that an element segment puts at a constant place.
    slots: HashMap<u32, u32>,
    imported_tags: u32,
    has_memory: bool,
    /// Slots of the module's own table.
    table_slots: u32,
    start: Option<u32>,
    dylink: Dylink,
    /// Index of the imported `__stack_pointer`, if it is imported.
    stack_pointer_import: Option<u32>,
    /// Index of the imported `__memory_base`, if any.
    memory_base_import: Option<u32>,
    /// Of Postgres itself.
    landmarks: Landmarks,
}

impl Survey {
    fn of(wasm: &[u8], role: Role) -> Result<Self, RewriteError> {
        let mut survey = Self {
            role,
            types: Vec::new(),
            imported_functions: Vec::new(),
            defined_functions: 0,
            exports: HashMap::new(),
            imported_globals: 0,
            mutable_globals: Vec::new(),
            constants: HashMap::new(),
            slots: HashMap::new(),
            imported_tags: 0,
            has_memory: false,
            table_slots: 0,
            start: None,
            dylink: Dylink::default(),
            stack_pointer_import: None,
            memory_base_import: None,
            landmarks: Landmarks::default(),
        };
        for payload in Parser::new(0).parse_all(wasm) {
            survey.visit(payload?)?;
        }
        if role == Role::Main && survey.exports.contains_key("ProcessInterrupts") {
            survey.landmarks = landmarks::find(wasm)?;
        }
        Ok(survey)
    }

    fn visit(&mut self, payload: Payload<'_>) -> Result<(), RewriteError> {
        match payload {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    self.types.push(ty?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    match import.ty {
                        TypeRef::Func(ty) => {
                            self.imported_functions.push((import.name.to_owned(), ty));
                        }
                        TypeRef::Global(_) => {
                            match import.name {
                                "__stack_pointer" => {
                                    self.stack_pointer_import = Some(self.imported_globals);
                                }
                                "__memory_base" => {
                                    self.memory_base_import = Some(self.imported_globals);
                                }
                                _ => {}
                            }
                            self.imported_globals += 1;
                        }
                        TypeRef::Tag(_) => self.imported_tags += 1,
                        _ => {}
                    }
                }
            }
            Payload::FunctionSection(section) => self.defined_functions = section.count(),
            Payload::TableSection(section) => {
                for table in section {
                    self.table_slots = u32::try_from(table?.ty.initial)
                        .map_err(|_| RewriteError::Shape("a huge table".into()))?;
                }
            }
            Payload::MemorySection(section) => self.has_memory = section.count() > 0,
            Payload::GlobalSection(section) => {
                for (index, global) in (self.imported_globals..).zip(section) {
                    let global = global?;
                    if global.ty.mutable {
                        self.mutable_globals.push(index);
                    } else if let Operator::I32Const { value } =
                        global.init_expr.get_operators_reader().read()?
                    {
                        self.constants.insert(index, value as u32);
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    self.exports
                        .insert(export.name.to_owned(), (export.kind, export.index));
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => {
                for element in section {
                    self.visit_element(element?)?;
                }
            }
            Payload::CustomSection(section) => {
                if let wasmparser::KnownCustom::Dylink0(subsections) = section.as_known() {
                    for subsection in subsections {
                        if let Dylink0Subsection::MemInfo(info) = subsection? {
                            self.dylink = Dylink {
                                memory_bytes: info.memory_size,
                                memory_align_log2: info.memory_alignment,
                                table_slots: info.table_size,
                            };
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_element(&mut self, element: wasmparser::Element<'_>) -> Result<(), RewriteError> {
        let wasmparser::ElementKind::Active { offset_expr, .. } = element.kind else {
            return Ok(());
        };
        let Operator::I32Const { value } = offset_expr.get_operators_reader().read()? else {
            return Ok(());
        };
        if let wasmparser::ElementItems::Functions(functions) = element.items {
            for (slot, function) in (value as u32..).zip(functions) {
                self.slots.entry(function?).or_insert(slot);
            }
        }
        Ok(())
    }

    /// Exported data addresses, in name order.
    fn symbols(&self) -> Vec<(String, u32)> {
        let mut symbols: Vec<_> = self
            .exports
            .iter()
            .filter(|(_, (kind, _))| *kind == ExternalKind::Global)
            .filter_map(|(name, (_, index))| Some((name.clone(), *self.constants.get(index)?)))
            .collect();
        let found = self.landmarks.values.iter();
        symbols.extend(found.map(|(name, value)| ((*name).to_owned(), *value)));
        symbols.sort();
        symbols
    }

    /// Exported functions with a slot in the module's own table, in name order.
    fn function_slots(&self) -> Vec<(String, u32)> {
        let mut slots: Vec<_> = self
            .exports
            .iter()
            .filter(|(_, (kind, _))| *kind == ExternalKind::Func)
            .filter_map(|(name, (_, index))| Some((name.clone(), *self.slots.get(index)?)))
            .collect();
        slots.sort();
        slots
    }

    fn exported_function(&self, name: &str) -> Option<u32> {
        match self.exports.get(name) {
            Some((ExternalKind::Func, index)) => Some(*index),
            _ => None,
        }
    }

    /// Index of the type, appended if the module does not have it.
    fn type_index(
        &mut self,
        params: &[wasmparser::ValType],
        results: &[wasmparser::ValType],
    ) -> u32 {
        let same = |ty: &wasmparser::FuncType| ty.params() == params && ty.results() == results;
        let index = self.types.iter().position(same).unwrap_or_else(|| {
            self.types.push(wasmparser::FuncType::new(
                params.iter().copied(),
                results.iter().copied(),
            ));
            self.types.len() - 1
        });
        index as u32
    }
}

/// Where everything goes in the rewritten module.
struct Plan {
    survey: Survey,
    /// New index of each original function index.
    functions: Vec<u32>,
    /// Original indices of the imports that stay.
    kept_imports: Vec<u32>,
    added: Vec<Added>,
    /// How many types the module had of its own.
    original_types: usize,
    /// `() -> ()`
    type_unit: u32,
    /// `() -> i32`
    type_flag: u32,
    /// `(i32) -> ()`
    type_handler: u32,
    /// `(i32, i32) -> ()`
    type_set_threw: u32,
    /// `(i32, i32, i32, i32) -> i32`
    type_wait_latch: u32,
    /// Types of [`CALLBACKS`].
    type_callbacks: [u32; CALLBACKS.len()],
    /// Import index of the first of [`CALLBACKS`], in a main module.
    import_callbacks: Option<u32>,
    import_take_signals: Option<u32>,
    import_stack_is_low: Option<u32>,
    import_wait_begin: Option<u32>,
    import_wait: Option<u32>,
    import_sleep: Option<u32>,
    import_set_threw: Option<u32>,
    import_send_signal: Option<u32>,
    import_yield: Option<u32>,
    deliver_signals: Option<u32>,
    /// Which instruction of which function is next.
    at: (u32, u32),
}

impl Plan {
    fn of(mut survey: Survey) -> Result<Self, RewriteError> {
        use wasmparser::ValType::I32;
        let main = survey.role == Role::Main;
        let original_types = survey.types.len();
        let type_unit = survey.type_index(&[], &[]);
        let type_flag = survey.type_index(&[], &[I32]);
        let type_handler = survey.type_index(&[I32], &[]);
        let type_set_threw = survey.type_index(&[I32, I32], &[]);
        let type_wait_latch = survey.type_index(&[I32; 4], &[I32]);
        let type_callbacks =
            CALLBACKS.map(|(_, params)| survey.type_index(&vec![I32; params], &[I32]));

        let is_replaced = |name: &str| {
            name.starts_with("invoke_")
                || name == "_emscripten_throw_longjmp"
                || name == "__call_sighandler"
        };
        let kept_imports: Vec<u32> = (0u32..)
            .zip(&survey.imported_functions)
            .filter(|(_, (name, _))| !is_replaced(name))
            .map(|(index, _)| index)
            .collect();
        let invokes = survey
            .imported_functions
            .iter()
            .any(|(name, _)| name.starts_with("invoke_"));
        let interrupts = survey
            .exported_function("ProcessInterrupts")
            .filter(|_| main);
        let stack_check = survey
            .exported_function("check_stack_depth")
            .filter(|_| main);

        let mut next_import = kept_imports.len() as u32;
        let mut import = |wanted: bool| {
            wanted.then(|| {
                next_import += 1;
                next_import - 1
            })
        };
        let import_take_signals = import(interrupts.is_some());
        let import_stack_is_low = import(stack_check.is_some());
        let waits = interrupts.is_some();
        let import_wait_begin = import(waits);
        let import_wait = import(waits);
        let import_sleep = import(waits);
        let import_send_signal = import(waits);
        let import_yield = import(waits);
        let import_set_threw = import(
            !main && invokes && !survey.imported_functions.iter().any(|f| f.0 == "setThrew"),
        );
        let import_callbacks = main.then_some(next_import);
        let imports = next_import + if main { CALLBACKS.len() as u32 } else { 0 };

        let imported = survey.imported_functions.len() as u32;
        let mut functions = vec![u32::MAX; imported as usize];
        for (new, old) in (0u32..).zip(&kept_imports) {
            functions[*old as usize] = new;
        }
        functions.extend((0..survey.defined_functions).map(|index| imports + index));

        let mut plan = Self {
            functions,
            kept_imports,
            added: Vec::new(),
            original_types,
            type_unit,
            type_flag,
            type_handler,
            type_set_threw,
            type_wait_latch,
            type_callbacks,
            import_callbacks,
            import_take_signals,
            import_stack_is_low,
            import_wait_begin,
            import_wait,
            import_sleep,
            import_set_threw,
            import_send_signal,
            import_yield,
            deliver_signals: None,
            at: (0, 0),
            survey,
        };
        plan.add_functions(imports, interrupts, stack_check)?;
        Ok(plan)
    }

    fn add_functions(
        &mut self,
        imports: u32,
        interrupts: Option<u32>,
        stack_check: Option<u32>,
    ) -> Result<(), RewriteError> {
        let first_added = imports + self.survey.defined_functions;
        let names: Vec<(String, u32)> = self.survey.imported_functions.clone();
        for (old, (name, ty)) in names.into_iter().enumerate() {
            let added = if name.starts_with("invoke_") {
                let invoke = self.survey.types[ty as usize].clone();
                let callee = self
                    .survey
                    .type_index(&invoke.params()[1..], invoke.results());
                Added::Invoke {
                    type_index: ty,
                    callee,
                }
            } else if name == "_emscripten_throw_longjmp" {
                Added::ThrowLongjmp
            } else if name == "__call_sighandler" {
                Added::CallSighandler
            } else {
                continue;
            };
            self.functions[old] = first_added + self.added.len() as u32;
            self.added.push(added);
        }
        if let Some(original) = interrupts {
            self.deliver_signals = Some(first_added + self.added.len() as u32);
            self.added.push(Added::DeliverSignals);
            let target = self.functions[original as usize];
            self.functions[original as usize] = first_added + self.added.len() as u32;
            self.added
                .push(Added::ProcessInterrupts { original: target });
            if let Some(wait) = self.survey.exported_function("WaitLatch") {
                let target = self.functions[wait as usize];
                self.functions[wait as usize] = first_added + self.added.len() as u32;
                self.added.push(Added::WaitLatch { original: target });
            }
            if let Some(sleep) = self.survey.exported_function("nanosleep") {
                self.functions[sleep as usize] = first_added + self.added.len() as u32;
                self.added.push(Added::Nanosleep);
            }
        }
        if let Some(kill) = self.survey.landmarks.function(KILL) {
            let target = self.functions[kill as usize];
            self.functions[kill as usize] = first_added + self.added.len() as u32;
            self.added.push(Added::Kill { original: target });
        }
        if let Some(original) = stack_check {
            let target = self.functions[original as usize];
            self.functions[original as usize] = first_added + self.added.len() as u32;
            self.added.push(Added::CheckStackDepth { original: target });
        }
        if self.survey.role == Role::Main && self.survey.imported_tags > 0 {
            return Err(RewriteError::Shape(
                "a main module that imports tags".into(),
            ));
        }
        Ok(())
    }

    fn function(&self, old: u32) -> Result<u32, RewriteError> {
        let new = self
            .functions
            .get(old as usize)
            .copied()
            .filter(|index| *index != u32::MAX);
        new.ok_or_else(|| RewriteError::Shape(format!("function index {old} is out of range")))
    }

    fn exported(&self, name: &str) -> Result<u32, RewriteError> {
        let old = self
            .survey
            .exported_function(name)
            .ok_or_else(|| RewriteError::Shape(format!("the module does not export {name}")))?;
        self.function(old)
    }

    fn imported(&self, name: &str) -> Option<u32> {
        let old = self
            .survey
            .imported_functions
            .iter()
            .position(|(n, _)| n == name)?;
        self.functions.get(old).copied()
    }

    fn stack_pointer(&self) -> Result<u32, RewriteError> {
        if let Some(index) = self.survey.stack_pointer_import {
            return Ok(index);
        }
        match self.survey.exports.get("__stack_pointer") {
            Some((ExternalKind::Global, index)) => Ok(*index),
            _ => Err(RewriteError::Shape("no __stack_pointer".into())),
        }
    }

    fn set_threw(&self) -> Result<u32, RewriteError> {
        if let Some(import) = self.import_set_threw {
            return Ok(import);
        }
        if let Some(import) = self.imported("setThrew") {
            return Ok(import);
        }
        self.exported("setThrew")
    }

    fn added_type(&self, added: &Added) -> Result<u32, RewriteError> {
        Ok(match added {
            Added::Invoke { type_index, .. } => *type_index,
            Added::ThrowLongjmp
            | Added::DeliverSignals
            | Added::ProcessInterrupts { .. }
            | Added::CheckStackDepth { .. } => self.type_unit,
            Added::CallSighandler => self.import_type("__call_sighandler")?,
            Added::WaitLatch { .. } => self.type_wait_latch,
            // `(i32, i32) -> i32`
            Added::Nanosleep | Added::Kill { .. } => self.type_callbacks[0],
        })
    }

    fn import_type(&self, name: &str) -> Result<u32, RewriteError> {
        let found = self
            .survey
            .imported_functions
            .iter()
            .find(|(n, _)| n == name);
        found
            .map(|(_, ty)| *ty)
            .ok_or_else(|| RewriteError::Shape(format!("the module does not import {name}")))
    }

    fn body(&self, added: &Added) -> Result<Function, RewriteError> {
        match added {
            Added::Invoke { type_index, callee } => self.invoke_body(*type_index, *callee),
            Added::ThrowLongjmp => {
                let mut function = Function::new([]);
                function.instructions().throw(0).end();
                Ok(function)
            }
            Added::CallSighandler => {
                let mut function = Function::new([]);
                let mut code = function.instructions();
                code.local_get(1)
                    .local_get(0)
                    .call_indirect(0, self.type_handler)
                    .end();
                Ok(function)
            }
            Added::DeliverSignals => self.deliver_signals_body(),
            Added::ProcessInterrupts { original } => {
                let deliver = self.deliver_signals.expect("BUG: planned together");
                let yields = self.import_yield.expect("BUG: planned together");
                let mut function = Function::new([]);
                let mut code = function.instructions();
                code.call(yields).call(deliver).call(*original).end();
                Ok(function)
            }
            Added::WaitLatch { original } => self.wait_latch_body(*original),
            Added::Nanosleep => self.nanosleep_body(),
            Added::CheckStackDepth { original } => self.check_stack_depth_body(*original),
            Added::Kill { original } => Ok(self.kill_body(*original)),
        }
    }

    /// Save the stack pointer, call, and on a longjmp restore it and tell `setjmp`'s side.
    fn invoke_body(&self, type_index: u32, callee: u32) -> Result<Function, RewriteError> {
        let ty = &self.survey.types[type_index as usize];
        let params = ty.params().len() as u32;
        let stack_pointer = self.stack_pointer()?;
        let mut function = Function::new([(1, ValType::I32)]);
        let saved = params;
        let mut code = function.instructions();
        code.global_get(stack_pointer).local_set(saved);
        code.block(BlockType::Empty);
        let result = match ty.results() {
            [] => BlockType::Empty,
            [one] => BlockType::Result(value_type(*one)?),
            _ => return Err(RewriteError::Shape("invoke with several results".into())),
        };
        code.try_table(result, [Catch::One { tag: 0, label: 0 }]);
        for param in 1..params {
            code.local_get(param);
        }
        code.local_get(0)
            .call_indirect(0, callee)
            .end()
            .return_()
            .end();
        code.local_get(saved).global_set(stack_pointer);
        code.i32_const(1).i32_const(0).call(self.set_threw()?);
        if let [one] = ty.results() {
            match value_type(*one)? {
                ValType::I32 => code.i32_const(0),
                ValType::I64 => code.i64_const(0),
                ValType::F32 => code.f32_const(0.0.into()),
                _ => code.f64_const(0.0.into()),
            };
        }
        code.end();
        Ok(function)
    }

    /// `_emscripten_timeout(ITIMER_REAL, now)` for the timer, and `raise` for what others have sent.
    fn deliver_signals_body(&self) -> Result<Function, RewriteError> {
        let take = self.import_take_signals.expect("BUG: planned together");
        let timeout = self.exported("_emscripten_timeout")?;
        let now = self
            .imported("emscripten_get_now")
            .ok_or_else(|| RewriteError::Shape("no emscripten_get_now".into()))?;
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.call(take).local_tee(0).i32_const(1).i32_and();
        code.if_(BlockType::Empty);
        code.i32_const(0).call(now).call(timeout).end();
        if let Some(raise) = self.survey.landmarks.function(RAISE) {
            let raise = self.function(raise)?;
            for (bit, signal) in SENT {
                code.local_get(0).i32_const(bit).i32_and();
                code.if_(BlockType::Empty);
                code.i32_const(signal).call(raise).drop().end();
            }
        }
        code.end();
        Ok(function)
    }

    /// Asks the host, which knows the other processes; the original knows its own.
    fn kill_body(&self, original: u32) -> Function {
        let send = self.import_send_signal.expect("BUG: planned together");
        let (process, signal, sent) = (0, 1, 2);
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.local_get(process)
            .local_get(signal)
            .call(send)
            .local_tee(sent);
        code.i32_const(SENT_TO_SELF).i32_eq().if_(BlockType::Empty);
        code.i32_const(landmarks::GETPID as i32)
            .local_get(signal)
            .call(original)
            .return_()
            .end();
        code.local_get(sent).end();
        function
    }

    /// Waits in the host, then lets the original look at the latch without waiting itself.
    fn wait_latch_body(&self, original: u32) -> Result<Function, RewriteError> {
        const WL_TIMEOUT: i32 = 8;
        let deliver = self.deliver_signals.expect("BUG: planned together");
        let begin = self.import_wait_begin.expect("BUG: planned together");
        let wait = self.import_wait.expect("BUG: planned together");
        let (latch, events, timeout_ms, event_info, signals) = (0, 1, 2, 3, 4);
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.local_get(events).local_get(timeout_ms).call(begin);
        code.loop_(BlockType::Empty);
        code.local_get(latch)
            .call(wait)
            .local_set(signals)
            .call(deliver);
        code.local_get(signals).br_if(0).end();
        code.local_get(latch)
            .local_get(events)
            .i32_const(WL_TIMEOUT)
            .i32_or();
        code.i32_const(0).local_get(event_info).call(original).end();
        Ok(function)
    }

    /// `nanosleep(request, remaining)`.
    fn nanosleep_body(&self) -> Result<Function, RewriteError> {
        let deliver = self.deliver_signals.expect("BUG: planned together");
        let sleep = self.import_sleep.expect("BUG: planned together");
        let errno = self.exported("__errno_location")?;
        let word = MemArg {
            offset: 0,
            align: 2,
            memory_index: 0,
        };
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.local_get(0).call(sleep).local_set(2).call(deliver);
        code.local_get(2).if_(BlockType::Empty);
        code.call(errno)
            .local_get(2)
            .i32_store(word)
            .i32_const(-1)
            .return_()
            .end();
        code.i32_const(0).end();
        Ok(function)
    }

    /// With the native stack nearly gone, lets Postgres' own check fail: it compares addresses
    /// on the stack in memory, so the pointer to that stack is moved away for the call. The
    /// check then reports "stack depth limit exceeded" (54001) in its own words.
    fn check_stack_depth_body(&self, original: u32) -> Result<Function, RewriteError> {
        let low = self.import_stack_is_low.expect("BUG: planned together");
        let stack_pointer = self.stack_pointer()?;
        let mut function = Function::new([]);
        let mut code = function.instructions();
        let shift = |code: &mut wasm_encoder::InstructionSink<'_>, bytes: i32| {
            code.global_get(stack_pointer)
                .i32_const(bytes)
                .i32_add()
                .global_set(stack_pointer);
        };
        code.call(low).if_(BlockType::Empty);
        shift(&mut code, -STACK_SHIFT_BYTES);
        code.call(original);
        shift(&mut code, STACK_SHIFT_BYTES);
        code.else_().call(original).end().end();
        Ok(function)
    }
}

/// How far the stack pointer moves to make Postgres' stack check fail: more than any
/// `max_stack_depth` this host configures, less than the 8 MiB stack plus what lies below it.
const STACK_SHIFT_BYTES: i32 = 4 << 20;

fn value_type(ty: wasmparser::ValType) -> Result<ValType, RewriteError> {
    ValType::try_from(ty).map_err(|_| RewriteError::Shape("a value type of a later wasm".into()))
}

impl Reencode for Plan {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, func: u32) -> Result<u32, reencode::Error> {
        Ok(self.functions[func as usize])
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: wasmparser::FunctionBody<'_>,
    ) -> Result<(), reencode::Error> {
        self.at.1 = 0;
        reencode::utils::parse_function_body(self, code, body)?;
        self.at.0 += 1;
        Ok(())
    }

    fn parse_instruction<'a>(
        &mut self,
        reader: &mut wasmparser::OperatorsReader<'a>,
    ) -> Result<wasm_encoder::Instruction<'a>, reencode::Error> {
        let instruction = reencode::utils::parse_instruction(self, reader)?;
        let replaced = self.survey.landmarks.replaced.get(&self.at);
        self.at.1 += 1;
        Ok(match replaced {
            Some(Replacement::Constant(value)) => {
                wasm_encoder::Instruction::I32Const(*value as i32)
            }
            Some(Replacement::Nothing) => wasm_encoder::Instruction::I32Extend8S,
            None => instruction,
        })
    }
}

/// Rewrites a module; see the list at the top of this file.
pub(crate) fn rewrite(wasm: &[u8], role: Role) -> Result<Rewritten, RewriteError> {
    let mut plan = Plan::of(Survey::of(wasm, role)?)?;
    let mut module = Module::new();
    let mut segments = Vec::new();
    let mut code = CodeSection::new();
    let mut functions = FunctionSection::new();
    let mut written_memory = false;
    let mut written_tag = false;

    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TypeSection(section) => {
                let mut types = TypeSection::new();
                plan.parse_type_section(&mut types, section)?;
                for ty in &plan.survey.types[plan.original_types..] {
                    let values = |types: &[wasmparser::ValType]| {
                        types
                            .iter()
                            .map(|ty| value_type(*ty))
                            .collect::<Result<Vec<_>, _>>()
                    };
                    types
                        .ty()
                        .function(values(ty.params())?, values(ty.results())?);
                }
                module.section(&types);
            }
            Payload::ImportSection(section) => {
                module.section(&imports(&mut plan, section)?);
            }
            Payload::FunctionSection(section) => {
                plan.parse_function_section(&mut functions, section)?;
                for added in &plan.added {
                    functions.function(plan.added_type(added)?);
                }
                module.section(&functions);
            }
            Payload::TableSection(section) => {
                module.section(&tables(&mut plan, section)?);
            }
            Payload::MemorySection(section) => {
                let mut memories = MemorySection::new();
                plan.parse_memory_section(&mut memories, section)?;
                module.section(&memories);
                written_memory = true;
            }
            Payload::GlobalSection(section) => {
                before_globals(
                    &plan,
                    wasm,
                    &mut module,
                    &mut written_memory,
                    &mut written_tag,
                )?;
                let mut globals = GlobalSection::new();
                plan.parse_global_section(&mut globals, section)?;
                module.section(&globals);
            }
            Payload::ExportSection(section) => {
                before_globals(
                    &plan,
                    wasm,
                    &mut module,
                    &mut written_memory,
                    &mut written_tag,
                )?;
                let mut exports = ExportSection::new();
                plan.parse_export_section(&mut exports, section)?;
                extra_exports(&mut exports, &plan)?;
                module.section(&exports);
            }
            Payload::ElementSection(section) => {
                let mut elements = ElementSection::new();
                plan.parse_element_section(&mut elements, section)?;
                if let Some(first) = plan.import_callbacks {
                    let callbacks: Vec<u32> = (first..).take(CALLBACKS.len()).collect();
                    elements.active(
                        None,
                        &ConstExpr::i32_const(plan.survey.table_slots as i32),
                        Elements::Functions(callbacks.into()),
                    );
                }
                module.section(&elements);
            }
            Payload::DataSection(section) => {
                for data in section {
                    segments.push(segment(&plan.survey, data?)?);
                }
            }
            Payload::CodeSectionEntry(body) => plan.parse_function_body(&mut code, body)?,
            Payload::TagSection(_) => {
                return Err(RewriteError::Shape("a module with tags of its own".into()));
            }
            // Dropped: the start function is an export now, the data is the host's, and names
            // and other custom sections serve debuggers only.
            _ => {}
        }
    }
    for added in &plan.added {
        code.function(&plan.body(added)?);
    }
    module.section(&code);
    Ok(Rewritten {
        wasm: module.finish(),
        segments,
        dylink: plan.survey.dylink.clone(),
        first_callback: plan.survey.table_slots,
        symbols: plan.survey.symbols(),
        function_slots: plan.survey.function_slots(),
        mutable_globals: (plan.survey.mutable_globals.iter())
            .map(|index| format!("{MUTABLE_GLOBAL}{index}"))
            .collect(),
    })
}

/// The module's own table with room for the callbacks; other tables as they are.
fn tables(
    plan: &mut Plan,
    section: wasmparser::TableSectionReader<'_>,
) -> Result<TableSection, RewriteError> {
    let mut tables = TableSection::new();
    for table in section {
        let mut ty = plan.table_type(table?.ty)?;
        if plan.import_callbacks.is_some() {
            ty.minimum += CALLBACKS.len() as u64;
            ty.maximum = ty.maximum.map(|maximum| maximum + CALLBACKS.len() as u64);
        }
        tables.table(ty);
    }
    Ok(tables)
}

fn imports(
    plan: &mut Plan,
    section: wasmparser::ImportSectionReader<'_>,
) -> Result<ImportSection, RewriteError> {
    let mut imports = ImportSection::new();
    let mut function = 0u32;
    let main = plan.survey.role == Role::Main;
    for import in section.into_imports() {
        let import = import?;
        match import.ty {
            TypeRef::Func(_) => {
                if plan.kept_imports.contains(&function) {
                    imports.import(import.module, import.name, plan.entity_type(import.ty)?);
                }
                function += 1;
            }
            TypeRef::Memory(_) if main => {}
            _ => {
                imports.import(import.module, import.name, plan.entity_type(import.ty)?);
            }
        }
    }
    // Functions count on their own, so these follow the kept ones whatever stands between.
    if plan.import_take_signals.is_some() {
        imports.import(HOST, TAKE_SIGNALS, EntityType::Function(plan.type_flag));
    }
    if plan.import_stack_is_low.is_some() {
        imports.import(HOST, STACK_IS_LOW, EntityType::Function(plan.type_flag));
    }
    if plan.import_wait.is_some() {
        // `(i32, i32) -> ()`, and twice `(i32) -> i32`, as `system` has it.
        let sleep = plan.type_callbacks[2];
        imports.import(HOST, WAIT_BEGIN, EntityType::Function(plan.type_set_threw));
        imports.import(HOST, WAIT, EntityType::Function(sleep));
        imports.import(HOST, SLEEP, EntityType::Function(sleep));
    }
    if plan.import_send_signal.is_some() {
        let send = plan.type_callbacks[0];
        imports.import(HOST, SEND_SIGNAL, EntityType::Function(send));
        imports.import(HOST, YIELD, EntityType::Function(plan.type_unit));
    }
    if plan.import_set_threw.is_some() {
        imports.import("env", "setThrew", EntityType::Function(plan.type_set_threw));
    }
    if plan.import_callbacks.is_some() {
        for ((name, _), ty) in CALLBACKS.iter().zip(plan.type_callbacks) {
            imports.import(HOST, name, EntityType::Function(ty));
        }
    }
    if !main {
        imports.import("env", LONGJMP_TAG, EntityType::Tag(longjmp_tag(plan)));
    }
    Ok(imports)
}

fn longjmp_tag(plan: &Plan) -> TagType {
    TagType {
        kind: TagKind::Exception,
        func_type_idx: plan.type_unit,
    }
}

/// Memory and tag come between tables and globals in the order of sections.
fn before_globals(
    plan: &Plan,
    wasm: &[u8],
    module: &mut Module,
    written_memory: &mut bool,
    written_tag: &mut bool,
) -> Result<(), RewriteError> {
    if plan.survey.role == Role::Library || *written_tag {
        return Ok(());
    }
    if !*written_memory {
        let mut memories = MemorySection::new();
        memories.memory(imported_memory(wasm)?);
        module.section(&memories);
        *written_memory = true;
    }
    let mut tags = TagSection::new();
    tags.tag(longjmp_tag(plan));
    module.section(&tags);
    *written_tag = true;
    Ok(())
}

fn imported_memory(wasm: &[u8]) -> Result<wasm_encoder::MemoryType, RewriteError> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::ImportSection(section) = payload? {
            for import in section.into_imports() {
                if let TypeRef::Memory(memory) = import?.ty {
                    return Ok(memory.into());
                }
            }
        }
    }
    Err(RewriteError::Shape("a main module without a memory".into()))
}

fn extra_exports(exports: &mut ExportSection, plan: &Plan) -> Result<(), RewriteError> {
    if let Some(start) = plan.survey.start {
        exports.export(START, ExportKind::Func, plan.function(start)?);
    }
    for index in &plan.survey.mutable_globals {
        exports.export(
            &format!("{MUTABLE_GLOBAL}{index}"),
            ExportKind::Global,
            *index,
        );
    }
    for (name, function) in &plan.survey.landmarks.functions {
        exports.export(name, ExportKind::Func, plan.function(*function)?);
    }
    if plan.survey.role == Role::Main {
        exports.export(LONGJMP_TAG, ExportKind::Tag, 0);
        if !plan.survey.has_memory {
            exports.export("memory", ExportKind::Memory, 0);
        }
    }
    Ok(())
}

fn segment(survey: &Survey, data: wasmparser::Data<'_>) -> Result<Segment, RewriteError> {
    let DataKind::Active {
        memory_index: 0,
        offset_expr,
    } = data.kind
    else {
        return Err(RewriteError::Shape("a passive data segment".into()));
    };
    let mut offset = 0u32;
    for operator in offset_expr.get_operators_reader() {
        match operator? {
            Operator::I32Const { value } => offset = offset.wrapping_add(value as u32),
            Operator::GlobalGet { global_index }
                if Some(global_index) == survey.memory_base_import => {}
            Operator::I32Add | Operator::End => {}
            other => {
                return Err(RewriteError::Shape(format!("a data offset with {other:?}")));
            }
        }
    }
    Ok(Segment {
        offset,
        bytes: data.data.to_vec(),
    })
}
