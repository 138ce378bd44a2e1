//! Postgres' settings (`guc_tables.h`), read from outside.

use crate::host::{read_u32, slice, write_u32};

/// Where a setting got its value from (`GucSource`), the weaker ones first: `RESET` returns to what the
/// strongest of those before [`Session`](Self::Session) gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingSource {
    /// Built in, or computed at the start.
    Default = 1,
    /// `postgresql.conf` and `ALTER SYSTEM`.
    File = 3,
    /// The command line.
    Arguments = 4,
    /// `ALTER ROLE ALL SET`.
    Global = 5,
    /// `ALTER DATABASE … SET`.
    Database = 6,
    /// `ALTER ROLE … SET`.
    User = 7,
    /// `ALTER ROLE … IN DATABASE … SET`.
    DatabaseUser = 8,
    /// The client's startup packet.
    Client = 9,
    /// The server itself.
    Override = 10,
    /// `SET`.
    Session = 13,
}

impl SettingSource {
    fn of(number: u32) -> Self {
        match number {
            3 => Self::File,
            2 | 4 => Self::Arguments,
            5 => Self::Global,
            6 => Self::Database,
            7 => Self::User,
            8 => Self::DatabaseUser,
            9 => Self::Client,
            10 => Self::Override,
            11.. => Self::Session,
            _ => Self::Default,
        }
    }
}

/// A setting that is not at its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Where it is in the guest.
    pub(crate) address: u32,
    pub(crate) name: String,
    /// As `SET` takes it.
    pub(crate) value: String,
    pub(crate) source: SettingSource,
    /// It cannot be reset: `seed`, and properties of a transaction.
    is_lasting: bool,
}

impl Setting {
    /// Whether the session has set it, and could reset it.
    pub(crate) fn is_of_session(&self) -> bool {
        self.source == SettingSource::Session && !self.is_lasting
    }
}

/// Offsets in `struct config_generic`.
const NAME: u32 = 0;
const FLAGS: u32 = 20;
const KIND: u32 = 24;
const SOURCE: u32 = 32;
const RESET_SOURCE: u32 = 36;
const EXTRA: u32 = 60;
const LINK: u32 = 64;
const NEXT: u32 = 4;
/// Behind it: the address of the variable, and for one of `enum` what its values are called.
const VARIABLE: u32 = 92;
const CHOICES: u32 = 100;

/// `GUC_NO_RESET` and `GUC_REPORT`, of the flags.
const NO_RESET: u32 = 0x8;
const REPORT: u32 = 0x40;

/// More settings than there are.
const SETTINGS_MAX: usize = 65_536;

/// The settings of the list at `head` that are not at their defaults, in the order in which they were set.
pub(crate) fn changed(memory: &[u8], head: u32) -> Vec<Setting> {
    let mut found = Vec::new();
    let mut link = read_u32(memory, head + NEXT);
    while link != 0 && link != head && found.len() < SETTINGS_MAX {
        let address = link - LINK;
        found.extend(setting(memory, address));
        link = read_u32(memory, link + NEXT);
    }
    found
}

/// Whether one of them was set by the session.
pub(crate) fn any_of_session(memory: &[u8], head: u32) -> bool {
    let mut link = read_u32(memory, head + NEXT);
    let mut seen = 0;
    while link != 0 && link != head && seen < SETTINGS_MAX {
        let source = read_u32(memory, link - LINK + SOURCE);
        if SettingSource::of(source) == SettingSource::Session {
            return true;
        }
        link = read_u32(memory, link + NEXT);
        seen += 1;
    }
    false
}

/// Lets any source but the built-in one give a setting its default anew.
pub(crate) fn weaken(memory: &mut [u8], address: u32) {
    for source in [SOURCE, RESET_SOURCE] {
        write_u32(memory, address + source, SettingSource::Default as u32);
    }
}

/// Takes a setting out of the list of those that are not at their defaults: it is to get its built-in one.
pub(crate) fn unlink(memory: &mut [u8], address: u32) {
    for source in [SOURCE, RESET_SOURCE] {
        write_u32(memory, address + source, 0);
    }
    let link = address + LINK;
    let (before, after) = (read_u32(memory, link), read_u32(memory, link + NEXT));
    write_u32(memory, before + NEXT, after);
    write_u32(memory, after, before);
}

/// Object id of the role that a setting names (`role`, `session_authorization`), 0 for none.
pub(crate) fn role(memory: &[u8], address: u32) -> u32 {
    // A `role_auth_extra` begins with it.
    match read_u32(memory, address + EXTRA) {
        0 => 0,
        extra => read_u32(memory, extra),
    }
}

/// What the client is told without asking (`GUC_REPORT`), of those that are not at their defaults.
pub(crate) fn reported(memory: &[u8], head: u32) -> Vec<(String, String)> {
    let reported = |setting: &Setting| read_u32(memory, setting.address + FLAGS) & REPORT != 0;
    let changed = changed(memory, head).into_iter();
    changed
        .filter(reported)
        .map(|setting| (setting.name, setting.value))
        .collect()
}

fn setting(memory: &[u8], address: u32) -> Option<Setting> {
    Some(Setting {
        address,
        name: text(memory, read_u32(memory, address + NAME))?,
        value: value(memory, address)?,
        source: SettingSource::of(read_u32(memory, address + SOURCE)),
        is_lasting: read_u32(memory, address + FLAGS) & NO_RESET != 0,
    })
}

/// The value of a setting as text that gives the same value again.
fn value(memory: &[u8], address: u32) -> Option<String> {
    let variable = read_u32(memory, address + VARIABLE);
    let number = read_u32(memory, variable);
    match read_u32(memory, address + KIND) {
        0 => {
            let byte = slice(memory, variable, 1).ok()?;
            Some(if byte[0] == 0 { "off" } else { "on" }.to_owned())
        }
        1 => Some((number as i32).to_string()),
        2 => {
            let bytes = slice(memory, variable, 8).ok()?;
            let bytes = bytes.first_chunk::<8>()?;
            Some(f64::from_le_bytes(*bytes).to_string())
        }
        3 if number == 0 => Some(String::new()),
        3 => text(memory, number),
        4 => {
            const CHOICE_BYTES: u32 = 12;
            let choices = read_u32(memory, address + CHOICES);
            (0..256)
                .map(|index| choices + CHOICE_BYTES * index)
                .map_while(|choice| match read_u32(memory, choice) {
                    0 => None,
                    name => Some((name, read_u32(memory, choice + 4))),
                })
                .find(|(_, value)| *value == number)
                .and_then(|(name, _)| text(memory, name))
        }
        _ => None,
    }
}

/// A C string of any length.
pub(crate) fn text(memory: &[u8], at: u32) -> Option<String> {
    let tail = memory.get(at as usize..)?;
    let end = tail.iter().position(|byte| *byte == 0)?;
    String::from_utf8(tail[..end].to_vec()).ok()
}
