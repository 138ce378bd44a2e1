//! Messages of extended queries, `COPY` and function calls.

use bytes::BufMut as _;
use sim::Random;
use wire::pg::Target;
use wire::pg::frontend::{self, Execute, Parse, kind};

use super::canary::Canary;
use super::message::Message;
use super::sql;

/// Few names, so that they meet.
const STATEMENTS: [&str; 4] = ["", "", "s1", "p2"];
const PORTALS: [&str; 4] = ["", "", "c1", "cu"];

/// Queries with parameters.
const QUERIES: [&str; 12] = [
    "SELECT $1::text || '@'",
    "SELECT $1::int + $2::bigint, '@'",
    "SELECT $1, $2, $3",
    "SELECT $1::bytea, $2::timestamptz",
    "SELECT n, '@' FROM generate_series(1, $1::int) AS n",
    "SELECT '@' FROM generate_series(1, 40)",
    "INSERT INTO tt VALUES ($1, $2)",
    "INSERT INTO scratch VALUES ($1::int, '@') RETURNING n",
    "SELECT * FROM tt WHERE n = $1",
    "SELECT * FROM known WHERE n = $1",
    "COPY tt FROM STDIN",
    "COPY (SELECT '@') TO STDOUT",
];

/// Types of parameters: unknown, text, int4, int8, bytea, float8, numeric, json, int4[], none.
const TYPES: [u32; 11] = [0, 25, 23, 20, 17, 701, 1700, 114, 1007, 4_294_967_295, 16];

/// Functions: `upper`, `int4pl`, `length`, `pg_backend_pid`, none, `textcat`.
const FUNCTIONS: [u32; 6] = [871, 177, 1317, 2026, 1, 1258];

/// Any message that may come between a startup and an end.
pub fn message(random: &mut Random, canary: &Canary) -> Message {
    match random.below(100) {
        0..18 => parse(random, canary),
        18..36 => bind(random, canary),
        36..46 => target("Describe", kind::DESCRIBE, random),
        46..64 => execute(random, &["c1", "cu"]),
        64..70 => target("Close", kind::CLOSE, random),
        70..74 => Message::framed("Flush", kind::FLUSH, b""),
        74..88 => Message::sync(),
        88..91 => call(random, canary),
        91..94 => copy_data(random, canary),
        94..96 => Message::framed("CopyDone", kind::COPY_DONE, b""),
        96..97 => Message::copy_fail(),
        _ => Message::query(&sql::text(random, canary)),
    }
}

/// What is mostly right: a statement with its portal, and perhaps an end.
pub fn usual(random: &mut Random, canary: &Canary) -> Vec<Message> {
    // PostgreSQL 18 itself crashes by an Execute of what a simple query has left that failed in a transaction.
    let close = Message::built("Close Portal \"\"", |out| {
        frontend::close(out, Target::Portal, b"")
    });
    let mut messages = vec![close, parse(random, canary), bind(random, canary)];
    if random.one_in(2) {
        messages.push(target("Describe", kind::DESCRIBE, random));
    }
    messages.push(execute(random, &PORTALS));
    if random.one_in(3) {
        messages.push(execute(random, &PORTALS));
    }
    if !random.one_in(4) {
        messages.push(Message::sync());
    }
    messages
}

/// A `COPY` into a table of one's own, with data.
pub fn copy_in(random: &mut Random, canary: &Canary) -> Vec<Message> {
    let mut messages = vec![
        Message::query("CREATE TEMP TABLE IF NOT EXISTS tt (n int, c text)"),
        Message::query("COPY tt FROM STDIN"),
    ];
    let rows = random.below(6);
    messages.extend((0..rows).map(|_| copy_data(random, canary)));
    if random.one_in(6) {
        messages.push(message(random, canary));
    }
    messages.push(match random.one_in(3) {
        true => Message::copy_fail(),
        false => Message::framed("CopyDone", kind::COPY_DONE, b""),
    });
    messages
}

fn parse(random: &mut Random, canary: &Canary) -> Message {
    let name = *random.pick(&STATEMENTS);
    let text = match random.one_in(3) {
        true => sql::statement(random, canary),
        false => {
            let text = *random.pick(&QUERIES);
            sql::fill(text, random, canary)
        }
    };
    let param_oids: Vec<u32> = (0..random.below(4)).map(|_| *random.pick(&TYPES)).collect();
    let label = format!("Parse {name:?} {text:?} {param_oids:?}");
    Message::built(label, |out| {
        let parse = Parse {
            statement: name.as_bytes(),
            sql: text.as_bytes(),
            param_oids,
        };
        parse.encode(out)
    })
}

fn bind(random: &mut Random, canary: &Canary) -> Message {
    let (portal, name) = (*random.pick(&PORTALS), *random.pick(&STATEMENTS));
    let mut body = Vec::new();
    for name in [portal, name] {
        body.put_slice(name.as_bytes());
        body.put_u8(0);
    }
    let count = random.below(4) as u16;
    put_formats(&mut body, random, count, 7);
    body.put_u16(count);
    let mut shown = Vec::new();
    for _ in 0..count {
        let value = value(random, canary);
        shown.push(value.as_deref().map(show));
        put_value(&mut body, value.as_deref());
    }
    let results = random.below(3) as u16;
    // Postgres repeats a wrong one in its description.
    put_formats(&mut body, random, results, 1);
    Message::framed(
        format!("Bind {portal:?} {name:?} {shown:?}"),
        kind::BIND,
        &body,
    )
}

fn show(value: &[u8]) -> String {
    const SHOWN: usize = 24;
    let text = String::from_utf8_lossy(&value[..value.len().min(SHOWN)]);
    match value.len() > SHOWN {
        true => format!("{text}… of {}", value.len()),
        false => text.into_owned(),
    }
}

fn put_value(body: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            body.put_u32(value.len() as u32);
            body.put_slice(value);
        }
        None => body.put_i32(-1),
    }
}

/// Formats: none, one for all, or one each; seldom a wrong number, or one that is none.
fn put_formats(body: &mut Vec<u8>, random: &mut Random, count: u16, wrong: i16) {
    let count = match random.below(20) {
        0 => count + 1,
        1..8 => count,
        8..12 => 1,
        _ => 0,
    };
    body.put_u16(count);
    for _ in 0..count {
        body.put_i16(match random.below(30) {
            0 => wrong,
            1..10 => 1,
            _ => 0,
        });
    }
}

fn value(random: &mut Random, canary: &Canary) -> Option<Vec<u8>> {
    Some(match random.below(10) {
        0 => return None,
        1 => random.bytes(8),
        2 => 7_u32.to_be_bytes().to_vec(),
        3 => 7_u64.to_be_bytes().to_vec(),
        4 => Vec::new(),
        5 => format!("{}\0", canary.as_str()).into_bytes(),
        6 => canary.as_str().repeat(100).into_bytes(),
        7 | 8 => random.within(1..=9).to_string().into_bytes(),
        _ => canary.as_str().to_owned().into_bytes(),
    })
}

fn execute(random: &mut Random, portals: &[&'static str]) -> Message {
    let portal = *random.pick(portals);
    let rows_max = *random.pick(&[0, 0, 0, 1, 3, 1000, -1]);
    Message::built(format!("Execute {portal:?} {rows_max}"), |out| {
        let portal = portal.as_bytes();
        Execute { portal, rows_max }.encode(out)
    })
}

fn target(label: &str, kind: u8, random: &mut Random) -> Message {
    let (target, names) = match random.one_in(2) {
        true => (Target::Statement, &STATEMENTS),
        false => (Target::Portal, &PORTALS),
    };
    let name = *random.pick(names);
    Message::built(format!("{label} {target:?} {name:?}"), |out| match kind {
        kind::CLOSE => frontend::close(out, target, name.as_bytes()),
        _ => frontend::describe(out, target, name.as_bytes()),
    })
}

fn call(random: &mut Random, canary: &Canary) -> Message {
    let function = *random.pick(&FUNCTIONS);
    let mut body = Vec::new();
    body.put_u32(function);
    let count = random.below(3) as u16;
    put_formats(&mut body, random, count, 7);
    body.put_u16(count);
    for _ in 0..count {
        put_value(&mut body, value(random, canary).as_deref());
    }
    body.put_i16(random.below(2) as i16);
    Message::framed(
        format!("FunctionCall {function}"),
        kind::FUNCTION_CALL,
        &body,
    )
}

fn copy_data(random: &mut Random, canary: &Canary) -> Message {
    let data = match random.below(8) {
        0 => random.bytes(20),
        1 => b"\\.\n".to_vec(),
        2 => b"1\t".to_vec(),
        3 => format!("5\t{}\n", canary.as_str()).repeat(500).into_bytes(),
        _ => format!("{}\t{}\n", random.below(9), canary.as_str()).into_bytes(),
    };
    Message::framed(
        format!("CopyData of {}", data.len()),
        kind::COPY_DATA,
        &data,
    )
}
