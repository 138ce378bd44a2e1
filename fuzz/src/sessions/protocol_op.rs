//! Extended queries, whole or in parts, and `COPY`.

use sim::Random;
use wire::pg::frontend::{self, Bind, Execute, Param, Parse, kind};
use wire::pg::{Format, Target};

use super::grammar::fill;
use super::op::{Hold, Op, Until};
use crate::protocol::message::Message;

const NAMES: [&str; 4] = ["", "", "s1", "s2"];
/// Of a statement that `PREPARE` may have made.
const BY_SQL: &str = "p1";
const QUERIES: [&str; 13] = [
    "SELECT $1::int + #, '@'",
    "SELECT $1, $2",
    "SELECT $1 || '@'",
    "SELECT '@', #",
    "SELECT * FROM t# ORDER BY 1",
    "INSERT INTO t# VALUES ($1, $2) RETURNING *",
    "SELECT n, '@' FROM generate_series(1, 7) AS n",
    "SELECT $1::date, '01/02/2024'::date, $2::timestamptz",
    "SELECT nextval('q#'), $1",
    "SET my.a = '@'",
    "SELECT current_setting('my.a', true), $1",
    "SELECT 1 / ($1::int - 1)",
    "SELECT n FROM public.common WHERE n = $1",
];
/// `text`, `int4`, `int8`, `date`, unknown.
const TYPES: [u32; 5] = [25, 23, 20, 1082, 0];

/// Messages up to a `Sync`; some of them may come behind an error.
pub fn whole(random: &mut Random, word: &str) -> Op {
    let mut messages = Vec::new();
    for _ in 0..random.within(1..=3) {
        let name = name(random);
        match random.below(10) {
            0..3 => messages.push(parse(name, random, word)),
            3..5 => messages.extend([
                parse(name, random, word),
                bind(name, "", random, word),
                execute("", 0),
            ]),
            5..8 => {
                messages.push(bind(name, "", random, word));
                if random.one_in(2) {
                    messages.push(described(Target::Portal, ""));
                }
                messages.push(execute("", *random.pick(&[0, 2])));
            }
            8 => messages.push(described(Target::Statement, name)),
            _ => messages.push(closed(name)),
        }
    }
    messages.push(Message::sync());
    Op {
        messages,
        until: Until::Ready,
        hold: Hold::Nothing,
    }
}

/// An extended query in parts, between which others may do something. The last part has the `Sync`.
pub fn parts(random: &mut Random, word: &str) -> Vec<Op> {
    let name = name(random);
    let part = |message: Message, until: &'static [u8]| Op {
        messages: vec![message, Message::framed("Flush", kind::FLUSH, b"")],
        until: Until::Kind(until),
        hold: Hold::Begin,
    };
    let mut ops = Vec::new();
    if random.one_in(2) {
        ops.push(part(parse(name, random, word), b"1"));
    }
    if random.one_in(2) {
        ops.push(part(described(Target::Statement, name), b"Tn"));
    }
    ops.push(part(bind(name, "c1", random, word), b"2"));
    for _ in 0..random.within(1..=3) {
        ops.push(part(execute("c1", *random.pick(&[0, 2])), b"CsI"));
    }
    ops.push(Op {
        messages: vec![Message::sync()],
        until: Until::Ready,
        hold: Hold::End,
    });
    ops
}

/// A `COPY` with its data.
pub fn copy(random: &mut Random, word: &str) -> Op {
    let mut messages = vec![Message::query(&fill("COPY t# FROM STDIN", random, word))];
    for _ in 0..random.within(0..=3) {
        let row = fill("#\t@\n", random, word);
        messages.push(Message::framed(
            format!("CopyData {row:?}"),
            kind::COPY_DATA,
            row.as_bytes(),
        ));
    }
    messages.push(match random.one_in(4) {
        true => Message::copy_fail(),
        false => Message::framed("CopyDone", kind::COPY_DONE, b""),
    });
    // If it has failed, nothing is said to what came behind the error.
    messages.push(Message::sync());
    Op {
        messages,
        until: Until::SecondReady,
        hold: Hold::Nothing,
    }
}

fn name(random: &mut Random) -> &'static str {
    match random.one_in(5) {
        true => BY_SQL,
        false => NAMES[random.index(NAMES.len())],
    }
}

fn parse(name: &str, random: &mut Random, word: &str) -> Message {
    let sql = *random.pick(&QUERIES);
    let sql = fill(sql, random, word);
    let param_oids: Vec<u32> = (0..random.below(3)).map(|_| *random.pick(&TYPES)).collect();
    Message::built(format!("Parse {name:?} {sql:?} {param_oids:?}"), |out| {
        let (statement, sql) = (name.as_bytes(), sql.as_bytes());
        Parse {
            statement,
            sql,
            param_oids,
        }
        .encode(out)
    })
}

fn bind(name: &str, portal: &str, random: &mut Random, word: &str) -> Message {
    let values: Vec<Option<String>> = (0..random.below(3))
        .map(|_| match random.below(6) {
            0 => None,
            1 => Some(word.to_owned()),
            2 => Some("03/04/2024".to_owned()),
            _ => Some(random.within(1..=3).to_string()),
        })
        .collect();
    let format = if random.one_in(4) {
        Format::Binary
    } else {
        Format::Text
    };
    let label = format!("Bind {portal:?} {name:?} {values:?} {format:?}");
    Message::built(label, |out| {
        let params = values
            .iter()
            .map(|value| Param::text(value.as_deref().map(str::as_bytes)));
        let bind = Bind {
            portal: portal.as_bytes(),
            statement: name.as_bytes(),
            params: params.collect(),
            result_formats: vec![format],
        };
        bind.encode(out)
    })
}

fn execute(portal: &str, rows_max: i32) -> Message {
    Message::built(format!("Execute {portal:?} {rows_max}"), |out| {
        let portal = portal.as_bytes();
        Execute { portal, rows_max }.encode(out)
    })
}

fn described(target: Target, name: &str) -> Message {
    Message::built(format!("Describe {target:?} {name:?}"), |out| {
        frontend::describe(out, target, name.as_bytes())
    })
}

fn closed(name: &str) -> Message {
    Message::built(format!("Close {name:?}"), |out| {
        frontend::close(out, Target::Statement, name.as_bytes())
    })
}
