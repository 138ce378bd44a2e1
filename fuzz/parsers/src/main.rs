//! Arbitrary bytes for the parsers of `wire`: none of them panics, and what was read is written as it came.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wire::PgError;
use wire::pg::startup::FirstPacket;
use wire::pg::{Frame, backend, frames, frontend, statement};

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 4 {
        0 => first_packets(bytes),
        1 => messages(bytes),
        2 => drop(statement::database_statement(bytes)),
        _ => drop(statement::mentions(bytes, "execute")),
    }
});

fn first_packets(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(packet)) = FirstPacket::split(&mut buffer) {
        if let FirstPacket::Startup(startup) = packet {
            // Names with a zero byte cannot be written.
            let _ = startup.encode(&mut BytesMut::new());
        }
    }
}

fn messages(bytes: &[u8]) {
    const MESSAGE_BYTES_MAX: usize = 1 << 16;
    let _ = frames(bytes).count();
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = Frame::split(&mut buffer, MESSAGE_BYTES_MAX) {
        let body = frame.body();
        let _ = frontend::decode_query(body);
        if let Ok(parse) = frontend::Parse::decode(body) {
            let mut written = BytesMut::new();
            parse
                .encode(&mut written)
                .expect("what was read can be written");
            assert_eq!(&written[5..], body);
        }
        let _ = frontend::Bind::decode(body);
        let _ = frontend::Bind::decode_names(body);
        let _ = frontend::Execute::decode(body);
        let _ = frontend::decode_target(body);
        let _ = backend::decode_row_description(body);
        let _ = backend::DataRow::decode(body).map(Iterator::count);
        let _ = backend::CommandTag::decode(body);
        let _ = backend::CopyResponse::decode(body);
        let _ = backend::decode_parameter_status(body);
        let _ = PgError::decode(body);
    }
}
