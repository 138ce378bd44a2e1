//! Source text: types taken out, imports found and replaced. By oxc, a parser of JavaScript and TypeScript.

use crate::Refusal;
use oxc::{
    allocator::Allocator,
    ast::ast::Program,
    codegen::Codegen,
    diagnostics::OxcDiagnostic,
    parser::Parser,
    semantic::SemanticBuilder,
    span::SourceType,
    transformer::{TransformOptions, Transformer},
};
use std::{ops::Range, path::Path};

/// An import of a module by a name that is written down.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// What is imported.
    pub(super) specifier: String,
    /// Where that stands in the source, quotes included.
    pub(super) literal: Range<usize>,
    /// Whether it is `import()`, which may never run.
    pub(super) dynamic: bool,
}

/// JavaScript of TypeScript: without types, and what TypeScript alone has (enums, parameter properties) written out.
pub(super) fn javascript(text: &str, path: &str) -> Result<String, Refusal> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, text, SourceType::ts()).parse();
    let errors: Vec<_> = parsed.diagnostics.errors().collect();
    if parsed.panicked || !errors.is_empty() {
        return Err(refused(text, path, &errors));
    }
    let mut program: Program<'_> = parsed.program;
    let semantic = SemanticBuilder::new().with_enum_eval(true).build(&program);
    let errors: Vec<_> = semantic.diagnostics.errors().collect();
    if !errors.is_empty() {
        return Err(refused(text, path, &errors));
    }
    let scoping = semantic.semantic.into_scoping();
    let options = TransformOptions::default();
    let done = Transformer::new(&allocator, Path::new(path), &options)
        .build_with_scoping(scoping, &mut program);
    let errors: Vec<_> = done.diagnostics.errors().collect();
    if !errors.is_empty() {
        return Err(refused(text, path, &errors));
    }
    Ok(Codegen::new().build(&program).code)
}

fn refused(text: &str, path: &str, errors: &[&OxcDiagnostic]) -> Refusal {
    let line = |error: &&OxcDiagnostic| {
        let label = error.labels.first();
        let place = label.map_or_else(String::new, |label| {
            let (line, column) = position(text, label.offset() as usize);
            format!(":{line}:{column}")
        });
        format!("{path}{place}: {}", error.message)
    };
    let lines: Vec<String> = errors.iter().map(line).collect();
    let first = lines.first().cloned();
    let first = first.unwrap_or_else(|| format!("{path} is no TypeScript"));
    Refusal::bad(format!("TypeScript does not compile: {first}")).detailed(lines)
}

/// Line and column of a byte, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count());
    (line, column + 1)
}

/// The imports of JavaScript, in the order of the source. None of what does not parse: the runtime says what is wrong.
pub(super) fn imports(code: &str) -> Vec<Import> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, code, SourceType::mjs()).parse();
    let record = parsed.module_record;
    let mut imports = Vec::new();
    for (name, requests) in &record.requested_modules {
        imports.extend(requests.iter().map(|request| Import {
            specifier: name.as_str().to_owned(),
            literal: request.span.start as usize..request.span.end as usize,
            dynamic: false,
        }));
    }
    for import in &record.dynamic_imports {
        let span = import.module_request.start as usize..import.module_request.end as usize;
        let literal = code.get(span.clone()).and_then(plain_literal);
        imports.extend(literal.map(|specifier| Import {
            specifier: specifier.to_owned(),
            literal: span,
            dynamic: true,
        }));
    }
    imports.sort_by_key(|import| import.literal.start);
    imports
}

/// The content of a string literal that has nothing to unescape.
fn plain_literal(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let plain = !inside.contains(['\\', '\n', quote]);
    plain.then_some(inside)
}

/// Puts other specifiers in the place of literals. Lines stay where they are.
pub(super) fn replace(code: &mut String, mut literals: Vec<(Range<usize>, String)>) {
    literals.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    for (range, specifier) in literals {
        let quoted = serde_json::Value::from(specifier).to_string();
        code.replace_range(range, &quoted);
    }
}
