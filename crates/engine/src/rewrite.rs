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

mod bodies;
mod plan;
mod sections;
mod survey;

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    CodeSection, ConstExpr, ElementSection, Elements, ExportSection, FunctionSection,
    GlobalSection, MemorySection, Module, TypeSection,
};
use wasmparser::{Parser, Payload};

use self::plan::{Plan, value_type};
use self::sections::{before_globals, extra_exports, imports, segment, tables};
use self::survey::Survey;

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
pub(crate) const SENT: [(i32, i32); 3] = [(2, 10), (SENT_CANCEL, 2), (SENT_TERMINATE, 15)];
/// The bit of `SIGINT`.
pub(crate) const SENT_CANCEL: i32 = 4;
/// The bit of `SIGTERM`.
pub(crate) const SENT_TERMINATE: i32 = 8;

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
