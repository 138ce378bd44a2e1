//! Linear memory of an instance: a reservation of address space that an image can be mapped over.
//!
//! Invariants:
//! 1. A reservation is `4 GiB + guard`; only its first `accessible` bytes may be touched, so a
//!    wasm access past them faults and becomes a trap.
//! 2. An image is mapped private: writes of one backend are never seen by another, nor by the
//!    image.
//! 3. Dropping the reservation unmaps everything that was ever mapped over it.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

/// Bytes of a memory page of the host, the unit of what an image stores.
pub(crate) const HOST_PAGE_BYTES: usize = 4096;

/// Makes the reservations; one for the whole engine.
#[derive(Debug)]
pub(crate) struct HostMemories;

// SAFETY: `new_memory` returns zeroed memory of the asked size, reserves `reserved + guard` bytes
// of which everything past the accessible part stays `PROT_NONE`, and never moves it.
unsafe impl MemoryCreator for HostMemories {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let capacity = reserved.or(maximum).unwrap_or(minimum).max(minimum);
        Reservation::new(capacity, guard, minimum)
            .map(|memory| Box::new(memory) as Box<dyn LinearMemory>)
            .map_err(|error| format!("cannot reserve {capacity} bytes of address space: {error}"))
    }
}

#[derive(Debug)]
struct Reservation {
    base: NonNull<u8>,
    accessible: usize,
    capacity: usize,
    mapped: usize,
}

// SAFETY: the pointer is to memory that this value alone owns; wasmtime hands out access only
// through the store that owns the memory.
unsafe impl Send for Reservation {}
// SAFETY: as above; no method writes through `&self`.
unsafe impl Sync for Reservation {}

impl Reservation {
    fn new(capacity: usize, guard: usize, accessible: usize) -> rustix::io::Result<Self> {
        let mapped = (capacity + guard)
            .max(HOST_PAGE_BYTES)
            .next_multiple_of(HOST_PAGE_BYTES);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                mapped,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let base = NonNull::new(base.cast::<u8>()).ok_or(rustix::io::Errno::NOMEM)?;
        let mut memory = Self {
            base,
            accessible: 0,
            capacity,
            mapped,
        };
        memory.make_accessible(accessible)?;
        Ok(memory)
    }

    fn make_accessible(&mut self, size: usize) -> rustix::io::Result<()> {
        let from = self.accessible.next_multiple_of(HOST_PAGE_BYTES);
        let to = size.next_multiple_of(HOST_PAGE_BYTES);
        if to > from {
            // SAFETY: the range lies inside our own reservation: `to <= capacity` is checked by
            // the callers, `capacity <= mapped` holds by construction.
            unsafe {
                rustix::mm::mprotect(
                    self.base.as_ptr().add(from).cast(),
                    to - from,
                    MprotectFlags::READ | MprotectFlags::WRITE,
                )?;
            }
        }
        self.accessible = size;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: we own the whole range, and wasmtime drops a memory only with its store.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped) };
        debug_assert!(
            unmapped.is_ok(),
            "munmap of an owned range cannot fail: {unmapped:?}"
        );
    }
}

// SAFETY: `as_ptr` never changes, `byte_size` bytes from it are readable and writable, and the
// capacity is reserved for as long as the value lives.
unsafe impl LinearMemory for Reservation {
    fn byte_size(&self) -> usize {
        self.accessible
    }

    fn byte_capacity(&self) -> usize {
        self.capacity
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        if new_size > self.capacity {
            wasmtime::bail!("memory of {new_size} bytes exceeds its reservation");
        }
        self.make_accessible(new_size)?;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

/// What pages are got ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Those of a file are mapped; nothing is copied.
    Read,
    /// Those of a file mapped privately are copied.
    Write,
}

/// Gets the pages of `ranges` (at page borders, inside `memory`) ready at once, so that the first
/// access does not fault page by page. Only their speed changes: what the kernel does not do now,
/// it does then.
pub(crate) fn populate(memory: &mut [u8], ranges: &[Range<usize>], access: Access) {
    let advice = match access {
        Access::Read => Advice::LinuxPopulateRead,
        Access::Write => Advice::LinuxPopulateWrite,
    };
    for range in ranges {
        let Some(part) = memory.get_mut(range.clone()) else {
            continue;
        };
        // SAFETY: the range is borrowed for writing, and populating changes no byte of it.
        let populated =
            unsafe { rustix::mm::madvise(part.as_mut_ptr().cast(), part.len(), advice) };
        if let Err(error) = populated {
            tracing::debug!(%error, "pages are populated one by one");
            return;
        }
    }
}

/// Gives the pages of `ranges` (at page borders, inside `memory`) back to the system. Their bytes
/// become those of the image that is mapped there, or zeros where none is.
pub(crate) fn discard(memory: &mut [u8], ranges: &[Range<usize>]) -> std::io::Result<()> {
    for range in ranges {
        let Some(part) = memory.get_mut(range.clone()) else {
            continue;
        };
        // SAFETY: the range is borrowed for writing, so nobody else relies on its bytes; it is part
        // of a private mapping, where any bytes are as valid as any other.
        unsafe {
            rustix::mm::madvise(part.as_mut_ptr().cast(), part.len(), Advice::LinuxDontNeed)?;
        }
    }
    Ok(())
}

/// Pages that several instances have in common, each at the same place of its memory.
#[derive(Debug)]
pub(crate) struct SharedPages {
    file: OwnedFd,
    /// Of an instance's memory; in the file they follow each other.
    ranges: Vec<Range<usize>>,
    /// The whole file, for the host to look at.
    view: NonNull<u8>,
    len: usize,
}

// SAFETY: the view is unmapped only when this value is dropped, and is read by atomic loads alone.
unsafe impl Send for SharedPages {}
// SAFETY: as above.
unsafe impl Sync for SharedPages {}

impl SharedPages {
    /// Takes the pages of `ranges` (at page borders) out of `memory`, and maps them there again so that
    /// others can have them too.
    pub(crate) fn of(memory: &mut [u8], ranges: Vec<Range<usize>>) -> std::io::Result<Self> {
        let bytes: usize = ranges.iter().map(Range::len).sum();
        let file = rustix::fs::memfd_create("dormouse-shared", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, bytes as u64)?;
        let mut at = 0;
        for range in &ranges {
            let part = memory
                .get(range.clone())
                .ok_or_else(|| std::io::Error::other("outside the memory"))?;
            for run in nonzero_runs(part) {
                let mut done = run.start;
                while done < run.end {
                    let offset = (at + done) as u64;
                    done += rustix::io::pwrite(&file, &part[done..run.end], offset)?;
                }
            }
            at += range.len();
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing.
        let view = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let pages = Self {
            view: NonNull::new(view.cast()).ok_or(rustix::io::Errno::NOMEM)?,
            len: bytes,
            file,
            ranges,
        };
        pages.attach(memory)?;
        Ok(pages)
    }

    /// The word at `address` of an instance's memory, if it is shared.
    pub(crate) fn word(&self, address: u32) -> Option<u32> {
        let address = address as usize;
        let mut start = 0;
        for range in &self.ranges {
            if range.contains(&address) {
                let at = start + (address - range.start);
                if !at.is_multiple_of(4) || at + 4 > self.len {
                    return None;
                }
                // SAFETY: aligned, and inside the view, whose bytes are only ever read here, atomically: an
                // instance that writes them meanwhile is another mapping's business.
                let word = unsafe { AtomicU32::from_ptr(self.view.as_ptr().add(at).cast()) };
                // Only a relaxed load is certain not to write, which a mapping to read does not allow.
                let word = word.load(Ordering::Relaxed);
                fence(Ordering::Acquire);
                return Some(u32::from_le(word));
            }
            start += range.len();
        }
        None
    }

    pub(crate) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Maps the pages over those of another memory.
    pub(crate) fn attach(&self, memory: &mut [u8]) -> std::io::Result<()> {
        let mut at = 0;
        for range in &self.ranges {
            self.attach_range(memory, range, at)?;
            at += range.len();
        }
        Ok(())
    }

    fn attach_range(
        &self,
        memory: &mut [u8],
        range: &Range<usize>,
        at: usize,
    ) -> std::io::Result<()> {
        let part = memory
            .get_mut(range.clone())
            .ok_or_else(|| std::io::Error::other("outside the memory"))?;
        // SAFETY: the range is the accessible part of a `Reservation`, which unmaps it when dropped, and is
        // borrowed for writing, so nobody relies on its bytes. Who shares them has agreed that only one of
        // the instances runs at a time.
        unsafe {
            rustix::mm::mmap(
                part.as_mut_ptr().cast(),
                part.len(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                &self.file,
                at as u64,
            )?;
        }
        Ok(())
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: the view is ours, and nothing of it outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.view.as_ptr().cast(), self.len) };
        debug_assert!(
            unmapped.is_ok(),
            "munmap of an owned range cannot fail: {unmapped:?}"
        );
    }
}

/// Appends a range to others in order; it is joined with the last if it begins where that ends.
pub(crate) fn join(ranges: &mut Vec<Range<usize>>, range: Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// The memory of a booted backend, shared by every backend that is forked from it.
///
/// An anonymous file of the kernel, sealed, and a view of it: one descriptor and one mapping for
/// each template, whatever the number of its forks.
#[derive(Debug)]
pub(crate) struct MemoryImage {
    /// Where it is not zero, in order.
    runs: Vec<Range<usize>>,
    file: OwnedFd,
    view: NonNull<u8>,
    len: usize,
}

// SAFETY: the view is read-only, of a file that nobody can write any more, and unmapped only when
// this value is dropped.
unsafe impl Send for MemoryImage {}
// SAFETY: as above.
unsafe impl Sync for MemoryImage {}

impl MemoryImage {
    /// Copies `memory`, leaving out what is zero.
    pub(crate) fn of(memory: &[u8]) -> std::io::Result<Self> {
        let runs: Vec<(u64, &[u8])> = nonzero_runs(memory)
            .into_iter()
            .map(|run| (run.start as u64, &memory[run]))
            .collect();
        Self::of_runs(memory.len(), &runs)
    }

    /// An image of `len` bytes that is zero but for `runs`, each an offset and its bytes.
    pub(crate) fn of_runs(len: usize, runs: &[(u64, &[u8])]) -> std::io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("dormouse-image", flags)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        for (offset, run) in runs {
            let mut done = 0;
            while done < run.len() {
                done += rustix::io::pwrite(&file, &run[done..], offset + done as u64)?;
            }
        }
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing; the seals
        // see to it that its bytes never change and never vanish.
        let view = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let view = NonNull::new(view.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        let runs = runs.iter().map(|(offset, run)| {
            let start = *offset as usize / HOST_PAGE_BYTES * HOST_PAGE_BYTES;
            let end = *offset as usize + run.len();
            start..end.next_multiple_of(HOST_PAGE_BYTES).min(len)
        });
        Ok(Self {
            runs: runs.collect(),
            file,
            view,
            len,
        })
    }

    /// The page-aligned ranges that are not zero.
    pub(crate) fn runs(&self) -> &[Range<usize>] {
        &self.runs
    }

    /// The whole memory that was copied, zeros included.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped for as long as `self` lives, and nobody can change them.
        unsafe { std::slice::from_raw_parts(self.view.as_ptr(), self.len) }
    }

    /// Replaces the beginning of a memory by this image, copied on write.
    ///
    /// The memory must be of an engine that uses [`HostMemories`], and at least as large.
    pub(crate) fn map_over(
        &self,
        store: impl wasmtime::AsContextMut,
        memory: &wasmtime::Memory,
    ) -> std::io::Result<()> {
        let mut store = store;
        assert!(
            memory.data_size(&store) >= self.len,
            "BUG: image larger than the memory"
        );
        let base = memory.data_mut(&mut store).as_mut_ptr();
        // SAFETY: the range is the accessible part of a `Reservation` (the engine's only kind of
        // memory), which unmaps it when dropped; the exclusive borrow of the store proves that no
        // wasm runs and no slice of the memory is alive.
        unsafe {
            rustix::mm::mmap(
                base.cast(),
                self.len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                &self.file,
                0,
            )?;
        }
        Ok(())
    }
}

impl Drop for MemoryImage {
    fn drop(&mut self) {
        // SAFETY: the view is ours, and no slice of it outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.view.as_ptr().cast(), self.len) };
        debug_assert!(
            unmapped.is_ok(),
            "munmap of an owned range cannot fail: {unmapped:?}"
        );
    }
}

/// The page-aligned ranges of `memory` that are not all zero, in order, neighbours joined.
pub(crate) fn nonzero_runs(memory: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, page) in memory.chunks(HOST_PAGE_BYTES).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let start = index * HOST_PAGE_BYTES;
        join(&mut runs, start..start + page.len());
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_joined_and_aligned() {
        let mut memory = vec![0u8; 5 * HOST_PAGE_BYTES];
        memory[HOST_PAGE_BYTES + 7] = 1;
        memory[2 * HOST_PAGE_BYTES] = 1;
        memory[5 * HOST_PAGE_BYTES - 1] = 1;
        let pages: Vec<_> = nonzero_runs(&memory)
            .iter()
            .map(|r| (r.start / 4096, r.end / 4096))
            .collect();
        assert_eq!(pages, [(1, 3), (4, 5)]);
    }
}
