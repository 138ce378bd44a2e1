//! Who is told of what a backend reads of its volume.

use std::fmt::Debug;

/// Is told of each read of the volume's files, in the midst of a call of the backend that waits for it: it must not wait itself.
pub trait ReadWatch: Debug + Send {
    /// A read begins.
    fn begins(&mut self);

    /// It has ended, with so many bytes: none at the end of a file, and if it failed.
    fn ended(&mut self, bytes: usize);
}
