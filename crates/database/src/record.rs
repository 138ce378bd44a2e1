//! The record of a database: what is kept of it beside its volume.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use volume::{BaseId, DatabaseId, LayerId, TemplateId};
use wire::{DatabaseName, PgError, sqlstate};

use crate::options::Durability;

/// What the directory keeps of a database. Serialized: fields may be added, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// 32 hexadecimal digits.
    pub(crate) template: String,
    /// The layer that it is over, origin and epoch; none if it is over the template itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layer: Option<(u64, u32)>,
    /// Milliseconds since the Unix epoch.
    pub(crate) created_ms: u64,
    /// The database that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    /// Names that its catalog may still have: its own before a rename, its parent's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) former_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub(crate) settings: Settings,
}

/// Settings of one database; what is not set is as the node has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What an acknowledged commit has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Whether the host vacuums, analyzes and freezes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<bool>,
    /// The limit `volume.bytes_max` of this database: past it it does not grow.
    #[serde(default, rename = "bytesMax", skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// Bytes from which on the log says that it grows, and its health that it is over them.
    #[serde(default, rename = "bytesWarn", skip_serializing_if = "Option::is_none")]
    pub bytes_warn: Option<u64>,
    /// The most bytes of the body of a request, or of a message in a WebSocket.
    #[serde(
        default,
        rename = "bodyBytesMax",
        skip_serializing_if = "Option::is_none"
    )]
    pub body_bytes_max: Option<NonZeroU64>,
    /// The most bytes of the result of a request.
    #[serde(
        default,
        rename = "resultBytesMax",
        skip_serializing_if = "Option::is_none"
    )]
    pub result_bytes_max: Option<NonZeroU64>,
}

impl Settings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// These with the quota that was set before, which they may name and not change.
    pub(crate) fn within_quota_of(self, old: Self) -> Result<Self, PgError> {
        if is_other(self.bytes_max, old.bytes_max)
            || is_other(self.bytes_warn, old.bytes_warn)
            || is_other(self.body_bytes_max, old.body_bytes_max)
            || is_other(self.result_bytes_max, old.result_bytes_max)
        {
            return Err(of_the_node());
        }
        Ok(Self {
            bytes_max: old.bytes_max,
            bytes_warn: old.bytes_warn,
            body_bytes_max: old.body_bytes_max,
            result_bytes_max: old.result_bytes_max,
            ..self
        })
    }

    pub(crate) fn expect_no_quota(self) -> Result<(), PgError> {
        let has_quota = self.bytes_max.is_some()
            || self.body_bytes_max.is_some()
            || self.result_bytes_max.is_some();
        match has_quota {
            true => Err(of_the_node()),
            false => Ok(()),
        }
    }
}

fn is_other<T: PartialEq>(new: Option<T>, old: Option<T>) -> bool {
    new.is_some() && new != old
}

fn of_the_node() -> PgError {
    PgError::error(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        "how large the database, its requests and their results may be (bytesMax, bytesWarn, bodyBytesMax, resultBytesMax) is set by the node's administrator alone, who alone deletes one that has a limit",
    )
}

impl Record {
    pub(crate) fn id(&self) -> Option<DatabaseId> {
        DatabaseId::new(self.id)
    }

    pub(crate) fn name(&self) -> Option<DatabaseName> {
        DatabaseName::parse(&self.name).ok()
    }

    pub(crate) fn template(&self) -> Option<TemplateId> {
        let number = u128::from_str_radix(&self.template, 16).ok()?;
        Some(TemplateId::from_bytes(number.to_be_bytes()))
    }

    /// What its volume is over.
    pub(crate) fn base(&self) -> Option<BaseId> {
        match self.layer {
            Some((origin, epoch)) => {
                let origin = DatabaseId::new(origin)?;
                Some(BaseId::Layer(LayerId { origin, epoch }))
            }
            None => self.template().map(BaseId::Template),
        }
    }
}
