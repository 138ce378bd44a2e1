//! The sections of the rewritten module that are not as they were.

use wasm_encoder::reencode::Reencode;
use wasm_encoder::{
    EntityType, ExportKind, ExportSection, ImportSection, MemorySection, Module, TableSection,
    TagKind, TagSection, TagType,
};
use wasmparser::{DataKind, Operator, Parser, Payload, TypeRef};

use super::plan::Plan;
use super::survey::Survey;
use super::{
    CALLBACKS, HOST, LONGJMP_TAG, MUTABLE_GLOBAL, RewriteError, Role, SEND_SIGNAL, SLEEP,
    STACK_IS_LOW, START, Segment, TAKE_SIGNALS, WAIT, WAIT_BEGIN, YIELD,
};

/// The module's own table with room for the callbacks; other tables as they are.
pub(super) fn tables(
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

pub(super) fn imports(
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

pub(super) fn longjmp_tag(plan: &Plan) -> TagType {
    TagType {
        kind: TagKind::Exception,
        func_type_idx: plan.type_unit,
    }
}

/// Memory and tag come between tables and globals in the order of sections.
pub(super) fn before_globals(
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

pub(super) fn imported_memory(wasm: &[u8]) -> Result<wasm_encoder::MemoryType, RewriteError> {
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

pub(super) fn extra_exports(exports: &mut ExportSection, plan: &Plan) -> Result<(), RewriteError> {
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

pub(super) fn segment(
    survey: &Survey,
    data: wasmparser::Data<'_>,
) -> Result<Segment, RewriteError> {
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
