//! PostgreSQL in wasm: module, linker, host calls, templates, backend, limits. The only room with wasmtime and unsafe.
