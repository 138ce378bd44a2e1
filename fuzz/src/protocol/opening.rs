//! How a connection begins.

use sim::Random;

use super::canary::Canary;
use super::message::Message;

/// What is sent before the first message.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Wishes for encryption, each answered by one byte.
    pub wishes: Vec<u32>,
    /// The startup packet, or what is there in its place.
    pub packet: Message,
    /// A session must come of it.
    pub is_usual: bool,
}

const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

impl Opening {
    /// That of a client that wants nothing special.
    pub fn plain(database: &str) -> Self {
        Self::with(database, &[])
    }

    /// That of one with settings.
    pub fn with(database: &str, settings: &[(&str, &str)]) -> Self {
        let who = [("user", "postgres"), ("database", database)];
        let pairs = who.iter().chain(settings);
        let pairs: Vec<_> = pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            wishes: Vec::new(),
            packet: packet(0x0003_0000, &pairs),
            is_usual: true,
        }
    }

    /// One for a session in a database.
    pub fn draw(random: &mut Random, database: &str, canary: &Canary) -> Self {
        let wishes = match random.below(10) {
            0 => vec![SSL_REQUEST],
            1 => vec![GSS_ENC_REQUEST, SSL_REQUEST],
            _ => Vec::new(),
        };
        let is_usual = !random.one_in(12);
        let packet = match is_usual {
            true => usual(random, database, canary),
            false => odd(random, database, canary),
        };
        Self {
            wishes,
            packet,
            is_usual,
        }
    }
}

fn usual(random: &mut Random, database: &str, canary: &Canary) -> Message {
    let user = if random.one_in(6) {
        "other"
    } else {
        "postgres"
    };
    let version = 0x0003_0000 + *random.pick(&[0, 0, 0, 1, 2, 2, 9]);
    let mut pairs = vec![
        ("user".to_owned(), user.to_owned()),
        ("database".to_owned(), database.to_owned()),
    ];
    let own = canary.as_str();
    let more = [
        ("application_name", own.to_owned()),
        ("my.canary", own.to_owned()),
        ("options", format!("-c my.canary={own} --my.other={own}")),
        (
            "options",
            "-c statement_timeout=2000 -c work_mem=1MB".to_owned(),
        ),
        ("_pq_.no_such", "1".to_owned()),
        ("search_path", format!("{own}, public")),
        ("DateStyle", "German".to_owned()),
        ("client_encoding", "UTF8".to_owned()),
    ];
    for (name, value) in more {
        if random.one_in(5) {
            pairs.push((name.to_owned(), value));
        }
    }
    packet(version, &pairs)
}

fn packet(version: u32, pairs: &[(String, String)]) -> Message {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in pairs {
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    Message::raw(format!("Startup {version:#x} {pairs:?}"), sized(&body))
}

fn sized(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 4).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// Packets from which, mostly, no session comes.
fn odd(random: &mut Random, database: &str, canary: &Canary) -> Message {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (user, base) = (pair("user", "postgres"), pair("database", database));
    let with = |name: &str, value: &str| {
        packet(
            0x0003_0000,
            &[user.clone(), base.clone(), pair(name, value)],
        )
    };
    match random.below(16) {
        0 => packet(0x0002_0000, &[user, base]),
        1 => packet(0x0004_0000, &[user, base]),
        2 => packet(0x0003_0000, &[base]),
        3 => packet(0x0003_0000, &[]),
        4 => packet(0x0003_0000, &[pair("user", canary.as_str()), base]),
        5 => packet(0x0003_0000, &[user, pair("database", "../x y")]),
        6 => with("replication", "database"),
        7 => with("no_such_setting", canary.as_str()),
        8 => with("options", "-c"),
        9 => with("options", "-c work_mem=-5 \\"),
        10 => with("work_mem", &canary.as_str().repeat(50)),
        11 => Message::raw("a startup of 2 GB", 0x7fff_ffff_u32.to_be_bytes()),
        12 => Message::raw("an empty startup", 4_u32.to_be_bytes()),
        13 => Message::raw("another protocol", *b"GET / HTTP/1.1\r\n\r\n"),
        14 => {
            let mut body = CANCEL_REQUEST.to_be_bytes().to_vec();
            let count = random.within(0..=300) as usize;
            body.extend(random.bytes(count));
            Message::raw("CancelRequest of nobody", sized(&body))
        }
        _ => {
            let whole = packet(0x0003_0000, &[user, base]);
            let mut bytes = whole.bytes;
            let place = random.index(bytes.len());
            match random.one_in(2) {
                true => bytes.truncate(place),
                false => bytes[place] ^= 1 << random.below(8),
            }
            Message::raw(format!("damaged {} at {place}", whole.label), bytes)
        }
    }
}

/// A wish to cancel what a session does.
pub fn cancel(process_id: u32, key: &[u8]) -> Vec<u8> {
    let mut body = CANCEL_REQUEST.to_be_bytes().to_vec();
    body.extend(process_id.to_be_bytes());
    body.extend_from_slice(key);
    sized(&body)
}
