use super::*;
use proptest::prelude::*;

fn wal(data: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.extend([0; 24]);
    body.extend_from_slice(data);
    body
}

fn of(data: &[u8]) -> Result<Message, Garbled> {
    Message::decode(&wal(data), false)
}

#[test]
fn each_message_is_told() {
    let mut alive = vec![b'k', 0, 0, 0, 0, 0, 0, 1, 2];
    alive.extend([0; 8]);
    alive.push(1);
    let end = 258;
    let wants_reply = true;
    assert_eq!(
        Message::decode(&alive, false),
        Ok(Message::Alive { end, wants_reply })
    );
    let mut begin = vec![b'B'];
    begin.extend([0; 16]);
    begin.extend([0, 0, 3, 7]);
    assert_eq!(of(&begin), Ok(Message::Begin { xid: 775 }));
    let mut commit = vec![b'C', 0];
    commit.extend([0; 8]);
    commit.extend([0, 0, 0, 0, 0, 0, 0, 9]);
    commit.extend([0; 8]);
    assert_eq!(of(&commit), Ok(Message::Commit { end: 9 }));
    for kind in *b"IUD" {
        let row = [kind, 0, 0, 64, 1, b'N', 0, 1];
        assert_eq!(of(&row), Ok(Message::Row(16_385)));
        assert_eq!(Message::decode(&wal(&row), true), Ok(Message::Row(16_385)));
    }
    let truncate = [b'T', 0, 0, 0, 2, 1, 0, 0, 64, 1, 0, 0, 64, 2];
    let tables = Some(vec![16_385, 16_386]);
    assert_eq!(of(&truncate), Ok(Message::Truncate(tables)));
    assert_eq!(
        Message::decode(&wal(&truncate), true),
        Ok(Message::Truncate(None))
    );
    assert_eq!(of(&truncate[..12]), Err(Garbled));
    assert_eq!(of(b"R"), Ok(Message::Other));
    assert_eq!(of(b"S"), Err(Garbled));
    assert_eq!(Message::decode(b"", false), Err(Garbled));
}

#[test]
fn long_rows_leave_their_heads() {
    let mut inbox = BytesMut::new();
    let long = HEAD_BYTES_MAX * 3;
    inbox.extend_from_slice(b"d");
    inbox.extend_from_slice(&(long as u32 + 4).to_be_bytes());
    let mut heads = Heads::default();
    assert_eq!(heads.next(&mut inbox), Ok(None));
    inbox.extend_from_slice(&vec![7; HEAD_BYTES_MAX]);
    let head = heads.next(&mut inbox).unwrap().unwrap();
    assert!(head.is_cut && head.body.len() == HEAD_BYTES_MAX && inbox.is_empty());
    inbox.extend_from_slice(&vec![7; HEAD_BYTES_MAX]);
    assert_eq!(heads.next(&mut inbox), Ok(None));
    assert!(inbox.is_empty());
    inbox.extend_from_slice(&vec![7; HEAD_BYTES_MAX]);
    inbox.extend_from_slice(b"c\0\0\0\x04d\0");
    let head = heads.next(&mut inbox).unwrap().unwrap();
    assert!(head.kind == b'c' && head.body.is_empty() && !head.is_cut);
    assert_eq!(heads.next(&mut inbox), Ok(None));
    assert_eq!(&inbox[..], b"d\0");
    let mut wrong = BytesMut::from(&b"d\0\0\0\x03"[..]);
    assert_eq!(Heads::default().next(&mut wrong), Err(Garbled));
}

#[test]
fn what_is_heard_is_said() {
    let said = heard(0x0102);
    assert_eq!(said[0], b'r');
    assert_eq!(&said[1..9], &said[17..25]);
    assert_eq!((said[7], said[8], said[33]), (1, 2, 1));
}

proptest! {
    #[test]
    fn anything_may_be_said(body in proptest::collection::vec(any::<u8>(), 0..200), is_cut: bool, kind in 0..8_usize) {
        let _ = Message::decode(&body, is_cut);
        let _ = Message::decode(&wal(&body), is_cut);
        let mut likely = vec![b"BCIUDTRk"[kind]];
        likely.extend_from_slice(&body);
        let _ = of(&likely);
        let _ = Message::decode(&likely, is_cut);
    }

    /// However it arrives, the heads are the same.
    #[test]
    fn parts_make_the_same_heads(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40_000), 1..4),
        parts in proptest::collection::vec(1..20_000_usize, 1..20),
    ) {
        let mut bytes = Vec::new();
        for body in &bodies {
            bytes.push(b'd');
            bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        let (mut heads, mut inbox, mut found) = (Heads::default(), BytesMut::new(), Vec::new());
        let mut rest = &bytes[..];
        for part in parts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*part).min(rest.len()));
            inbox.extend_from_slice(now);
            rest = later;
            while let Some(head) = heads.next(&mut inbox).unwrap() {
                found.push(head);
            }
            prop_assert!(inbox.len() < HEAD_BYTES_MAX + PREFIX_BYTES);
        }
        prop_assert_eq!(found.len(), bodies.len());
        for (head, body) in found.iter().zip(&bodies) {
            let kept = body.len().min(HEAD_BYTES_MAX);
            prop_assert_eq!(&head.body[..], &body[..kept]);
            prop_assert_eq!(head.is_cut, body.len() > kept);
        }
    }
}
