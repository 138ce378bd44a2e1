//! What is asked: the body, and the headers about it.

use axum::http::HeaderMap;
use serde::Deserialize;
use wire::http::neon;
use wire::{PgError, sqlstate};

use crate::http::isolation::Isolation;
use crate::http::params::Params;

/// The body: one query, or several that are all or none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body {
    pub(super) queries: Option<Vec<Query>>,
    query: Option<String>,
    #[serde(default)]
    params: Params,
    array_mode: Option<bool>,
}

/// One query.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Query {
    pub(super) query: String,
    #[serde(default)]
    params: Params,
    pub(super) array_mode: Option<bool>,
}

impl Body {
    /// The one query of a body that has no `queries`.
    ///
    /// # Errors
    /// 22023 if it has none either.
    pub(super) fn into_query(self) -> Result<Query, PgError> {
        let query = self.query.ok_or_else(|| {
            PgError::error(
                sqlstate::INVALID_PARAMETER_VALUE,
                "the body has neither \"query\" nor \"queries\"",
            )
        })?;
        Ok(Query {
            query,
            params: self.params,
            array_mode: self.array_mode,
        })
    }
}

impl Query {
    /// The texts of the parameters.
    pub(super) fn params(&self) -> Result<Vec<Option<Vec<u8>>>, PgError> {
        let values = self.params.values()?;
        let numbered = (1..).zip(values);
        numbered
            .map(|(number, param)| neon::param(number, param))
            .collect()
    }
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) is_raw: bool,
    pub(super) arrays: bool,
}

impl Style {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            is_raw: is_true(headers, "neon-raw-text-output"),
            arrays: is_true(headers, "neon-array-mode"),
        }
    }
}

/// The transaction of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    isolation: Option<Isolation>,
    is_read_only: bool,
    is_deferrable: bool,
}

impl Transaction {
    /// # Errors
    /// 22023 for an isolation level that is none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, PgError> {
        let level = headers.get("neon-batch-isolation-level");
        Ok(Self {
            isolation: level.map(|level| isolation(level.as_bytes())).transpose()?,
            is_read_only: is_true(headers, "neon-batch-read-only"),
            is_deferrable: is_true(headers, "neon-batch-deferrable"),
        })
    }

    /// The statement that begins it.
    pub(super) fn begin(&self) -> String {
        Isolation::begin(self.isolation, self.is_read_only, self.is_deferrable)
    }
}

fn isolation(level: &[u8]) -> Result<Isolation, PgError> {
    Ok(match level {
        b"ReadUncommitted" => Isolation::ReadUncommitted,
        b"ReadCommitted" => Isolation::ReadCommitted,
        b"RepeatableRead" => Isolation::RepeatableRead,
        b"Serializable" => Isolation::Serializable,
        _ => {
            return Err(PgError::error(
                sqlstate::INVALID_PARAMETER_VALUE,
                "the header Neon-Batch-Isolation-Level is none of ReadUncommitted, ReadCommitted, \
                 RepeatableRead and Serializable",
            ));
        }
    })
}

fn is_true(headers: &HeaderMap, name: &str) -> bool {
    headers.get(name).is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions() {
        let begin = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            Transaction::of(&headers).map(|transaction| transaction.begin())
        };
        assert_eq!(begin(&[]).unwrap(), "BEGIN");
        assert_eq!(
            begin(&[
                ("neon-batch-isolation-level", "Serializable"),
                ("neon-batch-read-only", "true"),
                ("neon-batch-deferrable", "true"),
            ])
            .unwrap(),
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"
        );
        assert_eq!(
            begin(&[("neon-batch-read-only", "false")]).unwrap(),
            "BEGIN"
        );
        let error = begin(&[("neon-batch-isolation-level", "; drop")]).unwrap_err();
        assert_eq!(error.code(), "22023");
    }
}
