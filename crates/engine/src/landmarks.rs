//! Functions and variables of Postgres that the published module does not export, found by what they do.
//!
//! What a process of Postgres does when it comes to life beside others is not exported. Each function is
//! known by the text of an error that it alone reports, or by its place among the calls of another. A module
//! in which one cannot be found is refused, so a new release is noticed when it is compiled.

pub(crate) mod exit;
pub(crate) mod sessions;

use std::collections::HashMap;

use wasmparser::{DataKind, Operator, Parser, Payload};

use crate::rewrite::RewriteError;

/// Export names of what is found, without and with a place in the process' life.
pub(crate) const INIT_PROCESS: &str = "dormouse.InitProcess";
pub(crate) const PROC_ARRAY_ADD: &str = "dormouse.ProcArrayAdd";
pub(crate) const PGSTAT_BEINIT: &str = "dormouse.pgstat_beinit";
pub(crate) const PGSTAT_BESTART: &str = "dormouse.pgstat_bestart_initial";
pub(crate) const SINVAL_INIT: &str = "dormouse.SharedInvalBackendInit";
pub(crate) const PROC_SIGNAL_INIT: &str = "dormouse.ProcSignalInit";
/// Address of the pointer to the queue of invalidations.
pub(crate) const SINVAL_QUEUE: &str = "dormouse.shmInvalBuffer";
/// Offset in it of the readers' states, of 16 bytes each.
pub(crate) const SINVAL_STATES: &str = "dormouse.procState";
/// Address of the number that a process has among others.
pub(crate) const PROC_NUMBER: &str = "dormouse.MyProcNumber";

/// Address of the pointer to a process' part of asynchronous I/O; of that to all of it; the offset of the
/// parts in that, and the bytes of each.
pub(crate) const AIO_BACKEND: &str = "dormouse.pgaio_my_backend";
pub(crate) const AIO_CONTROL: &str = "dormouse.pgaio_ctl";
pub(crate) const AIO_STATES: &str = "dormouse.pgaio_ctl.backend_state";
pub(crate) const AIO_STATE_BYTES: &str = "dormouse.PgAioBackend";

/// Address of the pointer to what a process knows of the shared statistics.
pub(crate) const PGSTAT_REFERENCES: &str = "dormouse.pgStatEntryRefHash";
/// `raise`, which calls the handler of a signal.
pub(crate) const RAISE: &str = "dormouse.raise";
/// `kill`, which in this build knows no process but its own.
pub(crate) const KILL: &str = "dormouse.kill";

/// `getpid()` of this build, a constant that is compared with `MyProcPid`.
pub const GETPID: u32 = 42;

/// What was found in a main module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Landmarks {
    /// Export names and original function indices.
    pub(crate) functions: Vec<(&'static str, u32)>,
    /// Names and addresses, or offsets.
    pub(crate) values: Vec<(&'static str, u32)>,
    /// Instructions to replace, by the index among the defined functions and among the instructions of one:
    /// where a process' own number is compared with [`GETPID`], a word is loaded instead that always holds
    /// that. There is more than one process here, and each is right about itself.
    pub(crate) replaced: HashMap<(u32, u32), Replacement>,
}

/// What stands in the place of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// This constant.
    Constant(u32),
    /// Something that leaves a small number as it is.
    Nothing,
}

/// Of the guest's C library.
const SIGUSR1: u32 = 10;

impl Landmarks {
    /// The original index of a function.
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        let found = self.functions.iter().find(|(known, _)| *known == name);
        found.map(|(_, function)| *function)
    }
}

/// An instruction that tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Constant(u32),
    Load { offset: u32 },
    Call(u32),
}

/// The defined functions with what tells something of each.
struct Code {
    bodies: Vec<Vec<Step>>,
    /// Where a variable, or a word of what it points to, is compared with [`GETPID`]: function, instruction, the
    /// variable's address, and whether it is a pointer.
    compared: Vec<(u32, u32, u32, bool)>,
    /// Where a byte is loaded: function, instruction, and its address.
    bytes: Vec<(u32, u32, u32)>,
    imported: u32,
    /// Address and bytes of each data segment.
    data: Vec<(u32, Vec<u8>)>,
    exports: HashMap<String, u32>,
    /// Addresses that are exported.
    globals: HashMap<String, u32>,
}

impl Code {
    fn of(wasm: &[u8]) -> Result<Self, RewriteError> {
        let mut code = Self {
            bodies: Vec::new(),
            compared: Vec::new(),
            bytes: Vec::new(),
            imported: 0,
            data: Vec::new(),
            exports: HashMap::new(),
            globals: HashMap::new(),
        };
        let mut constants = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let is_function = matches!(import?.ty, wasmparser::TypeRef::Func(_));
                        code.imported += u32::from(is_function);
                    }
                }
                Payload::GlobalSection(section) => {
                    for global in section {
                        let first = global?.init_expr.get_operators_reader().read()?;
                        constants.push(match first {
                            Operator::I32Const { value } => Some(value as u32),
                            _ => None,
                        });
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        match export.kind {
                            wasmparser::ExternalKind::Func => {
                                code.exports.insert(export.name.to_owned(), export.index);
                            }
                            wasmparser::ExternalKind::Global => {
                                if let Some(Some(value)) = constants.get(export.index as usize) {
                                    code.globals.insert(export.name.to_owned(), *value);
                                }
                            }
                            _ => {}
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let mut steps = Vec::new();
                    let mut before = [None, None, None];
                    for (at, operator) in (0u32..).zip(body.get_operators_reader()?) {
                        let operator = operator?;
                        if matches!(operator, Operator::I32Const { value } if value as u32 == GETPID)
                            && let Some((back, variable, is_pointer)) = compared(&before)
                        {
                            let function = code.bodies.len() as u32;
                            let found = (function, at - back, variable, is_pointer);
                            code.compared.push(found);
                        }
                        if let (Some(Operator::I32Const { value }), Operator::I32Load8U { memarg }) =
                            (&before[2], &operator)
                            && memarg.offset == 0
                        {
                            let function = code.bodies.len() as u32;
                            code.bytes.push((function, at - 1, *value as u32));
                        }
                        let [_, second, third] = before;
                        before = [second, third, Some(operator.clone())];
                        steps.extend(match operator {
                            Operator::I32Const { value } => Some(Step::Constant(value as u32)),
                            Operator::I32Load { memarg } => Some(Step::Load {
                                offset: memarg.offset as u32,
                            }),
                            Operator::Call { function_index } => Some(Step::Call(function_index)),
                            _ => None,
                        });
                    }
                    code.bodies.push(steps);
                }
                Payload::DataSection(section) => {
                    for data in section {
                        let data = data?;
                        if let DataKind::Active { offset_expr, .. } = data.kind
                            && let Operator::I32Const { value } =
                                offset_expr.get_operators_reader().read()?
                        {
                            code.data.push((value as u32, data.data.to_vec()));
                        }
                    }
                }
                _ => {}
            }
        }
        code.data.sort_by_key(|(at, _)| *at);
        Ok(code)
    }

    /// See [`Landmarks::replaced`].
    fn own_ids(&self) -> Result<HashMap<(u32, u32), Replacement>, RewriteError> {
        let word = GETPID.to_le_bytes();
        let always = self.constant(word)?;
        let (own, process) = (self.globals.get("MyProcPid"), self.globals.get("MyProc"));
        let mut replaced = HashMap::new();
        for (function, at, variable, is_pointer) in &self.compared {
            let known = if *is_pointer { process } else { own };
            if Some(variable) == known {
                replaced.insert((*function, *at), Replacement::Constant(always));
            }
            if Some(variable) == known && *is_pointer {
                replaced.insert((*function, at + 2), Replacement::Nothing);
            }
        }
        Ok(replaced)
    }

    /// Where `fsync` is asked for in the part of a checkpoint that syncs files: a byte that is always zero.
    ///
    /// Each process notes the files that it has written, and forgets those that it drops itself: one that
    /// another has dropped would end the server. Here the sync of one file does nothing; all of them become
    /// durable at once, with the control file that is written after them.
    fn syncs_of_files(&self) -> Result<((u32, u32), Replacement), RewriteError> {
        let shape = || RewriteError::Shape("enableFsync is not found".into());
        let checkpoint = self.that_says(&["checkpoint sync: number=%d file=%s time=%.3f ms"])?;
        let exported = |name: &str| self.exports.get(name).copied().ok_or_else(shape);
        let others = [exported("XLogFlush")?, exported("durable_rename")?];
        let reads = |function: u32, address: u32| {
            let body = function - self.imported;
            self.bytes
                .iter()
                .any(|(found, _, byte)| (*found, *byte) == (body, address))
        };
        let mut found = self.bytes.iter().filter(|(function, _, address)| {
            *function == checkpoint - self.imported
                && others.iter().all(|other| reads(*other, *address))
        });
        let (Some((function, at, _)), None) = (found.next(), found.next()) else {
            return Err(shape());
        };
        let zero = self.constant(GETPID.to_le_bytes())? + 1;
        Ok(((*function, *at), Replacement::Constant(zero)))
    }

    /// Where these four bytes always are: what is read only comes first.
    fn constant(&self, word: [u8; 4]) -> Result<u32, RewriteError> {
        let found = self.data.iter().find_map(|(at, bytes)| {
            let (words, _) = bytes.as_chunks::<4>();
            let index = words.iter().position(|found| *found == word)?;
            Some(at + 4 * index as u32)
        });
        found.ok_or_else(|| RewriteError::Shape("no word of 42".into()))
    }

    fn steps(&self, function: u32) -> &[Step] {
        let body = function.checked_sub(self.imported);
        body.and_then(|body| self.bodies.get(body as usize))
            .map_or(&[], Vec::as_slice)
    }

    /// The one function that names all of the texts.
    fn that_says(&self, texts: &[&str]) -> Result<u32, RewriteError> {
        let addresses: Vec<Vec<u32>> = texts.iter().map(|text| self.addresses(text)).collect();
        let says = |steps: &[Step]| {
            addresses.iter().all(|addresses| {
                steps
                    .iter()
                    .any(|step| matches!(step, Step::Constant(value) if addresses.contains(value)))
            })
        };
        self.the_one(says, &texts.join("; "))
    }

    /// The first variable that is read after the one function that names the text has named it.
    fn after(&self, text: &str) -> Result<u32, RewriteError> {
        let addresses = self.addresses(text);
        let steps = self.steps(self.that_says(&[text])?);
        let named = |step: &Step| matches!(step, Step::Constant(at) if addresses.contains(at));
        let rest = steps
            .iter()
            .position(named)
            .map_or(steps, |at| &steps[at..]);
        let read = rest.windows(2).find_map(|steps| match *steps {
            [Step::Constant(address), Step::Load { offset: 0 }] => Some(address),
            _ => None,
        });
        read.ok_or_else(|| RewriteError::Shape(format!("nothing is read after {text:?}")))
    }

    /// Where a C string is.
    fn addresses(&self, text: &str) -> Vec<u32> {
        let wanted = text.as_bytes();
        // Zeros between segments are left out of them.
        let is_end = |byte: Option<&u8>| byte.is_none_or(|byte| *byte == 0);
        let mut addresses = Vec::new();
        for (at, bytes) in &self.data {
            for (offset, part) in bytes.windows(wanted.len()).enumerate() {
                let before = offset.checked_sub(1).and_then(|before| bytes.get(before));
                if part == wanted && is_end(before) && is_end(bytes.get(offset + wanted.len())) {
                    addresses.push(at + offset as u32);
                }
            }
        }
        addresses
    }

    /// Where a C string is, or the end of a longer one, which serves as well.
    fn endings(&self, text: &str) -> Vec<u32> {
        let wanted = [text.as_bytes(), &[0]].concat();
        let mut addresses = Vec::new();
        for (at, bytes) in &self.data {
            for (offset, part) in bytes.windows(wanted.len()).enumerate() {
                if part == wanted {
                    addresses.push(at + offset as u32);
                }
            }
        }
        addresses
    }

    /// A word of the data; zero where no segment has one.
    fn word(&self, at: u32) -> u32 {
        let byte = |at: u32| {
            // They are in order.
            let after = self.data.partition_point(|(start, _)| *start <= at);
            let (start, bytes) = self.data[..after].last()?;
            bytes.get((at - start) as usize).copied()
        };
        let byte = |at: u32| byte(at).unwrap_or(0);
        u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)])
    }

    fn the_one(&self, is_it: impl Fn(&[Step]) -> bool, what: &str) -> Result<u32, RewriteError> {
        let mut found = (self.imported..)
            .zip(&self.bodies)
            .filter(|(_, steps)| is_it(steps));
        match (found.next(), found.next()) {
            (Some((function, _)), None) => Ok(function),
            _ => Err(RewriteError::Shape(format!("no one function: {what}"))),
        }
    }
}

/// Of the instructions before a comparison, that which loads a variable, or what its pointer points to: how
/// far back it begins, the variable's address, and whether that is a pointer.
fn compared(before: &[Option<Operator<'_>>; 3]) -> Option<(u32, u32, bool)> {
    /// Of `pid` in `PGPROC`.
    const PID: u64 = 44;
    match before {
        [
            Some(Operator::I32Const { value }),
            Some(Operator::I32Load { memarg: pointer }),
            Some(Operator::I32Load { memarg }),
        ] if pointer.offset == 0 && memarg.offset == PID => Some((3, *value as u32, true)),
        [
            _,
            Some(Operator::I32Const { value }),
            Some(Operator::I32Load { memarg }),
        ] if memarg.offset == 0 => Some((2, *value as u32, false)),
        _ => None,
    }
}

/// Finds all of them in a module of Postgres; nothing in another, which has no processes.
pub(crate) fn find(wasm: &[u8]) -> Result<Landmarks, RewriteError> {
    let code = Code::of(wasm)?;
    let init_process = code.that_says(&["you already exist", "sorry, too many clients already"])?;
    let sinval_init =
        code.that_says(&["sinval slot for backend %d is already in use by process %d"])?;
    let proc_signal_init =
        code.that_says(&["unexpected MyProcNumber %d in ProcSignalInit (max %d)"])?;
    let calls = |steps: &[Step], function| steps.contains(&Step::Call(function));
    let init_postgres = code.the_one(
        |steps| calls(steps, sinval_init) && calls(steps, proc_signal_init),
        "InitPostgres",
    )?;
    let on_shmem_exit = *code
        .exports
        .get("on_shmem_exit")
        .ok_or_else(|| RewriteError::Shape("no on_shmem_exit".into()))?;
    let steps = code.steps(init_postgres);
    let in_order: Vec<u32> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Call(function) => Some(*function),
            _ => None,
        })
        .collect();
    let at = in_order.iter().position(|call| *call == on_shmem_exit);
    let around = at.and_then(|at| in_order.get(at.checked_sub(1)?..at + 6));
    let Some(
        &[
            proc_array_add,
            _,
            pgstat_beinit,
            pgstat_bestart,
            first,
            second,
            _,
        ],
    ) = around
    else {
        return Err(RewriteError::Shape("InitPostgres is another".into()));
    };
    if (first, second) != (sinval_init, proc_signal_init) {
        return Err(RewriteError::Shape("InitPostgres is another".into()));
    }
    let loaded: Vec<u32> = code
        .steps(sinval_init)
        .windows(2)
        .filter_map(|steps| match steps {
            [Step::Constant(address), Step::Load { offset: 0 }] => Some(*address),
            _ => None,
        })
        .collect();
    let states = code.steps(sinval_init).iter().find_map(|step| match step {
        Step::Load { offset } if *offset > 4096 => Some(*offset),
        _ => None,
    });
    let (Some(&[number, queue]), Some(states)) = (loaded.first_chunk::<2>(), states) else {
        return Err(RewriteError::Shape(
            "SharedInvalBackendInit is another".into(),
        ));
    };
    let send_signal = code.that_says(&["SendProcSignal"])?;
    let kill = code
        .steps(send_signal)
        .windows(2)
        .find_map(|steps| match *steps {
            [Step::Constant(SIGUSR1), Step::Call(function)] => Some(function),
            _ => None,
        });
    let kill = kill.ok_or_else(|| RewriteError::Shape("SendProcSignal is another".into()))?;
    let raise = match code.steps(kill) {
        [Step::Constant(GETPID), Step::Call(raise), ..] => *raise,
        _ => return Err(RewriteError::Shape("kill is another".into())),
    };
    let references = code.after("PgStat Shared Ref Hash")?;
    let aio_init = code.that_says(&["aio requires a normal PGPROC"])?;
    let aio = code
        .steps(aio_init)
        .windows(5)
        .find_map(|steps| match *steps {
            [
                Step::Constant(backend),
                Step::Constant(control),
                Step::Load { offset: 0 },
                Step::Load { offset },
                Step::Constant(bytes),
            ] if bytes > 1 => Some([backend, control, offset, bytes]),
            _ => None,
        });
    let Some([aio_backend, aio_control, aio_states, aio_bytes]) = aio else {
        return Err(RewriteError::Shape("pgaio_init_backend is another".into()));
    };
    let mut replaced = code.own_ids()?;
    let (place, nothing) = code.syncs_of_files()?;
    replaced.insert(place, nothing);
    let mut functions = sessions::functions(&code)?;
    functions.extend([
        (INIT_PROCESS, init_process),
        (PROC_ARRAY_ADD, proc_array_add),
        (PGSTAT_BEINIT, pgstat_beinit),
        (PGSTAT_BESTART, pgstat_bestart),
        (SINVAL_INIT, sinval_init),
        (PROC_SIGNAL_INIT, proc_signal_init),
        (RAISE, raise),
        (KILL, kill),
    ]);
    let mut values = sessions::values(&code, pgstat_beinit, proc_signal_init)?;
    values.extend(exit::values(
        &code,
        init_postgres,
        [init_process, sinval_init, proc_signal_init, pgstat_beinit],
    )?);
    values.extend([
        (SINVAL_QUEUE, queue),
        (SINVAL_STATES, states),
        (PROC_NUMBER, number),
        (PGSTAT_REFERENCES, references),
        (AIO_BACKEND, aio_backend),
        (AIO_CONTROL, aio_control),
        (AIO_STATES, aio_states),
        (AIO_STATE_BYTES, aio_bytes),
    ]);
    Ok(Landmarks {
        functions,
        values,
        replaced,
    })
}
