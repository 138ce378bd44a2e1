//! What one pass over a module finds before anything is written.

use std::collections::HashMap;

use wasmparser::{Dylink0Subsection, ExternalKind, Operator, Parser, Payload, TypeRef};

use super::{Dylink, RewriteError, Role};
use crate::landmarks::{self, Landmarks};

/// What one pass over the module finds before anything is written.
pub(super) struct Survey {
    pub(super) role: Role,
    pub(super) types: Vec<wasmparser::FuncType>,
    /// Name and type of each imported function.
    pub(super) imported_functions: Vec<(String, u32)>,
    pub(super) defined_functions: u32,
    pub(super) exports: HashMap<String, (ExternalKind, u32)>,
    pub(super) imported_globals: u32,
    pub(super) mutable_globals: Vec<u32>,
    /// Values of the immutable `i32` globals, by index.
    pub(super) constants: HashMap<u32, u32>,
    /// Table slot of each function that an element segment puts at a constant place.
    pub(super) slots: HashMap<u32, u32>,
    pub(super) imported_tags: u32,
    pub(super) has_memory: bool,
    /// Slots of the module's own table.
    pub(super) table_slots: u32,
    pub(super) start: Option<u32>,
    pub(super) dylink: Dylink,
    /// Index of the imported `__stack_pointer`, if it is imported.
    pub(super) stack_pointer_import: Option<u32>,
    /// Index of the imported `__memory_base`, if any.
    pub(super) memory_base_import: Option<u32>,
    /// Of Postgres itself.
    pub(super) landmarks: Landmarks,
}

impl Survey {
    pub(super) fn of(wasm: &[u8], role: Role) -> Result<Self, RewriteError> {
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
    pub(super) fn symbols(&self) -> Vec<(String, u32)> {
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
    pub(super) fn function_slots(&self) -> Vec<(String, u32)> {
        let mut slots: Vec<_> = self
            .exports
            .iter()
            .filter(|(_, (kind, _))| *kind == ExternalKind::Func)
            .filter_map(|(name, (_, index))| Some((name.clone(), *self.slots.get(index)?)))
            .collect();
        slots.sort();
        slots
    }

    pub(super) fn exported_function(&self, name: &str) -> Option<u32> {
        match self.exports.get(name) {
            Some((ExternalKind::Func, index)) => Some(*index),
            _ => None,
        }
    }

    /// Index of the type, appended if the module does not have it.
    pub(super) fn type_index(
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
