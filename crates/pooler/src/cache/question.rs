//! A query as the cache asks for it: whether its answer may be kept, and all that the answer depends on.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Duration;
use wire::pg::frontend::Bind;

use super::reading::Obstacle;
use super::space::Key;
use super::status::CacheStatus;
use super::text::Text;
use super::{Cache, NAME_SETTING, OWN_SETTINGS};
use crate::facts::Facts;
use crate::literals::has_clock_word;
use crate::settings::Settings;

/// Stands for a text without its values and the settings of its session. 128 bits with keys that nobody knows: two are
/// never alike.
pub(super) type Shape = [u64; 2];

/// A query whose answer may be kept.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// What the answer is found by, whatever the program is called.
    key: Key,
    /// What it is found by if it depends on that.
    key_of_name: Option<Key>,
    settings: Settings,
    /// All that its analysis depends on.
    pub(super) shape: Shape,
    pub(crate) facts: Arc<Facts>,
    pub(super) max_age: Duration,
    pub(super) stale: Duration,
}

/// How a query is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// By `Query`.
    Simple,
    /// By `Bind` of a statement with these types, its body behind the names; with `Describe` of the portal or not.
    Extended {
        oids: &'a [u32],
        bind: &'a [u8],
        describes: bool,
    },
}

impl Cache {
    /// What a query is, as far as its text, its session and its parameters tell.
    ///
    /// # Errors
    ///
    /// What it is instead of one whose answer may be kept.
    pub(crate) fn judge(
        &self,
        text: &Text,
        settings: &Settings,
        conforms: bool,
        asked: Asked<'_>,
    ) -> Result<Question, CacheStatus> {
        let caching = self.caching();
        self.judge_text(&text.facts, settings)?;
        if text.control.is_off {
            return Err(CacheStatus::Disabled);
        }
        let bind = match asked {
            Asked::Simple => &[][..],
            Asked::Extended { bind, .. } => bind,
        };
        if text.content.len() + bind.len() > self.space.options.query_bytes_max {
            return Err(CacheStatus::OversizedQuery);
        }
        if text.asks_clock || asks_clock(bind) {
            return Err(CacheStatus::Volatile);
        }
        if text.has_backslash && !conforms {
            return Err(CacheStatus::Uncacheable);
        }
        let meant = meaning(settings);
        let max_age = Duration::from_secs(caching.max_age.into());
        let stale = Duration::from_secs(caching.stale_while_revalidate.into());
        Ok(Question {
            key: self.key(text, &meant, asked),
            key_of_name: None,
            settings: settings.clone(),
            shape: self.shape(text, &meant),
            facts: Arc::clone(&text.facts),
            max_age: text.control.max_age.unwrap_or(max_age),
            stale: text.control.stale.unwrap_or(stale),
        })
    }

    /// As [`judge`](Self::judge), of the text alone.
    pub(crate) fn judge_text(&self, facts: &Facts, settings: &Settings) -> Result<(), CacheStatus> {
        if !self.is_on() || settings.get("dormouse.cache") == Some("off") {
            return Err(CacheStatus::Disabled);
        }
        if !settings.is_utf8() {
            // Its bytes are read as what they are not.
            return Err(CacheStatus::Uncacheable);
        }
        if facts.is_unreadable {
            return Err(CacheStatus::ParseError);
        }
        if facts.statements > 1 {
            return Err(CacheStatus::MultipleStatements);
        }
        match facts.reading.obstacle {
            Some(Obstacle::NotAQuery) => Err(CacheStatus::NotAQuery),
            Some(Obstacle::Volatile) => Err(CacheStatus::Volatile),
            Some(Obstacle::Uncacheable) => Err(CacheStatus::Uncacheable),
            None if facts.reading.asks_session => Err(CacheStatus::Volatile),
            None => Ok(()),
        }
    }

    fn shape(&self, text: &Text, settings: &[u8]) -> Shape {
        let shape = Facts::shape(&text.content);
        self.hashers
            .each_ref()
            .map(|hasher| hasher.hash_one((settings, &shape)))
    }

    fn key(&self, text: &Text, settings: &[u8], asked: Asked<'_>) -> Key {
        let mut content = Vec::with_capacity(text.content.len() + settings.len() + 64);
        content.push(OF_ANY_NAME);
        content.extend_from_slice(&self.generation.load(Ordering::SeqCst).to_be_bytes());
        put(&mut content, settings);
        match asked {
            Asked::Simple => content.push(0),
            Asked::Extended {
                oids,
                bind,
                describes,
            } => {
                content.push(1 + u8::from(describes));
                content.extend_from_slice(&(oids.len() as u64).to_be_bytes());
                for oid in oids {
                    content.extend_from_slice(&oid.to_be_bytes());
                }
                put(&mut content, bind);
            }
        }
        content.extend_from_slice(&text.content);
        Key {
            cache: self.number,
            content: content.into(),
        }
    }
}

/// The first byte of what an answer is found by.
const OF_ANY_NAME: u8 = 0;
const OF_ONE_NAME: u8 = 1;

impl Question {
    /// What the answer is found by.
    pub(super) fn key(&self) -> &Key {
        self.key_of_name.as_ref().unwrap_or(&self.key)
    }

    /// Whether it is found by what the program is called, too.
    pub(super) fn is_of_name(&self) -> bool {
        self.key_of_name.is_some()
    }

    /// Whether it is to be.
    pub(super) fn turn_to_name(&mut self, is_of_name: bool) {
        self.key_of_name = is_of_name.then(|| {
            let mut content = vec![OF_ONE_NAME];
            let name = self.settings.get(NAME_SETTING);
            content.push(name.is_some().into());
            put(&mut content, name.unwrap_or_default().as_bytes());
            content.extend_from_slice(&self.key.content);
            Key {
                cache: self.key.cache,
                content: content.into(),
            }
        });
    }
}

/// Whether a parameter asks the clock where it is read as a date.
fn asks_clock(bind: &[u8]) -> bool {
    if bind.is_empty() {
        return false;
    }
    let mut body = Vec::with_capacity(bind.len() + 2);
    // Without the names.
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(bind);
    let Ok(bind) = Bind::decode(&body) else {
        return true;
    };
    let mut values = bind.params.iter().filter_map(|param| param.value);
    values.any(has_clock_word)
}

/// All settings of a session on which an answer may depend, but for what its program is called.
fn meaning(settings: &Settings) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in settings.names() {
        if name != NAME_SETTING && !name.starts_with(OWN_SETTINGS) {
            put(&mut bytes, name.as_bytes());
            put(
                &mut bytes,
                settings.get(name).unwrap_or_default().as_bytes(),
            );
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend_from_slice(part);
}
