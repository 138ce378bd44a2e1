//! Messages that are not as they should be.

use sim::Random;
use wire::pg::frontend::kind;

use super::message::Message;

/// Above any limit on the length of a message.
const HUGE: u32 = 1 << 30;

/// The same message with another body. Its length is right, so the next one begins where it should.
pub fn body(message: &Message, random: &mut Random) -> Message {
    let (Some(&kind), Some(body)) = (message.bytes.first(), message.bytes.get(5..)) else {
        return message.clone();
    };
    let mut body = body.to_vec();
    for _ in 0..random.within(1..=3) {
        change(&mut body, random);
    }
    Message::framed(
        format!("damaged {}: {}", message.label, hex(&body)),
        kind,
        &body,
    )
}

fn change(body: &mut Vec<u8>, random: &mut Random) {
    let place = random.index(body.len());
    match random.below(7) {
        0 => body.truncate(place),
        1 => body.extend(random.bytes(5)),
        2 => body.insert(place, 0),
        3 => body.insert(place, 0xff),
        4 => {
            let number = *random.pick(&[0_u16, 1, 0x7fff, 0x8000, 0xffff]);
            put(body, place, &number.to_be_bytes());
        }
        5 => {
            let number = *random.pick(&[0_u32, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]);
            put(body, place, &number.to_be_bytes());
        }
        _ => {
            if let Some(byte) = body.get_mut(place) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

fn put(body: &mut [u8], place: usize, bytes: &[u8]) {
    for (target, byte) in body.iter_mut().skip(place).zip(bytes) {
        *target = *byte;
    }
}

/// Bytes after which nobody knows where the next message begins, and whether the server must end the
/// connection because of them rather than wait for more.
pub fn ruin(message: &Message, random: &mut Random) -> (Message, bool) {
    let labelled = |label: &str, bytes: Vec<u8>| {
        let label = format!("{label}: {}", hex(&bytes));
        Message::raw(label, bytes)
    };
    let mut bytes = message.bytes.clone();
    let with_length = |mut bytes: Vec<u8>, length: u32| {
        bytes.resize(bytes.len().max(5), 0);
        bytes[1..5].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    match random.below(7) {
        0 => {
            let kind = *random.pick(&[0, b'p', b'!', b'Z', 0xff, b'q']);
            (labelled("unknown kind", vec![kind, 0, 0, 0, 4]), true)
        }
        1 => {
            let length = *random.pick(&[0, 1, 3, 0x8000_0000, 0xffff_ffff]);
            (
                labelled("impossible length", with_length(bytes, length)),
                true,
            )
        }
        2 => (labelled("huge length", with_length(bytes, HUGE)), true),
        3 => {
            bytes.truncate(random.index(bytes.len()).max(1));
            (labelled("truncated", bytes), false)
        }
        4 => {
            let length = bytes.len() as u32 + random.within(1..=1000) as u32;
            (
                labelled("length too long", with_length(bytes, length)),
                false,
            )
        }
        5 => {
            let mut bytes = vec![0, 0, 0, 8];
            bytes.extend(80_877_103_u32.to_be_bytes());
            (labelled("another SSLRequest", bytes), true)
        }
        _ => {
            let count = random.within(5..=200) as usize;
            let mut bytes = random.bytes(count);
            bytes[0] = kind::QUERY;
            (labelled("noise", bytes), false)
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 120;
    let mut text: String = bytes
        .iter()
        .take(SHOWN)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use wire::pg::Frame;

    #[test]
    fn a_damaged_body_is_still_one_message() {
        let mut random = Random::new(3);
        for _ in 0..2_000 {
            let damaged = body(&Message::query("SELECT 1"), &mut random);
            let mut bytes = BytesMut::from(&damaged.bytes[..]);
            assert!(
                matches!(Frame::split(&mut bytes, usize::MAX), Ok(Some(_))),
                "{damaged:?}"
            );
            assert!(bytes.is_empty(), "{damaged:?}");
        }
    }
}
