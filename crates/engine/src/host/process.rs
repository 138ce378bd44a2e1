//! The guest as a process: its environment, identity, exit, and children.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::{Caller, Linker};

use super::{Exit, Host, slice_mut, split, string, write_u32};
use crate::engine::EngineInner;
use crate::errno::Errno;
use crate::files::Scratch;
use crate::rewrite::HOST;

/// The environment variables of every guest.
const ENVIRONMENT: [&str; 9] = [
    "HOME=/home/postgres",
    "USER=postgres",
    "LOGNAME=postgres",
    "PATH=/pglite/bin",
    "PGDATA=/pglite/data",
    "PGSYSCONFDIR=/pglite/etc",
    "ICU_DATA=/pglite/icu",
    "LANG=C.UTF-8",
    "TZ=UTC",
];

/// What `locale -a` would print.
const LOCALES: &str = "/pglite/locale-a";

/// How `initdb` runs `postgres`: each child is a fresh instance over the same files.
pub(crate) struct Children {
    pub(crate) engine: Arc<EngineInner>,
    pub(crate) scratch: Arc<Scratch>,
    streams: HashMap<u32, Stream>,
    next: u32,
}

/// A `popen` under way.
enum Stream {
    /// The child has run; the guest reads what it printed.
    Output { status: i32 },
    /// The guest writes what the child will read once it is closed.
    Input { command: String, path: String },
}

impl Children {
    pub(crate) fn new(engine: Arc<EngineInner>, scratch: Arc<Scratch>) -> Self {
        Self {
            engine,
            scratch,
            streams: HashMap::new(),
            next: 0,
        }
    }

    fn path(&mut self) -> String {
        self.next += 1;
        format!("/tmp/stream-{}", self.next)
    }
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link_environment(linker)?;
    link_exit(linker)?;
    link_identity(linker)?;
    link_children(linker)
}

fn link_environment(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "environ_sizes_get",
        |mut caller: Caller<'_, Host>, count: u32, bytes: u32| {
            let (memory, _) = split(&mut caller);
            let total: usize = ENVIRONMENT.iter().map(|entry| entry.len() + 1).sum();
            write_u32(memory, count, ENVIRONMENT.len() as u32);
            write_u32(memory, bytes, total as u32);
            0
        },
    )?;
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "environ_get",
        |mut caller: Caller<'_, Host>, pointers: u32, buffer: u32| {
            let (memory, _) = split(&mut caller);
            let mut at = buffer;
            for (index, entry) in (0u32..).zip(ENVIRONMENT) {
                write_u32(memory, pointers + 4 * index, at);
                match slice_mut(memory, at, entry.len() as u32 + 1) {
                    Ok(target) => {
                        target[..entry.len()].copy_from_slice(entry.as_bytes());
                        target[entry.len()] = 0;
                    }
                    Err(errno) => return errno.0,
                }
                at += entry.len() as u32 + 1;
            }
            0
        },
    )?;
    Ok(())
}

fn link_exit(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "exit", |code: i32| -> wasmtime::Result<()> {
        Err(Exit::Status(code).into())
    })?;
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(Exit::Status(code).into()) },
    )?;
    linker.func_wrap("env", "_abort_js", || -> wasmtime::Result<()> {
        Err(Exit::Abort.into())
    })?;
    linker.func_wrap(
        "env",
        "__assert_fail",
        |mut caller: Caller<'_, Host>, condition: u32, file: u32, line: i32, _function: u32| {
            let (memory, _) = split(&mut caller);
            let condition = string(memory, condition).unwrap_or_default();
            let file = string(memory, file).unwrap_or_default();
            tracing::error!(%condition, %file, line, "an assertion of the guest failed");
            Err::<(), wasmtime::Error>(Exit::Abort.into())
        },
    )?;
    linker.func_wrap("env", "_emscripten_runtime_keepalive_clear", || {})?;
    Ok(())
}

fn link_identity(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    // Not root: Postgres refuses to run as root.
    const USER_ID: i32 = 1000;
    for name in [
        "__syscall_getuid32",
        "__syscall_geteuid32",
        "__syscall_getgid32",
        "__syscall_getegid32",
    ] {
        linker.func_wrap("env", name, || USER_ID)?;
    }
    // There is no network in here.
    const EAI_FAIL: i32 = -4;
    linker.func_wrap("env", "getaddrinfo", |_: u32, _: u32, _: u32, _: u32| {
        EAI_FAIL
    })?;
    linker.func_wrap(
        "env",
        "getnameinfo",
        |_: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32| EAI_FAIL,
    )?;
    for name in [
        "__syscall_socket",
        "__syscall_bind",
        "__syscall_connect",
        "__syscall_listen",
        "__syscall_accept4",
        "__syscall_recvfrom",
        "__syscall_sendto",
    ] {
        linker.func_wrap(
            "env",
            name,
            |_: i32, _: i32, _: i32, _: i32, _: i32, _: i32| -Errno::AFNOSUPPORT.0,
        )?;
    }
    Ok(())
}

fn link_children(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        HOST,
        "system",
        |mut caller: Caller<'_, Host>, (command,): (u32,)| {
            Box::new(async move {
                let command = string(split(&mut caller).0, command).unwrap_or_default();
                run_child(&mut caller, &command, None, None).await
            })
        },
    )?;
    linker.func_wrap_async(
        HOST,
        "popen",
        |mut caller: Caller<'_, Host>, (command, mode): (u32, u32)| {
            Box::new(async move {
                let memory = split(&mut caller).0;
                let command = string(memory, command).unwrap_or_default();
                let mode = string(memory, mode).unwrap_or_default();
                open_stream(&mut caller, command, &mode).await
            })
        },
    )?;
    linker.func_wrap_async(
        HOST,
        "pclose",
        |mut caller: Caller<'_, Host>, (stream,): (u32,)| {
            Box::new(async move { close_stream(&mut caller, stream).await })
        },
    )?;
    Ok(())
}

/// The program of a shell command, its arguments; redirections and what follows are left off,
/// since the callers of this host only ever send output away.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some('"') | None, '\\') => {
                if let Some(next) = characters.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '<' | '>' | '|' | '&' | ';') => break,
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

async fn run_child(
    caller: &mut Caller<'_, Host>,
    command: &str,
    input: Option<String>,
    output: Option<String>,
) -> i32 {
    const FAILED: i32 = 1;
    let host = caller.data();
    let Some(children) = &host.children else {
        tracing::warn!(command, "a guest tried to run a program; there are none");
        return FAILED;
    };
    let engine = Arc::clone(&children.engine);
    let scratch = Arc::clone(&children.scratch);
    let volume = Arc::clone(host.files.namespace().volume());
    let file = |path: Option<String>| match path {
        Some(path) => scratch.open(&path, true).unwrap_or_default(),
        None => Default::default(),
    };
    let (input, output) = (file(input), file(output));
    let arguments = words(command);
    // A wait status carries the exit status in its second byte.
    match Box::pin(engine.run_postgres(volume, scratch, &arguments, input, output)).await {
        Ok(status) => status << 8,
        Err(error) => {
            tracing::error!(%error, command, "a child of initdb failed");
            FAILED << 8
        }
    }
}

/// `popen`: a `FILE *` of the guest's own C library, over a scratch file.
async fn open_stream(
    caller: &mut Caller<'_, Host>,
    command: String,
    mode: &str,
) -> wasmtime::Result<u32> {
    // The one program that Postgres itself asks for is answered by a file of the distribution.
    if command == "locale -a" && mode.starts_with('r') {
        return fopen(caller, LOCALES, "r").await;
    }
    let Some(children) = caller.data_mut().children.as_mut() else {
        tracing::warn!(command, "a guest tried to run a program; there are none");
        return Ok(0);
    };
    let path = children.path();
    children
        .scratch
        .open(&path, true)
        .map_err(|_| Exit::Abort)?;
    let (stream, flag) = if mode.starts_with('r') {
        let status = run_child(caller, &command, None, Some(path.clone())).await;
        (Stream::Output { status }, "r")
    } else {
        (
            Stream::Input {
                command,
                path: path.clone(),
            },
            "w",
        )
    };
    let file = fopen(caller, &path, flag).await?;
    if file != 0
        && let Some(children) = caller.data_mut().children.as_mut()
    {
        children.streams.insert(file, stream);
    }
    Ok(file)
}

async fn fopen(caller: &mut Caller<'_, Host>, path: &str, mode: &str) -> wasmtime::Result<u32> {
    let instance = caller.data().guest().instance;
    let malloc = instance.get_typed_func::<u32, u32>(&mut *caller, "malloc")?;
    let fopen = instance.get_typed_func::<(u32, u32), u32>(&mut *caller, "fopen")?;
    let text = format!("{path}\0{mode}\0");
    let at = malloc.call_async(&mut *caller, text.len() as u32).await?;
    let target = slice_mut(split(caller).0, at, text.len() as u32).map_err(|_| Exit::Abort)?;
    target.copy_from_slice(text.as_bytes());
    fopen
        .call_async(&mut *caller, (at, at + path.len() as u32 + 1))
        .await
}

/// `pclose`: runs the child if it waited for its input; its wait status.
async fn close_stream(caller: &mut Caller<'_, Host>, file: u32) -> wasmtime::Result<i32> {
    let stream = caller
        .data_mut()
        .children
        .as_mut()
        .and_then(|children| children.streams.remove(&file));
    let instance = caller.data().guest().instance;
    let fclose = instance.get_typed_func::<u32, i32>(&mut *caller, "fclose")?;
    fclose.call_async(&mut *caller, file).await?;
    Ok(match stream {
        Some(Stream::Output { status }) => status,
        Some(Stream::Input { command, path }) => {
            run_child(caller, &command, Some(path), None).await
        }
        None => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_would() {
        let command = r#""/pglite/bin/postgres" --check -F -c log_checkpoints=false -c 'a b'="c\"d" < "/dev/null" > "/dev/null" 2>&1"#;
        let expected = [
            "/pglite/bin/postgres",
            "--check",
            "-F",
            "-c",
            "log_checkpoints=false",
            "-c",
            "a b=c\"d",
        ];
        assert_eq!(words(command), expected);
    }
}
