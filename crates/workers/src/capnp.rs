//! Cap'n Proto messages, written: structs, lists of structs, text, bytes. One segment, so no far pointers.
//!
//! After the published encoding (capnproto.org/encoding.html): little-endian words of eight bytes, a pointer counts
//! from the word after it.

/// A struct's size: words of data, and pointers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) data: u16,
    pub(crate) pointers: u16,
}

impl Shape {
    fn words(self) -> usize {
        usize::from(self.data) + usize::from(self.pointers)
    }
}

/// A struct of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Struct {
    /// Its first word.
    at: usize,
    shape: Shape,
}

/// Kinds of pointers.
const STRUCT: u64 = 0;
const LIST: u64 = 1;

/// Sizes of a list's elements.
const BYTES: u64 = 2;
const POINTERS: u64 = 6;
const COMPOSITE: u64 = 7;

/// The most that a pointer can tell of a list's length.
const COUNT_MAX: usize = (1 << 29) - 1;

/// A list that is longer than a message can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too large for a message of the runtime")]
pub(crate) struct TooLarge;

/// A message that is being written.
#[derive(Debug)]
pub(crate) struct Message {
    words: Vec<u64>,
}

impl Message {
    /// A message and its root.
    pub(crate) fn new(shape: Shape) -> (Self, Struct) {
        let mut message = Self { words: vec![0] };
        let root = message.place(0, shape);
        (message, root)
    }

    /// A struct at a pointer of another one.
    pub(crate) fn structure(&mut self, parent: Struct, pointer: u16, shape: Shape) -> Struct {
        self.place(slot(parent, pointer), shape)
    }

    fn place(&mut self, slot: usize, shape: Shape) -> Struct {
        let at = self.room(shape.words());
        self.words[slot] = STRUCT | offset(slot, at) | sizes(shape);
        Struct { at, shape }
    }

    /// A list of structs at a pointer.
    pub(crate) fn structures(
        &mut self,
        parent: Struct,
        pointer: u16,
        shape: Shape,
        count: usize,
    ) -> Result<Vec<Struct>, TooLarge> {
        let slot = slot(parent, pointer);
        let words = counted(count * shape.words())?;
        let tag = self.room(1 + count * shape.words());
        self.words[slot] = LIST | offset(slot, tag) | COMPOSITE << 32 | words << 35;
        self.words[tag] = STRUCT | counted(count)? << 2 | sizes(shape);
        let nth = |index: usize| Struct {
            at: tag + 1 + index * shape.words(),
            shape,
        };
        Ok((0..count).map(nth).collect())
    }

    /// Text at a pointer.
    pub(crate) fn text(
        &mut self,
        parent: Struct,
        pointer: u16,
        text: &str,
    ) -> Result<(), TooLarge> {
        self.text_at(slot(parent, pointer), text)
    }

    /// Bytes at a pointer.
    pub(crate) fn data(
        &mut self,
        parent: Struct,
        pointer: u16,
        bytes: &[u8],
    ) -> Result<(), TooLarge> {
        self.bytes_at(slot(parent, pointer), bytes, bytes.len())
    }

    /// A list of texts at a pointer.
    pub(crate) fn texts<T: AsRef<str>>(
        &mut self,
        parent: Struct,
        pointer: u16,
        texts: &[T],
    ) -> Result<(), TooLarge> {
        let slot = slot(parent, pointer);
        let count = counted(texts.len())?;
        let at = self.room(texts.len());
        self.words[slot] = LIST | offset(slot, at) | POINTERS << 32 | count << 35;
        let mut slots = at..;
        texts
            .iter()
            .zip(&mut slots)
            .try_for_each(|(text, slot)| self.text_at(slot, text.as_ref()))
    }

    fn text_at(&mut self, slot: usize, text: &str) -> Result<(), TooLarge> {
        // The zero at its end counts.
        self.bytes_at(slot, text.as_bytes(), text.len() + 1)
    }

    /// Bytes in room for so many.
    fn bytes_at(&mut self, slot: usize, content: &[u8], room: usize) -> Result<(), TooLarge> {
        let count = counted(room)?;
        let at = self.room(room.div_ceil(8));
        for (word, bytes) in self.words[at..].iter_mut().zip(content.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(whole);
        }
        self.words[slot] = LIST | offset(slot, at) | BYTES << 32 | count << 35;
        Ok(())
    }

    /// Which of a union's members there is: 16 bits of data, the first being at index 0.
    pub(crate) fn set_u16(&mut self, of: Struct, index: u16, value: u16) {
        let word = of.at + usize::from(index / 4);
        self.words[word] |= u64::from(value) << (16 * u32::from(index % 4));
    }

    /// One bit of data.
    pub(crate) fn set_bit(&mut self, of: Struct, index: u16) {
        let word = of.at + usize::from(index / 64);
        self.words[word] |= 1 << (index % 64);
    }

    fn room(&mut self, words: usize) -> usize {
        let at = self.words.len();
        self.words.resize(at + words, 0);
        at
    }

    /// The message as a stream has it: a header with the number of segments less one and their sizes, then these.
    pub(crate) fn finish(self) -> Result<Vec<u8>, TooLarge> {
        // An offset has 30 bits with a sign, and none leads further than from one end to the other.
        let size = u32::try_from(counted(self.words.len())?).map_err(|_| TooLarge)?;
        let mut bytes = Vec::with_capacity(8 + self.words.len() * 8);
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        Ok(bytes)
    }
}

fn slot(parent: Struct, pointer: u16) -> usize {
    debug_assert!(pointer < parent.shape.pointers);
    parent.at + usize::from(parent.shape.data) + usize::from(pointer)
}

/// The 30 bits that say where, as they stand in a pointer. What is pointed at always comes later.
fn offset(slot: usize, at: usize) -> u64 {
    ((at - slot - 1) as u64 & 0x3fff_ffff) << 2
}

fn sizes(shape: Shape) -> u64 {
    u64::from(shape.data) << 32 | u64::from(shape.pointers) << 48
}

fn counted(count: usize) -> Result<u64, TooLarge> {
    if count > COUNT_MAX {
        return Err(TooLarge);
    }
    Ok(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Shape = Shape {
        data: 1,
        pointers: 1,
    };

    /// Bytes as the encoding's document lays them out.
    #[test]
    fn a_struct_with_data_and_text() {
        let (mut message, root) = Message::new(PAIR);
        message.set_u16(root, 1, 0x0203);
        message.set_bit(root, 63);
        message.text(root, 0, "hi").unwrap();
        let bytes = message.finish().unwrap();
        #[rustfmt::skip]
        assert_eq!(bytes, [
            0, 0, 0, 0, 4, 0, 0, 0, // one segment of four words
            0, 0, 0, 0, 1, 0, 1, 0, // a struct, here, of one word and one pointer
            0, 0, 3, 2, 0, 0, 0, 0x80,
            1, 0, 0, 0, 0x1a, 0, 0, 0, // a list, here, of three bytes
            b'h', b'i', 0, 0, 0, 0, 0, 0,
        ]);
    }

    #[test]
    fn bytes_have_no_zero_behind_them() {
        let (mut message, root) = Message::new(PAIR);
        message.data(root, 0, &[1; 9]).unwrap();
        let bytes = message.finish().unwrap();
        #[rustfmt::skip]
        assert_eq!(bytes[24..], [
            1, 0, 0, 0, 0x4a, 0, 0, 0, // a list, here, of nine bytes
            1, 1, 1, 1, 1, 1, 1, 1,
            1, 0, 0, 0, 0, 0, 0, 0,
        ]);
    }

    #[test]
    fn lists_of_structs_and_of_texts() {
        let (mut message, root) = Message::new(Shape {
            data: 0,
            pointers: 2,
        });
        let pair = message.structures(root, 0, PAIR, 2).unwrap();
        message.set_u16(pair[1], 0, 7);
        message.texts(root, 1, &["12345678"]).unwrap();
        let bytes = message.finish().unwrap();
        #[rustfmt::skip]
        assert_eq!(bytes[8..], [
            0, 0, 0, 0, 0, 0, 2, 0,
            5, 0, 0, 0, 0x27, 0, 0, 0, // one word on, composite, four words
            0x15, 0, 0, 0, 0x0e, 0, 0, 0, // five words on, one pointer
            8, 0, 0, 0, 1, 0, 1, 0, // two elements of one word and one pointer
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0, 0x4a, 0, 0, 0, // nine bytes
            b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8',
            0, 0, 0, 0, 0, 0, 0, 0,
        ]);
    }
}
