use super::*;

fn archive(files: &[(&str, &str)]) -> Archive {
    let files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    Archive::from_files(files, DeployLimits::default()).unwrap()
}

fn built(files: &[(&str, &str)]) -> Result<Backend, Refusal> {
    let archive = archive(files);
    let entrypoint = entrypoint(&archive).unwrap();
    backend(&archive, entrypoint, DeployLimits::default())
}

fn refused(files: &[(&str, &str)]) -> Refusal {
    let refused = built(files).unwrap_err();
    assert_eq!(refused.status, 400);
    refused
}

fn code<'a>(backend: &'a Backend, name: &str) -> &'a str {
    let named = backend.modules.iter().find(|module| module.name == name);
    match &named.unwrap().code {
        Code::Script(text) => text,
        Code::Wasm(_) => panic!("{name} is no script"),
    }
}

#[test]
fn the_entry_is_the_first_of_the_platforms_list() {
    let of = |paths: &[&str]| {
        let files: Vec<_> = paths.iter().map(|path| (*path, "x")).collect();
        entrypoint(&archive(&files))
    };
    assert_eq!(
        of(&["dist/server/index.js", "x"]),
        Some("dist/server/index.js")
    );
    assert_eq!(
        of(&["dist/server/index.js", "backend/index.mjs"]),
        Some("backend/index.mjs")
    );
    assert_eq!(
        of(&["worker/index.js", "worker/index.ts"]),
        Some("worker/index.ts")
    );
    assert_eq!(of(&["dist/server/index.ts", "x"]), None);
    assert!(
        requirement().starts_with("worker/index.ts, ")
            && requirement().ends_with(", or dist/server/index.mjs")
    );
    assert_eq!(
        roots(&archive(&[("backend/a.js", ""), ("x", "")])),
        ["backend"]
    );
}

#[test]
fn javascript_is_passed_on_as_it_is() {
    let text = "// kept\nimport fs from 'node:fs';\nimport { connect } from \"cloudflare:sockets\";\nexport default { fetch() {} };\n";
    let backend = built(&[("dist/server/index.js", text)]).unwrap();
    assert_eq!(backend.entrypoint, "dist/server/index.js");
    assert_eq!(backend.modules.len(), 1);
    assert_eq!(code(&backend, "index.js"), text);
    assert_eq!(backend.compatibility, Compatibility::default());
}

/// Acceptance behaviour 13.
#[test]
fn typescript_with_relative_imports() {
    let backend = built(&[
        (
            "backend/index.ts",
            "import { rows, type Row } from './lib/rows';\nimport type { Env } from './types';\nimport { Unused } from './types';\n\
             enum Color { Red = 1, Green }\nclass A { constructor(private n: number) {} get(): number { return this.n!; } }\n\
             export default { async fetch(request: Request, env: Env): Promise<Response> {\n  const r = rows as Row[];\n\
             return Response.json({ r, c: Color.Green, a: new A(3).get() }); } } satisfies object;\n",
        ),
        ("backend/lib/rows/index.mts", "export * from '../util.js'; export interface Row { n: number }\nexport const rows = [1];"),
        ("backend/lib/util.js", "export const one = 1; export const more = () => import('../lazy');"),
        ("backend/lazy.ts", "export const lazy: string = 'x';"),
        ("backend/types.ts", "export interface Env {} ; export class Unused {}"),
        ("backend/not-imported.ts", "syntax error {"),
    ])
    .unwrap();
    let names: Vec<_> = backend.modules.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(
        names,
        ["index.ts", "lib/rows/index.mts", "lib/util.js", "lazy.ts"]
    );
    let index = code(&backend, "index.ts");
    assert!(index.contains("from \"./lib/rows/index.mts\""), "{index}");
    assert!(!index.contains("private") && !index.contains("interface") && !index.contains("types"));
    assert!(index.contains("this.n = n"), "{index}");
    assert!(code(&backend, "lib/util.js").contains("import(\"../lazy.ts\")"));
    assert!(code(&backend, "lib/rows/index.mts").contains("\"../util.js\""));
}

/// As bundlers leave them: their bytes are the module, and nobody reads them.
#[test]
fn webassembly_is_imported() {
    let wasm = b"\0asm\x01\0\0\0".to_vec();
    let text = "import a from './a.wasm'; const b = await import('./lib/b.wasm?module'); import './c.wasm?url';";
    let files = [
        ("worker/index.js", text.as_bytes().to_vec()),
        ("worker/a.wasm", wasm.clone()),
        ("worker/lib/b.wasm", wasm.clone()),
        ("worker/c.wasm", wasm.clone()),
        ("worker/not-imported.wasm", wasm.clone()),
    ];
    let files = files.map(|(path, bytes)| (path.to_owned(), bytes));
    let archive = Archive::from_files(files.clone(), DeployLimits::default()).unwrap();
    let refused = backend(&archive, "worker/index.js", DeployLimits::default()).unwrap_err();
    assert_eq!(
        refused.message,
        "Could not resolve ./c.wasm?url from worker/index.js."
    );
    let mut files = files.to_vec();
    files[0].1 = text.replace(" import './c.wasm?url';", "").into_bytes();
    let archive = Archive::from_files(files, DeployLimits::default()).unwrap();
    let backend = backend(&archive, "worker/index.js", DeployLimits::default()).unwrap();
    let modules: Vec<_> = backend
        .modules
        .iter()
        .map(|m| (&*m.name, &m.code))
        .collect();
    assert_eq!(
        modules[1..],
        [
            ("a.wasm", &Code::Wasm(wasm.clone())),
            ("lib/b.wasm", &Code::Wasm(wasm))
        ]
    );
    assert_eq!(
        code(&backend, "index.js"),
        "import a from './a.wasm'; const b = await import(\"./lib/b.wasm\");"
    );
}

#[test]
fn imports_are_looked_up_as_the_platform_does() {
    let backend = built(&[
        ("worker/index.js", "import './a'; import \"/worker/b/c\"; export {x} from './b/../d.mjs'; import './a.js';"),
        ("worker/a", "no module"),
        ("worker/a.js", "import './index.js'"),
        ("worker/a.ts", "later in the order"),
        ("worker/b/c.ts", "import '../d'"),
        ("worker/d.mjs", "export const x = 1"),
    ])
    .unwrap();
    let index = code(&backend, "index.js");
    assert_eq!(
        index,
        "import \"./a.js\"; import \"./b/c.ts\"; export {x} from \"./d.mjs\"; import './a.js';"
    );
    assert!(code(&backend, "b/c.ts").contains("\"../d.mjs\""));
}

/// Acceptance behaviour 11: unresolved and bare imports, in the platform's words.
#[test]
fn imports_that_lead_nowhere_are_refused() {
    let entry = "import postgres from 'postgres'; export default {}";
    let bare = refused(&[
        (
            "backend/index.ts",
            "import postgres from 'postgres'; postgres();",
        ),
        ("x", ""),
    ]);
    assert_eq!(
        bare.message,
        "Native deploy currently supports only relative imports inside backend/. Unsupported import: postgres"
    );
    assert!(bare.details[0].contains("bundle it"));
    assert!(
        refused(&[("worker/index.js", entry)])
            .message
            .contains("inside worker/")
    );
    let of = |import: &str| {
        let text = format!("import '{import}';");
        refused(&[
            ("worker/index.js", &text),
            ("other/a.js", "1"),
            ("worker/x.json", "{}"),
        ])
        .message
    };
    assert_eq!(of("./x"), "Could not resolve ./x from worker/index.js.");
    assert_eq!(
        of("../other/a.js"),
        "Could not resolve ../other/a.js from worker/index.js."
    );
    assert_eq!(
        of("../../../etc/passwd"),
        "Could not resolve ../../../etc/passwd from worker/index.js."
    );
    assert_eq!(
        of("./x.json"),
        "Could not resolve ./x.json from worker/index.js."
    );
    assert!(of("events").ends_with("Unsupported import: events"));
    assert!(of("https://x/y.js").ends_with("Unsupported import: https://x/y.js"));
}

#[test]
fn imports_that_may_never_run_and_words_in_strings_are_left_alone() {
    let text = "const a = \"import x from 'postgres'\"; // import 'pg'\nif (false) await import('pg'); await import(a);\nexport default {}";
    let backend = built(&[("worker/index.js", text)]).unwrap();
    assert_eq!(code(&backend, "index.js"), text);
}

#[test]
fn typescript_that_is_none_is_refused_with_its_place() {
    let refusal = refused(&[("worker/index.ts", "const a: number = 1;\nconst b = ;\n")]);
    assert!(
        refusal
            .message
            .starts_with("TypeScript does not compile: worker/index.ts:2:11: "),
        "{}",
        refusal.message
    );
    assert_eq!(
        refused(&[("worker/index.ts", " \n")]).message,
        "Worker module worker/index.ts is empty."
    );
}

/// The document's `wrangler.json`.
#[test]
fn compatibility_stands_beside_the_entry() {
    let entry = ("dist/server/index.js", "export default {}");
    let of = |text: &str| built(&[entry, ("dist/server/wrangler.json", text)]);
    let flags = of("{\n\"compatibility_flags\": [\"nodejs_compat_v2\"]\n}").unwrap();
    assert_eq!(flags.compatibility.flags, ["nodejs_compat_v2"]);
    assert_eq!(flags.compatibility.date, COMPATIBILITY_DATE);
    let both =
        of(r#"{"compatibility_date":" 2026-11-01 ","compatibility_flags":["a","",7,"a","b"]}"#);
    let both = both.unwrap().compatibility;
    assert_eq!(
        (both.date.as_str(), both.flags.join(",").as_str()),
        ("2026-11-01", "a,b")
    );
    assert!(
        of("{")
            .unwrap_err()
            .message
            .starts_with("Invalid dist/server/wrangler.json: ")
    );
    let elsewhere = built(&[entry, ("wrangler.json", r#"{"compatibility_flags":["x"]}"#)]).unwrap();
    assert!(elsewhere.compatibility.flags.is_empty());
}

#[test]
fn modules_have_a_limit() {
    let files = archive(&[("worker/index.js", "import './a'"), ("worker/a.js", "1")]);
    let limits = DeployLimits {
        modules_max: 1,
        ..DeployLimits::default()
    };
    let refused = backend(&files, "worker/index.js", limits).unwrap_err();
    assert!(refused.message.contains("modules_max"));
}

#[test]
fn the_other_side_of_the_compiler() {
    let files = archive(&[
        ("worker/index.ts", "export default {} as object;"),
        ("secret", "x"),
    ]);
    let request = super::child::request_for_tests(&files, "worker/index.ts");
    assert!(!String::from_utf8_lossy(&request).contains("secret"));
    let mut output = Vec::new();
    answer(request.as_slice(), &mut output).unwrap();
    assert!(
        String::from_utf8(output)
            .unwrap()
            .contains("export default {}")
    );
}
