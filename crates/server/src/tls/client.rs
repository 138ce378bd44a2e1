//! TLS of connections that we begin: whom we believe.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::TlsError;
use super::identity::certificates;

/// Believes nobody: for a client that speaks in clear only, and loads no authorities for it.
///
/// # Errors
/// If there is no version of TLS, which cannot be.
pub fn client_config_of_nobody() -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Client(error.to_string()))?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// Believes the authorities of the system, and those in this file in PEM besides. Blocks for the disk.
///
/// # Errors
/// If they cannot be read.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut own = Vec::new();
    if let Some(path) = ca {
        let bytes = std::fs::read(path).map_err(|source| TlsError::Read {
            setting: "the authorities",
            path: path.to_owned(),
            source,
        })?;
        own = certificates(&bytes).map_err(|reason| TlsError::Content {
            setting: "the authorities",
            path: path.to_owned(),
            reason,
        })?;
    }
    let verifier = Verifier::new_with_extra_roots(own, Arc::clone(&provider))
        .map_err(|error| TlsError::Client(error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Client(error.to_string()))?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}
