//! workerd's configuration for one backend, as the message that it reads from its standard input.
//!
//! Numbers of fields and sizes of structs are those of workerd's published schema; of its schema nothing else is
//! needed: one worker, its text and `hyperdrive` bindings, an `external` service for each socket, the network.

use crate::{
    BindingAddress,
    capnp::{Message, Shape, Struct, TooLarge},
    modules::{Backend, Code, Module},
};

/// The name of the socket that requests come in by.
pub(crate) const SOCKET: &str = "http";

/// The name of the service that is the backend.
const BACKEND: &str = "backend";

/// The service of that name is where a worker's global `fetch` and `connect` go.
const INTERNET: &str = "internet";

/// What a backend's process is.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeConfig<'a> {
    pub(crate) backend: &'a Backend,
    /// Names and texts in `env`.
    pub(crate) values: Vec<(&'a str, &'a str)>,
    /// Names in `env`, and what is behind them.
    pub(crate) databases: &'a [(String, BindingAddress)],
    /// Kinds of addresses that can be reached; no others ever can.
    pub(crate) allow: &'a [String],
    /// Of them, the ranges that cannot.
    pub(crate) deny: &'a [String],
    /// The most of V8's heap, in MiB.
    pub(crate) heap_mib_max: u64,
}

const CONFIG: Shape = shape(1, 7);
const SERVICE: Shape = shape(1, 2);
const SOCKETS: Shape = shape(2, 5);
const HTTP_OPTIONS: Shape = shape(1, 5);
const DESIGNATOR: Shape = shape(1, 3);
const WORKER: Shape = shape(1, 16);
const MODULE: Shape = shape(1, 3);
const BINDING: Shape = shape(1, 6);
const EXTERNAL: Shape = shape(1, 4);
const NETWORK: Shape = shape(0, 3);
const TLS_OPTIONS: Shape = shape(1, 3);

/// Which member of a union there is.
const SERVICE_WORKER: u16 = 1;
const SERVICE_NETWORK: u16 = 2;
const SERVICE_EXTERNAL: u16 = 3;
const EXTERNAL_TCP: u16 = 2;
const MODULE_WASM: u16 = 4;
const BINDING_TEXT: u16 = 2;
const BINDING_HYPERDRIVE: u16 = 16;

/// The bit of `Config.structuredLogging`, and of `TlsOptions.trustBrowserCas`.
const STRUCTURED_LOGGING: u16 = 0;
const TRUST_BROWSER_CAS: u16 = 1;

const fn shape(data: u16, pointers: u16) -> Shape {
    Shape { data, pointers }
}

/// The message for a backend.
pub(crate) fn message(config: &RuntimeConfig<'_>) -> Result<Vec<u8>, TooLarge> {
    let (mut message, root) = Message::new(CONFIG);
    let count = 2 + config.databases.len();
    let services = message.structures(root, 0, SERVICE, count)?;
    let (own, externals) = services.split_at(2);
    worker(&mut message, own[0], config)?;
    network(&mut message, own[1], config)?;
    for ((name, address), service) in config.databases.iter().zip(externals) {
        external(&mut message, *service, name, address)?;
    }
    let sockets = message.structures(root, 1, SOCKETS, 1)?;
    message.text(sockets[0], 0, SOCKET)?;
    message.structure(sockets[0], 2, HTTP_OPTIONS);
    designator(&mut message, sockets[0], 4, BACKEND)?;
    let heap = format!("--max-heap-size={}", config.heap_mib_max);
    message.texts(root, 2, &[heap])?;
    message.set_bit(root, STRUCTURED_LOGGING);
    message.finish()
}

fn worker(
    message: &mut Message,
    service: Struct,
    config: &RuntimeConfig<'_>,
) -> Result<(), TooLarge> {
    message.text(service, 0, BACKEND)?;
    message.set_u16(service, 0, SERVICE_WORKER);
    let worker = message.structure(service, 1, WORKER);
    let backend = config.backend;
    let modules = message.structures(worker, 0, MODULE, backend.modules.len())?;
    for (module, at) in backend.modules.iter().zip(modules) {
        message.text(at, 0, &module.name)?;
        match &module.code {
            Code::Script(text) => message.text(at, 1, text)?,
            Code::Wasm(bytes) => {
                message.set_u16(at, 0, MODULE_WASM);
                message.data(at, 1, bytes)?;
            }
        }
    }
    message.text(worker, 1, &backend.compatibility.date)?;
    message.texts(worker, 2, &backend.compatibility.flags)?;
    let count = config.values.len() + config.databases.len();
    let bindings = message.structures(worker, 3, BINDING, count)?;
    let (texts, databases) = bindings.split_at(config.values.len());
    for ((name, value), at) in config.values.iter().zip(texts) {
        message.text(*at, 0, name)?;
        message.set_u16(*at, 0, BINDING_TEXT);
        message.text(*at, 1, value)?;
    }
    for ((name, address), at) in config.databases.iter().zip(databases) {
        message.text(*at, 0, name)?;
        message.set_u16(*at, 0, BINDING_HYPERDRIVE);
        designator(message, *at, 1, &external_name(name))?;
        message.text(*at, 2, &address.database)?;
        message.text(*at, 3, &address.user)?;
        message.text(*at, 4, &address.password)?;
        message.text(*at, 5, &address.scheme)?;
    }
    designator(message, worker, 4, INTERNET)
}

fn external(
    message: &mut Message,
    service: Struct,
    name: &str,
    address: &BindingAddress,
) -> Result<(), TooLarge> {
    message.text(service, 0, &external_name(name))?;
    message.set_u16(service, 0, SERVICE_EXTERNAL);
    let external = message.structure(service, 1, EXTERNAL);
    message.text(external, 0, &format!("unix:{}", address.socket.display()))?;
    message.set_u16(external, 0, EXTERNAL_TCP);
    Ok(())
}

fn network(
    message: &mut Message,
    service: Struct,
    config: &RuntimeConfig<'_>,
) -> Result<(), TooLarge> {
    message.text(service, 0, INTERNET)?;
    message.set_u16(service, 0, SERVICE_NETWORK);
    let network = message.structure(service, 1, NETWORK);
    message.texts(network, 0, config.allow)?;
    // The more exact of two ranges counts: what is denied here is.
    message.texts(network, 1, config.deny)?;
    let tls = message.structure(network, 2, TLS_OPTIONS);
    message.set_bit(tls, TRUST_BROWSER_CAS);
    Ok(())
}

fn designator(
    message: &mut Message,
    parent: Struct,
    pointer: u16,
    name: &str,
) -> Result<(), TooLarge> {
    let designator = message.structure(parent, pointer, DESIGNATOR);
    message.text(designator, 0, name)
}

/// The service behind a binding. No name of a binding has a colon.
fn external_name(binding: &str) -> String {
    format!("postgres:{binding}")
}

/// The same backend behind a module that fails at once if there is nothing that answers requests, which the runtime
/// itself would say to the first of them.
pub(crate) fn with_check(backend: &Backend) -> Backend {
    let entry = backend.modules.first().map_or("", |module| &module.name);
    let taken = |name: &String| backend.modules.iter().any(|module| module.name == *name);
    let mut name = "dormouse-check.js".to_owned();
    while taken(&name) {
        name.insert(0, '_');
    }
    let entry = serde_json::Value::from(format!("./{entry}"));
    let code = format!(
        "import * as all from {entry};\nexport * from {entry};\n\
         const handler = all.default;\nexport default handler;\n\
         const answers = typeof handler === \"function\" ? handler.prototype?.fetch : handler?.fetch;\n\
         if (typeof answers !== \"function\") {{\n  \
         throw new TypeError(\"Handler does not export a fetch() function.\");\n}}\n"
    );
    let mut checked = backend.clone();
    let code = Code::Script(code);
    checked.modules.insert(0, Module { name, code });
    checked
}
