//! Growth of the heap, shared memory, and `mmap`.

use wasmtime::{Caller, Linker};

use super::{Host, slice_mut, split, write_u32};
use crate::errno::Errno;

/// Bytes of a wasm page.
const WASM_PAGE_BYTES: u64 = 65_536;
/// The heap grows by at least this much at once, if the limit allows, to grow seldom.
const HEAP_STEP_BYTES: u64 = 4 << 20;

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        "env",
        "emscripten_get_heap_max",
        |caller: Caller<'_, Host>| heap_max(&caller) as u32,
    )?;
    // Answers whether the heap now has `wanted` bytes. When not, the guest's `malloc` fails and
    // Postgres reports "out of memory" (53200) in its own way.
    linker.func_wrap(
        "env",
        "emscripten_resize_heap",
        |mut caller: Caller<'_, Host>, wanted: u32| {
            let memory = caller.data().guest().memory;
            let size = memory.data_size(&caller) as u64;
            let wanted = u64::from(wanted);
            let max = heap_max(&caller);
            if wanted > max {
                return Ok::<i32, wasmtime::Error>(0);
            }
            let target = wanted.max(size + HEAP_STEP_BYTES).min(max);
            let pages = target.saturating_sub(size).div_ceil(WASM_PAGE_BYTES);
            Ok(i32::from(memory.grow(&mut caller, pages).is_ok()))
        },
    )?;
    linker.func_wrap_async(
        "env",
        "_mmap_js",
        |mut caller: Caller<'_, Host>,
         (len, _prot, _flags, fd, offset, allocated, address): (
            u32,
            i32,
            i32,
            i32,
            i64,
            u32,
            u32,
        )| {
            Box::new(async move {
                let guest = caller.data().guest();
                let align = guest.instance.get_typed_func::<(u32, u32), u32>(
                    &mut caller,
                    "emscripten_builtin_memalign",
                )?;
                let at = align
                    .call_async(&mut caller, (65_536, len.next_multiple_of(65_536)))
                    .await?;
                if at == 0 {
                    return Ok::<i32, wasmtime::Error>(-Errno::NOMEM.0);
                }
                let (memory, host) = split(&mut caller);
                let Ok(target) = slice_mut(memory, at, len) else {
                    return Ok(-Errno::FAULT.0);
                };
                target.fill(0);
                if let Err(errno) = host.files.read(fd, target, Some(offset as u64)) {
                    return Ok(-errno.0);
                }
                write_u32(memory, allocated, 1);
                write_u32(memory, address, at);
                Ok(0)
            })
        },
    )?;
    // Mappings are private copies; there is nothing to write back.
    linker.func_wrap(
        "env",
        "_munmap_js",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i64| 0,
    )?;
    Ok(())
}

fn heap_max(caller: &Caller<'_, Host>) -> u64 {
    let wasm_max = 32_768 * WASM_PAGE_BYTES - WASM_PAGE_BYTES;
    caller.data().memory_bytes_max.min(wasm_max)
}
