//! The contents of open files.

use volume::Mtime;

use super::{FileTable, Object, OpenFlags};
use crate::errno::Errno;
use crate::files::namespace::{Device, device_status, distribution_status, scratch_status};
use crate::files::{FileKind, Status};

/// Most bytes that wait in a pipe; a writer past it gets `EAGAIN`.
const PIPE_BYTES_MAX: usize = 65_536;

impl FileTable {
    pub(crate) fn status(&self, descriptor: i32) -> Result<Status, Errno> {
        match &self.open(descriptor)?.object {
            Object::Volume(ino) | Object::VolumeDirectory(ino) => {
                self.namespace.volume_status(*ino)
            }
            Object::Scratch(file) => {
                Ok(scratch_status(FileKind::Regular, file.lock().len() as u64))
            }
            Object::ScratchDirectory(_) => Ok(scratch_status(FileKind::Directory, 0)),
            Object::Distribution { contents, id } => Ok(distribution_status(
                FileKind::Regular,
                contents.len() as u64,
                *id,
            )),
            Object::DistributionDirectory(_) => Ok(distribution_status(FileKind::Directory, 0, 0)),
            Object::Device(_) | Object::Log(_) => Ok(device_status()),
            Object::PipeRead(_) | Object::PipeWrite(_) => Ok(Status {
                kind: FileKind::Pipe,
                ..device_status()
            }),
        }
    }

    /// Reads at `offset`, or at the file's own position, which then moves.
    pub(crate) fn read(
        &mut self,
        descriptor: i32,
        buffer: &mut [u8],
        offset: Option<u64>,
    ) -> Result<usize, Errno> {
        let index = self.index(descriptor)?;
        let Self {
            opens,
            namespace,
            watch,
            ..
        } = self;
        let open = opens[index].as_mut().ok_or(Errno::BADF)?;
        if !open.flags.reads() {
            return Err(Errno::BADF);
        }
        let at = offset.unwrap_or(open.offset);
        let read = match &open.object {
            Object::Volume(ino) => match watch {
                None => namespace.volume().read(*ino, at, buffer)?,
                Some(watch) => {
                    watch.begins();
                    let read = namespace.volume().read(*ino, at, buffer);
                    watch.ended(read.as_ref().map_or(0, |read| *read));
                    read?
                }
            },
            Object::Scratch(file) => copy_from(&file.lock(), at, buffer),
            Object::Distribution { contents, .. } => copy_from(contents, at, buffer),
            Object::Device(Device::Null) => 0,
            Object::Device(Device::Random) => {
                getrandom::fill(buffer).map_err(|_| Errno::IO)?;
                buffer.len()
            }
            Object::PipeRead(pipe) => {
                let mut pipe = pipe.lock();
                if pipe.is_empty() {
                    return Err(Errno::AGAIN);
                }
                let count = buffer.len().min(pipe.len());
                for (target, byte) in buffer.iter_mut().zip(pipe.drain(..count)) {
                    *target = byte;
                }
                count
            }
            Object::VolumeDirectory(_)
            | Object::ScratchDirectory(_)
            | Object::DistributionDirectory(_) => return Err(Errno::ISDIR),
            Object::PipeWrite(_) | Object::Log(_) => return Err(Errno::BADF),
        };
        if offset.is_none() {
            open.offset += read as u64;
        }
        Ok(read)
    }

    /// Writes at `offset`, or at the file's own position (its end, if opened to append).
    pub(crate) fn write(
        &mut self,
        descriptor: i32,
        bytes: &[u8],
        offset: Option<u64>,
        now: Mtime,
    ) -> Result<usize, Errno> {
        let index = self.index(descriptor)?;
        let Self {
            opens, namespace, ..
        } = self;
        let open = opens[index].as_mut().ok_or(Errno::BADF)?;
        if !open.flags.writes() {
            return Err(Errno::BADF);
        }
        let append = open.flags.has(OpenFlags::APPEND) && offset.is_none();
        let at = offset.unwrap_or(open.offset);
        let (at, written) = match &open.object {
            Object::Volume(ino) => {
                let at = if append {
                    namespace.volume().node(*ino)?.len
                } else {
                    at
                };
                let volume = namespace.volume();
                let written = volume.write(*ino, at, bytes, now)?;
                if open.flags.has(OpenFlags::DATA_SYNC) {
                    volume.sync(*ino)?;
                }
                (at, written)
            }
            Object::Scratch(file) => {
                let at = if append { file.lock().len() as u64 } else { at };
                let start = usize::try_from(at).map_err(|_| Errno::INVAL)?;
                let end = start.checked_add(bytes.len()).ok_or(Errno::INVAL)?;
                namespace.scratch.check_growth(file, end)?;
                let mut file = file.lock();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[start..end].copy_from_slice(bytes);
                (at, bytes.len())
            }
            Object::Device(_) => (at, bytes.len()),
            Object::PipeWrite(pipe) => {
                let mut pipe = pipe.lock();
                if pipe.len() + bytes.len() > PIPE_BYTES_MAX {
                    return Err(Errno::AGAIN);
                }
                pipe.extend(bytes);
                (at, bytes.len())
            }
            Object::Log(line) => {
                log_lines(&mut line.lock(), bytes);
                (at, bytes.len())
            }
            _ => return Err(Errno::BADF),
        };
        if offset.is_none() {
            open.offset = at + written as u64;
        }
        Ok(written)
    }

    /// `lseek`: the new position.
    pub(crate) fn seek(&mut self, descriptor: i32, offset: i64, whence: i32) -> Result<u64, Errno> {
        let bytes = self.status(descriptor)?.bytes;
        let open = self.open_mut(descriptor)?;
        if matches!(
            open.object,
            Object::PipeRead(_) | Object::PipeWrite(_) | Object::Log(_)
        ) {
            return Err(Errno::SPIPE);
        }
        let base = match whence {
            0 => 0,
            1 => open.offset,
            2 => bytes,
            _ => return Err(Errno::INVAL),
        };
        let position = base.checked_add_signed(offset).ok_or(Errno::INVAL)?;
        open.offset = position;
        if position == 0 {
            open.listing = None;
        }
        Ok(position)
    }

    pub(crate) fn set_len(&mut self, descriptor: i32, bytes: u64, now: Mtime) -> Result<(), Errno> {
        let open = self.open(descriptor)?;
        if !open.flags.writes() {
            return Err(Errno::INVAL);
        }
        match &open.object {
            Object::Volume(ino) => Ok(self.namespace.volume().set_len(*ino, bytes, now)?),
            Object::Scratch(file) => {
                let bytes = usize::try_from(bytes).map_err(|_| Errno::INVAL)?;
                self.namespace.scratch.check_growth(file, bytes)?;
                file.lock().resize(bytes, 0);
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// `fsync` and `fdatasync`.
    pub(crate) fn sync(&self, descriptor: i32) -> Result<(), Errno> {
        match &self.open(descriptor)?.object {
            Object::Volume(ino) | Object::VolumeDirectory(ino) => {
                Ok(self.namespace.volume().sync(*ino)?)
            }
            _ => Ok(()),
        }
    }
}

fn copy_from(contents: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(contents.len());
    let count = buffer.len().min(contents.len() - start);
    buffer[..count].copy_from_slice(&contents[start..start + count]);
    count
}

/// Longest line that is gathered before it is logged unfinished.
const LOG_LINE_BYTES_MAX: usize = 8192;

/// Whether a line of Postgres' log is about the server itself. All others are about statements, and may have
/// passwords and other values in them: the client that they belong to has been told.
fn is_told(line: &str) -> bool {
    let Some((_prefix, text)) = line.split_once("] ") else {
        return false;
    };
    let Some((severity, text)) = text.split_once(":  ") else {
        return false;
    };
    let of_statements = [
        "statement: ",
        "execute ",
        "duration: ",
        "parse ",
        "bind ",
        "fastpath ",
    ];
    match severity {
        "LOG" => !of_statements.iter().any(|begin| text.starts_with(begin)),
        "FATAL" | "PANIC" => true,
        _ => false,
    }
}

fn log_lines(line: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        if *byte == b'\n' || line.len() >= LOG_LINE_BYTES_MAX {
            let text = String::from_utf8_lossy(line);
            if is_told(&text) {
                tracing::debug!(target: "postgres", "{}", text.trim_end());
            }
            line.clear();
        }
        if *byte != b'\n' {
            line.push(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_told;

    #[test]
    fn what_may_have_values_in_it_is_not_told() {
        let line = |text: &str| format!("2026-11-21 21:51:12.716 UTC [42] {text}");
        for told in [
            "LOG:  redo starts at 0/14F8A28",
            "FATAL:  could not write lock file",
            "PANIC:  could not locate a valid checkpoint record",
        ] {
            assert!(is_told(&line(told)), "{told}");
        }
        for kept in [
            "ERROR:  unterminated quoted string at or near \"'secret\" at character 25",
            "STATEMENT:  alter role joe password 'secret'",
            "LOG:  statement: alter role joe password 'secret'",
            "LOG:  duration: 12.3 ms  plan:",
            "DETAIL:  Key (name)=(secret) already exists.",
            "\tQuery Text: select 'secret'",
        ] {
            assert!(!is_told(&line(kept)), "{kept}");
        }
        assert!(!is_told("\t password 'secret'"));
    }
}
