//! What is sent to make or change a configuration of Cloudflare's.

use serde::Deserialize;
use serde_json::Value;

use crate::http::bindings::document::{CachingDocument, LimitsDocument};
use crate::http::bindings::new::{BindingFields, OriginFields};
use crate::http::bindings::said;
use crate::http::error::ApiError;

/// What is sent to make or change a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    name: Option<String>,
    origin: Option<OriginOfTheirs>,
    caching: Option<CachingOfTheirs>,
    mtls: Option<Mtls>,
    origin_connection_limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OriginOfTheirs {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    database: Option<String>,
    user: Option<String>,
    password: Option<String>,
    /// Ways through their network.
    access_client_id: Option<Value>,
    access_client_secret: Option<Value>,
    service_id: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CachingOfTheirs {
    disabled: Option<bool>,
    max_age: Option<u32>,
    stale_while_revalidate: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mtls {
    ca_certificate_id: Option<Value>,
    mtls_certificate_id: Option<Value>,
    sslmode: Option<String>,
}

impl Fields {
    /// What it says in our words.
    pub(super) fn ours(self) -> Result<BindingFields, ApiError> {
        let mut origin = self.origin.map(OriginOfTheirs::ours).transpose()?;
        if let Some(mtls) = self.mtls {
            if mtls.ca_certificate_id.is_some() || mtls.mtls_certificate_id.is_some() {
                return Err(said::invalid(
                    "there are no certificates with ids here: give them to POST /v1/bindings as origin.sslrootcert, \
                     origin.sslcert and origin.sslkey",
                ));
            }
            if mtls.sslmode.is_some() {
                origin.get_or_insert_default().sslmode = mtls.sslmode;
            }
        }
        Ok(BindingFields {
            name: self.name,
            origin,
            limits: self.origin_connection_limit.map(|limit| LimitsDocument {
                connections_max: Some(limit),
                ..LimitsDocument::default()
            }),
            caching: self.caching.map(|caching| CachingDocument {
                disabled: caching.disabled,
                max_age: caching.max_age,
                stale_while_revalidate: caching.stale_while_revalidate,
                ..CachingDocument::default()
            }),
            ..BindingFields::default()
        })
    }
}

impl OriginOfTheirs {
    fn ours(self) -> Result<OriginFields, ApiError> {
        if !matches!(
            self.scheme.as_deref(),
            None | Some("postgres" | "postgresql")
        ) {
            return Err(said::invalid(
                "origin.scheme must be postgres or postgresql",
            ));
        }
        let ways = [
            ("access_client_id", self.access_client_id.is_some()),
            ("access_client_secret", self.access_client_secret.is_some()),
            ("service_id", self.service_id.is_some()),
        ];
        if let Some((field, _)) = ways.iter().find(|(_, told)| *told) {
            return Err(said::invalid(format!(
                "origin.{field} is a way through Cloudflare's network: leave it out, addresses are reached from this node"
            )));
        }
        Ok(OriginFields {
            host: self.host,
            port: self.port,
            database: self.database,
            user: self.user,
            password: self.password,
            ..OriginFields::default()
        })
    }
}
