//! Where everything goes in the rewritten module.

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, ValType};
use wasmparser::ExternalKind;

use super::survey::Survey;
use super::{CALLBACKS, RewriteError, Role};
use crate::landmarks::{KILL, Replacement};

/// A function of the rewritten module that the original did not have.
pub(super) enum Added {
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

/// Where everything goes in the rewritten module.
pub(super) struct Plan {
    pub(super) survey: Survey,
    /// New index of each original function index.
    pub(super) functions: Vec<u32>,
    /// Original indices of the imports that stay.
    pub(super) kept_imports: Vec<u32>,
    pub(super) added: Vec<Added>,
    /// How many types the module had of its own.
    pub(super) original_types: usize,
    /// `() -> ()`
    pub(super) type_unit: u32,
    /// `() -> i32`
    pub(super) type_flag: u32,
    /// `(i32) -> ()`
    pub(super) type_handler: u32,
    /// `(i32, i32) -> ()`
    pub(super) type_set_threw: u32,
    /// `(i32, i32, i32, i32) -> i32`
    pub(super) type_wait_latch: u32,
    /// Types of [`CALLBACKS`].
    pub(super) type_callbacks: [u32; CALLBACKS.len()],
    /// Import index of the first of [`CALLBACKS`], in a main module.
    pub(super) import_callbacks: Option<u32>,
    pub(super) import_take_signals: Option<u32>,
    pub(super) import_stack_is_low: Option<u32>,
    pub(super) import_wait_begin: Option<u32>,
    pub(super) import_wait: Option<u32>,
    pub(super) import_sleep: Option<u32>,
    pub(super) import_set_threw: Option<u32>,
    pub(super) import_send_signal: Option<u32>,
    pub(super) import_yield: Option<u32>,
    pub(super) deliver_signals: Option<u32>,
    /// Which instruction of which function is next.
    pub(super) at: (u32, u32),
}

impl Plan {
    pub(super) fn of(mut survey: Survey) -> Result<Self, RewriteError> {
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

    pub(super) fn function(&self, old: u32) -> Result<u32, RewriteError> {
        let new = self
            .functions
            .get(old as usize)
            .copied()
            .filter(|index| *index != u32::MAX);
        new.ok_or_else(|| RewriteError::Shape(format!("function index {old} is out of range")))
    }

    pub(super) fn exported(&self, name: &str) -> Result<u32, RewriteError> {
        let old = self
            .survey
            .exported_function(name)
            .ok_or_else(|| RewriteError::Shape(format!("the module does not export {name}")))?;
        self.function(old)
    }

    pub(super) fn imported(&self, name: &str) -> Option<u32> {
        let old = self
            .survey
            .imported_functions
            .iter()
            .position(|(n, _)| n == name)?;
        self.functions.get(old).copied()
    }

    pub(super) fn stack_pointer(&self) -> Result<u32, RewriteError> {
        if let Some(index) = self.survey.stack_pointer_import {
            return Ok(index);
        }
        match self.survey.exports.get("__stack_pointer") {
            Some((ExternalKind::Global, index)) => Ok(*index),
            _ => Err(RewriteError::Shape("no __stack_pointer".into())),
        }
    }

    pub(super) fn set_threw(&self) -> Result<u32, RewriteError> {
        if let Some(import) = self.import_set_threw {
            return Ok(import);
        }
        if let Some(import) = self.imported("setThrew") {
            return Ok(import);
        }
        self.exported("setThrew")
    }

    pub(super) fn added_type(&self, added: &Added) -> Result<u32, RewriteError> {
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

    pub(super) fn import_type(&self, name: &str) -> Result<u32, RewriteError> {
        let found = self
            .survey
            .imported_functions
            .iter()
            .find(|(n, _)| n == name);
        found
            .map(|(_, ty)| *ty)
            .ok_or_else(|| RewriteError::Shape(format!("the module does not import {name}")))
    }
}

pub(super) fn value_type(ty: wasmparser::ValType) -> Result<ValType, RewriteError> {
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
